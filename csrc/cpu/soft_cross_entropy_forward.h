// The forward pass of soft cross entropy, chunk by chunk.
#pragma once

#include "cpu/row_losses.h"
#include "cpu/row_plan.h"
#include "cpu/soft_cross_entropy_rows.h"

namespace ce_ext::cpu {

// A is the type that numbers are computed in, Form tells which of the problem's options are compiled in.
template <class A, class Form>
class SoftCrossEntropyForwardRows {
  using V = Lanes<A>;
  using Sums = ChunkSums<A, Form::kGaps, Form::kReport>;

 public:
  explicit SoftCrossEntropyForwardRows(const SoftCrossEntropyForward& p)
      : p_(p),
        matrix_{p.dtype, p.input, p.row_dims, p.input_rows, p.input_class_stride},
        targets_{opmath_if(p.target_is_opmath, p.dtype), p.target, p.row_dims, p.target_rows, p.target_class_stride},
        logits_(p.options.logits),
        loss_(make_loss<A>(p)),
        plan_(RowPlan::make<A>(p.rows, p.groups, p.classes, {p.input_class_stride, p.target_class_stride})) {}

  const Chunks& chunks() const { return plan_.chunks; }

  // Does all of a chunk but to reduce its losses.
  RowTotals run(const Chunk& chunk) const {
    Sums sums;
    plan_.classes_as_lanes ? gather_by_class(chunk, sums) : gather_by_row(chunk, sums);
    if constexpr (Form::kReport) {
      if (p_.report) report(chunk, sums);
    }
    return finish(chunk, sums);
  }

 private:
  // FocalSums of every row of a chunk.
  struct FocalChunkSums {
    alignas(64) A loss[kMaxChunkRows] = {};
    alignas(64) A mass_below[kMaxChunkRows] = {};
    alignas(64) A mass_at_max[kMaxChunkRows] = {};

    template <class T>
    FocalSums<T> get(int64_t r) const {
      return {read<T>(loss + r), read<T>(mass_below + r), read<T>(mass_at_max + r)};
    }
    template <class T>
    void set(int64_t r, const FocalSums<T>& row) {
      write(loss + r, row.loss);
      write(mass_below + r, row.mass_below);
      write(mass_at_max + r, row.mass_at_max);
    }
  };

  int64_t* argmax(const Chunk& chunk, int64_t r) const { return p_.report ? p_.argmax + chunk.first + r : nullptr; }

  // Calls f(logits, probabilities) with them as matrices of what they are.
  template <class F>
  void visit(F f) const {
    dispatch_stored<A>(
        p_, [&](auto s, auto q) { f(matrix_.template as<decltype(s)>(), targets_.template as<decltype(q)>()); });
  }

  template <class S>
  RowLogits<A, S, Form::kLogitsChange> row_logits(const S* x) const {
    return {x, logits_};
  }

  void gather_by_class(const Chunk& chunk, Sums& sums) const {
    visit([&](const auto& matrix, const auto& targets) {
      for (int64_t r = 0; r < chunk.rows; ++r) {
        const int64_t row = chunk.first + r;
        gather_row(matrix.row(row), targets.row(row), chunk, r, sums);
      }
    });
    SoftmaxSums<A, Form::kGaps, Form::kReport> of_no_row;
    of_no_row.max = A(0);  // its loss is 0
    for (int64_t r = chunk.rows; r < V::round_up(chunk.rows); ++r) sums.set(r, of_no_row);
  }

  template <class S, class Q>
  void gather_row(const S* x, const Q* q, const Chunk& chunk, int64_t r, Sums& sums) const {
    const MassesByClass<A, Q> masses{q, {static_cast<const A*>(p_.weight)}, loss_};
    sums.set(r, softmax_sums<Form::kGaps, Form::kReport>(row_logits(x), plan_.pieces, masses, argmax(chunk, r)));
  }

  void gather_by_row(const Chunk& chunk, Sums& sums) const {
    MassesByRow<A> masses(targets_, chunk, static_cast<const A*>(p_.weight), loss_);
    Tile<A> tile(chunk.rows);
    softmax_sums(tile, matrix_, logits_, chunk, p_.classes, masses, sums, {argmax(chunk, 0), nullptr, nullptr});
  }

  RowTotals finish(const Chunk& chunk, const Sums& sums) const {
    alignas(64) A sample_weights[kMaxChunkRows];
    read_sample_weights(p_, chunk, sample_weights);
    auto* saved = static_cast<SavedSoftRow<A>*>(p_.saved);
    alignas(64) A losses[kMaxChunkRows];
    [[maybe_unused]] FocalChunkSums focal;
    if constexpr (kIsFocal<Form>)
      plan_.classes_as_lanes ? focus_by_class(chunk, sums, focal) : focus_by_row(chunk, sums, focal);
    V loss_sum, weight_sum;
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      const int64_t n = std::min<int64_t>(V::kSize, chunk.rows - r);
      const auto row_sums = sums.template get<V>(r);
      SavedSoftRow<V> row{row_sums.finish(), row_sums.weight_sum, row_sums.tie_weight};
      V row_loss;
      if constexpr (kIsFocal<Form>) {
        const auto focal_sums = focal.template get<V>(r);
        row = {row.stats, focal_sums.mass_below, focal_sums.mass_at_max};
        row_loss = loss_.with_z_loss(row.stats, focal_sums.loss);
      } else {
        row_loss = loss_.loss(row, row_sums.gap_sum);
      }
      if (saved)
        store_rows(saved + chunk.first + r, n, row.stats.max, row.stats.log_sum, row.mass_below, row.mass_at_max);
      const V sample_weight = V::load(sample_weights + r);
      const V loss = product(sample_weight, row_loss);
      loss.store(losses + r);
      loss_sum = loss_sum + loss;
      weight_sum = weight_sum + sample_weight;
    }
    store_losses(p_, chunk, losses);
    return {double(loss_sum.sum()), double(weight_sum.sum())};
  }

  void focus_by_class(const Chunk& chunk, const Sums& sums, FocalChunkSums& focal) const {
    visit([&](const auto& matrix, const auto& targets) {
      for (int64_t r = 0; r < chunk.rows; ++r) {
        const int64_t row = chunk.first + r;
        focal.set(r, focal_sums(matrix.row(row), targets.row(row), sums.template get<A>(r).finish()));
      }
    });
  }

  template <class S, class Q>
  FocalSums<A> focal_sums(const S* x, const Q* q, const RowStats<A>& row_stats) const {
    const RowStats<V> stats{V(row_stats.max), V(row_stats.log_sum)};
    const MassesByClass<A, Q> masses{q, {static_cast<const A*>(p_.weight)}, loss_};
    const auto add_up = [&](int64_t first, int64_t count) {
      auto logits = row_logits(x + first);
      const MassesByClass<A, Q> mass = masses.from(first);
      const SoftCrossEntropy<V> loss = loss_;
      FocalSums<A> sums;
      for (int64_t begin = 0; begin < count; begin += kClassBlock<A>) {
        const int64_t n = std::min(kClassBlock<A>, count - begin);
        const auto* z = logits.block(begin, begin + n);
        FocalSums<V> part;
        for_each_vector<V>(n, [&](int64_t i, int64_t lanes) C10_ALWAYS_INLINE_ATTRIBUTE {
          part.add(loss, stats, V::load(z + i, lanes, A(-INFINITY)), mass(begin + i, lanes));
        });
        sums.merge({part.loss.sum(), part.mass_below.sum(), part.mass_at_max.sum()});
      }
      return sums;
    };
    return plan_.pieces.template sum<FocalSums<A>>(
        add_up, [](FocalSums<A>& total, const FocalSums<A>& next) { total.merge(next); });
  }

  void focus_by_row(const Chunk& chunk, const Sums& sums, FocalChunkSums& focal) const {
    MassesByRow<A> masses(targets_, chunk, static_cast<const A*>(p_.weight), loss_);
    Tile<A> z(chunk.rows);
    for (int64_t begin = 0; begin < p_.classes; begin += z.max_classes()) {
      const int64_t n = std::min(z.max_classes(), p_.classes - begin);
      z.load(matrix_, chunk, begin, n);
      z.apply(logits_, n);
      masses.load(begin, n);
      for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
        const RowStats<V> stats = sums.template get<V>(r).finish();
        auto row = focal.template get<V>(r);
        for_each_part(n, [&](int64_t first, int64_t last) {
          FocalSums<V> part;
          for (int64_t c = first; c < last; ++c) part.add(loss_, stats, V::load(z[c] + r), masses(c, r));
          row.merge(part);
        });
        focal.set(r, row);
      }
    }
  }

  // The target's log-probability is sum_j q_j log p_j, of the probabilities as they are: it takes a pass of its own.
  void report(const Chunk& chunk, const Sums& sums) const {
    alignas(64) A target_log_prob[kMaxChunkRows];
    if (plan_.classes_as_lanes) {
      visit([&](const auto& matrix, const auto& targets) {
        for (int64_t r = 0; r < chunk.rows; ++r) {
          const int64_t row = chunk.first + r;
          const RowStats<A> stats = sums.template get<A>(r).finish();
          target_log_prob[r] = target_log_prob_by_class(matrix.row(row), targets.row(row), stats);
        }
      });
    } else {
      target_log_prob_by_row(chunk, sums, target_log_prob);
    }
    auto* report = static_cast<RowReport<A>*>(p_.report) + chunk.first;
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      const int64_t n = std::min<int64_t>(V::kSize, chunk.rows - r);
      const auto row_sums = sums.template get<V>(r);
      const RowStats<V> stats = row_sums.finish();
      store_rows(report + r, n, log_sum_exp(stats), row_sums.entropy(stats), V::load(target_log_prob + r));
    }
  }

  template <class S, class Q>
  A target_log_prob_by_class(const S* x, const Q* q, const RowStats<A>& row_stats) const {
    const RowStats<V> stats{V(row_stats.max), V(row_stats.log_sum)};
    auto logits = row_logits(x);
    A result = 0;
    for (int64_t begin = 0; begin < p_.classes; begin += kClassBlock<A>) {
      const int64_t n = std::min(kClassBlock<A>, p_.classes - begin);
      const auto* z = logits.block(begin, begin + n);
      result -= sum_classes<V>(n, [&](int64_t i, int64_t count) {
        const V nll = negative_log_likelihood(stats, V::load(z + i, count, A(0)));
        return product(V::load(q + begin + i, count, A(0)), nll);
      });
    }
    return result;
  }

  void target_log_prob_by_row(const Chunk& chunk, const Sums& sums, A* out) const {
    Tile<A> z(chunk.rows), q(chunk.rows);
    std::fill(out, out + V::round_up(chunk.rows), A(0));
    for (int64_t begin = 0; begin < p_.classes; begin += z.max_classes()) {
      const int64_t n = std::min(z.max_classes(), p_.classes - begin);
      z.load(matrix_, chunk, begin, n);
      z.apply(logits_, n);
      q.load(targets_, chunk, begin, n);
      for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
        const RowStats<V> stats = sums.template get<V>(r).finish();
        const V log_prob = sum_in_parts<V>(n, [&](int64_t c) {
          return product(V::load(q[c] + r), -negative_log_likelihood(stats, V::load(z[c] + r)));
        });
        (V::load(out + r) + log_prob).store(out + r);
      }
    }
  }

  const SoftCrossEntropyForward& p_;
  const StoredMatrix<const A> matrix_;
  const StoredMatrix<const A> targets_;
  const Logits<V, Form::kLogitsChange> logits_;
  const SoftCrossEntropy<V> loss_;
  const RowPlan plan_;
};

}  // namespace ce_ext::cpu
