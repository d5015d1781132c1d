// The backward pass of soft cross entropy, chunk by chunk like the forward pass: the gradients in the logits and in the
// targets, or one of them.
#pragma once

#include "cpu/memory.h"
#include "cpu/row_losses.h"
#include "cpu/row_plan.h"
#include "cpu/soft_cross_entropy_rows.h"

namespace ce_ext::cpu {

template <class A, bool kLogitsChange, bool kFocal>
class SoftCrossEntropyBackwardRows {
  using V = Lanes<A>;

 public:
  explicit SoftCrossEntropyBackwardRows(const SoftCrossEntropyBackward& p)
      : p_(p),
        matrix_{p.dtype, p.input, p.row_dims, p.input_rows, p.input_class_stride},
        targets_{opmath_if(p.target_is_opmath, p.dtype), p.target, p.row_dims, p.target_rows, p.target_class_stride},
        grad_{p.dtype, p.grad_input, p.row_dims, p.grad_input_rows, p.grad_input_class_stride},
        grad_targets_{targets_.dtype, p.grad_target, p.row_dims, p.grad_target_rows, p.grad_target_class_stride},
        logits_(p.options.logits),
        loss_(make_loss<A>(p)),
        plan_(RowPlan::make<A>(
            p.rows, 1, p.classes,
            {p.input_class_stride, p.target_class_stride, p.grad_input_class_stride, p.grad_target_class_stride})) {
    if (p_.grad_input) advise_huge_pages(p_.grad_input, p_.rows * p_.classes * size_of(grad_.dtype));
    if (p_.grad_target) advise_huge_pages(p_.grad_target, p_.rows * p_.classes * size_of(grad_targets_.dtype));
  }

  const Chunks& chunks() const { return plan_.chunks; }

  void run(const Chunk& chunk) const {
    Rows rows;
    read(chunk, rows);
    if (!plan_.classes_as_lanes) return write_by_row(chunk, rows);
    dispatch_stored<A>(p_, [&](auto s, auto q) {
      using S = decltype(s);
      using Q = decltype(q);
      write_by_class<S, Q>(chunk, rows);
    });
  }

 private:
  // What is known of the rows of a chunk.
  struct Rows {
    alignas(64) A max[kMaxChunkRows];
    alignas(64) A log_sum[kMaxChunkRows];
    alignas(64) A mass_below[kMaxChunkRows];
    alignas(64) A mass_at_max[kMaxChunkRows];
    alignas(64) A at_max[kMaxChunkRows];
    alignas(64) A scale[kMaxChunkRows];

    SavedSoftRow<V> saved(int64_t r) const {
      return {{V::load(max + r), V::load(log_sum + r)}, V::load(mass_below + r), V::load(mass_at_max + r)};
    }
  };

  void read(const Chunk& chunk, Rows& rows) const {
    const auto* saved = static_cast<const SavedSoftRow<A>*>(p_.saved) + chunk.first;
    for (int64_t r = 0; r < V::round_up(chunk.rows); ++r) {
      const SavedSoftRow<A> row = r < chunk.rows ? saved[r] : SavedSoftRow<A>{};
      rows.max[r] = row.stats.max;
      rows.log_sum[r] = row.stats.log_sum;
      rows.mass_below[r] = row.mass_below;
      rows.mass_at_max[r] = row.mass_at_max;
    }
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) loss_.gradient_at_max(rows.saved(r)).store(rows.at_max + r);
    alignas(64) A sample_weight[kMaxChunkRows] = {};
    read_sample_weights(p_, chunk, sample_weight);
    read_scale<A>(p_, chunk, sample_weight, rows.scale);
  }

  template <class S, class Q>
  void write_by_class(const Chunk& chunk, const Rows& rows) const {
    const auto matrix = matrix_.template as<S>();
    const auto targets = targets_.template as<Q>();
    const auto grad = grad_.template as<S>();
    const auto grad_targets = grad_targets_.template as<Q>();
    const WeightsByClass<A> weights{static_cast<const A*>(p_.weight)};
    for (int64_t r = 0; r < chunk.rows; ++r) {
      const int64_t row = chunk.first + r;
      const S* x = matrix.row(row);
      const Q* q = targets.row(row);
      S* grad_x = p_.grad_input ? grad.row(row) : nullptr;
      Q* grad_q = p_.grad_target ? grad_targets.row(row) : nullptr;
      const SavedSoftRow<V> saved{{V(rows.max[r]), V(rows.log_sum[r])}, V(rows.mass_below[r]), V(rows.mass_at_max[r])};
      const auto gradient = loss_.gradient(saved, V(rows.at_max[r]), V(rows.scale[r]), logits_);
      plan_.pieces.parallel([&](int64_t begin, int64_t count) {
        const auto lanes = gradient;
        const SoftCrossEntropy<V> loss = loss_;
        const WeightsByClass<A> weight = weights.from(begin);
        const S* logits = x + begin;
        if (grad_x) {
          const Q* probabilities = q + begin;
          S* to = grad_x + begin;
          for_each_vector<V>(count, [&](int64_t i, int64_t n) C10_ALWAYS_INLINE_ATTRIBUTE {
            const Logit<V> z = lanes.logits.with_slope(V::load(logits + i, n, A(0)));
            const V mass = loss.mass(V::load(probabilities + i, n, A(0)), weight(i, n));
            const V nll = negative_log_likelihood(lanes.stats, z.value);
            lanes.in_logit(z, loss.template pull_of<kFocal>(mass, nll)).store(to + i, n);
          });
        }
        if (grad_q) {
          Q* to = grad_q + begin;
          for_each_vector<V>(count, [&](int64_t i, int64_t n) C10_ALWAYS_INLINE_ATTRIBUTE {
            const Logit<V> z = lanes.logits.with_slope(V::load(logits + i, n, A(0)));
            const V nll = negative_log_likelihood(lanes.stats, z.value);
            lanes.in_target(weight(i, n), loss.template cost<kFocal>(nll)).store(to + i, n);
          });
        }
      });
    }
  }

  void write_by_row(const Chunk& chunk, const Rows& rows) const {
    Tile<A> x(chunk.rows), q(chunk.rows);
    WeightsByRow<A> weights(static_cast<const A*>(p_.weight));
    const RowsAhead<const A> next_x(matrix_, chunk.first + chunk.rows);
    const RowsAhead<const A> next_q(targets_, chunk.first + chunk.rows);
    for (int64_t begin = 0; begin < p_.classes; begin += x.max_classes()) {
      const int64_t n = std::min(x.max_classes(), p_.classes - begin);
      x.load(matrix_, chunk, begin, n);
      q.load(targets_, chunk, begin, n);
      weights.load(begin, n);
      for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
        const auto gradient = loss_.gradient(rows.saved(r), V::load(rows.at_max + r), V::load(rows.scale + r), logits_);
        for (int64_t c = 0; c < n; ++c) {
          const Logit<V> z = logits_.with_slope(V::load(x[c] + r));
          const V nll = negative_log_likelihood(gradient.stats, z.value);
          const V weight = weights(c, r);
          if (p_.grad_input) {
            const V mass = loss_.mass(V::load(q[c] + r), weight);
            gradient.in_logit(z, loss_.template pull_of<kFocal>(mass, nll)).store(x[c] + r);
          }
          if (p_.grad_target) gradient.in_target(weight, loss_.template cost<kFocal>(nll)).store(q[c] + r);
          next_x.prefetch(r, begin + c);
          next_q.prefetch(r, begin + c);
        }
      }
      if (p_.grad_input) x.store(grad_, chunk, begin, n);
      if (p_.grad_target) q.store(grad_targets_, chunk, begin, n);
    }
  }

  const SoftCrossEntropyBackward& p_;
  const StoredMatrix<const A> matrix_;
  const StoredMatrix<const A> targets_;
  const StoredMatrix<A> grad_;
  const StoredMatrix<A> grad_targets_;
  const Logits<V, kLogitsChange> logits_;
  const SoftCrossEntropy<V> loss_;
  const RowPlan plan_;
};

}  // namespace ce_ext::cpu
