// The CPU driver of cross entropy. Both directions take the rows in chunks, gather what every row needs, and do
// the arithmetic of whole rows for all rows of the chunk at once, with rows as lanes.
#include "losses/cross_entropy.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <atomic>
#include <numeric>
#include <vector>

#include "cpu/backend.h"
#include "cpu/chunks.h"
#include "cpu/lane_choice.h"
#include "cpu/lanes.h"
#include "cpu/memory.h"
#include "cpu/softmax_by_class.h"
#include "cpu/softmax_by_row.h"

namespace ce_ext::cpu {
namespace {

template <class A>
CrossEntropy<Lanes<A>> make_loss(const CrossEntropyProblem& p) {
  const A* weight = static_cast<const A*>(p.weight);
  double weight_sum = double(p.classes);
  if (weight && p.label_smoothing > 0) weight_sum = std::accumulate(weight, weight + p.classes, 0.0);
  return CrossEntropy<Lanes<A>>(p.label_smoothing, p.classes, A(weight_sum));
}

// What both directions need to know of the targets of a chunk. Rows that are ignored, and those that pad the last
// vector, have no target and no weight.
template <class A>
struct ChunkTargets {
  int64_t padded_rows;
  int64_t first_bad = -1;  // the first row whose target is neither a class nor ignored
  int64_t target[kMaxChunkRows];
  alignas(64) A weight[kMaxChunkRows];

  ChunkTargets(const CrossEntropyProblem& p, const Chunk& chunk) : padded_rows(Lanes<A>::round_up(chunk.rows)) {
    const A* class_weight = static_cast<const A*>(p.weight);
    for (int64_t r = 0; r < padded_rows; ++r) {
      const int64_t y = r < chunk.rows ? p.target[chunk.first + r] : p.ignore_index;
      const bool is_class = y != p.ignore_index && y >= 0 && y < p.classes;
      if (!is_class && y != p.ignore_index && first_bad < 0) first_bad = chunk.first + r;
      target[r] = is_class ? y : kNoTarget;
      weight[r] = !is_class ? A(0) : class_weight ? class_weight[y] : A(1);
    }
  }
};

// CrossEntropyGradient of every row of a chunk.
template <class A>
struct ChunkGradients {
  alignas(64) A max[kMaxChunkRows];
  alignas(64) A log_sum[kMaxChunkRows];
  alignas(64) A hard[kMaxChunkRows];
  alignas(64) A soft[kMaxChunkRows];
  alignas(64) A smoothing[kMaxChunkRows];
  alignas(64) A pull[kMaxChunkRows];

  template <class T>
  CrossEntropyGradient<T> get(int64_t r) const {
    return {{read<T>(max + r), read<T>(log_sum + r)},
            read<T>(hard + r),
            read<T>(soft + r),
            read<T>(smoothing + r),
            read<T>(pull + r)};
  }
  template <class T>
  void set(int64_t r, const CrossEntropyGradient<T>& row) {
    write(max + r, row.stats.max);
    write(log_sum + r, row.stats.log_sum);
    write(hard + r, row.hard);
    write(soft + r, row.soft);
    write(smoothing + r, row.smoothing);
    write(pull + r, row.pull);
  }
};

// The lowest row that any thread reports.
class FirstBadRow {
 public:
  void report(int64_t row) {
    int64_t seen = row_.load();
    while ((seen < 0 || row < seen) && !row_.compare_exchange_weak(seen, row)) {
    }
  }
  int64_t row() const { return row_.load(); }

 private:
  std::atomic<int64_t> row_{-1};
};

// What the rows of a chunk add to the reduced loss.
struct Partial {
  double loss = 0;
  double weight = 0;
};

template <class S, bool kGaps>
class Forward {
  using A = opmath_t<S>;
  using V = Lanes<A>;

 public:
  explicit Forward(const CrossEntropyForward& p)
      : p_(p),
        logits_{static_cast<const S*>(p.input), p.row_dims, p.input_rows, p.input_class_stride},
        loss_(make_loss<A>(p)),
        classes_as_lanes_(classes_as_lanes(p.classes, {p.input_class_stride})),
        chunks_(p.rows, p.groups, chunk_rows(p.classes, classes_as_lanes_)) {}

  int64_t operator()() {
    std::vector<Partial> partials(chunks_.count);
    FirstBadRow bad;
    chunks_.parallel([&](int64_t index, const Chunk& chunk) {
      const ChunkTargets<A> targets(p_, chunk);
      if (targets.first_bad >= 0) return bad.report(targets.first_bad);
      ChunkSums<A> sums;
      alignas(64) A x_target[kMaxChunkRows];
      gather(chunk, targets, sums, x_target);
      partials[index] = finish(chunk, targets, sums, x_target);
    });
    if (bad.row() < 0 && p_.reduction != Reduction::kNone) reduce(partials);
    return bad.row();
  }

 private:
  void gather(const Chunk& chunk, const ChunkTargets<A>& targets, ChunkSums<A>& sums, A* x_target) const {
    const A* weight = static_cast<const A*>(p_.weight);
    if (!classes_as_lanes_) softmax_sums<kGaps, A>(logits_, chunk, p_.classes, weight, sums);
    for (int64_t r = 0; r < targets.padded_rows; ++r) {
      if (targets.target[r] == kNoTarget) {
        sums.set(r, SoftmaxSums<A, kGaps>{A(0), A(1)});
        x_target[r] = A(0);
        continue;
      }
      const S* x = logits_.row(chunk.first + r);
      if (classes_as_lanes_) sums.set(r, softmax_sums<kGaps, A>(x, p_.classes, weight));
      x_target[r] = static_cast<A>(x[targets.target[r] * p_.input_class_stride]);
    }
  }

  Partial finish(const Chunk& chunk, const ChunkTargets<A>& targets, const ChunkSums<A>& sums,
                 const A* x_targets) const {
    V loss_sum, weight_sum;
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      const int64_t n = std::min<int64_t>(V::kSize, chunk.rows - r);
      const auto row = sums.template get<V, kGaps>(r);
      const V x_target = V::load(x_targets + r);
      const V weight_target = V::load(targets.weight + r);
      const RowStats<V> stats = row.finish();
      const V loss = loss_.loss(stats, x_target, row.gap_sum, weight_target);
      store(stats, chunk.first + r, n);
      if (p_.reduction == Reduction::kNone) loss.store(static_cast<S*>(p_.loss) + chunk.first + r, n);
      loss_sum = loss_sum + loss;
      weight_sum = weight_sum + weight_target;
    }
    return {double(loss_sum.sum()), double(weight_sum.sum())};
  }

  void store(const RowStats<V>& stats, int64_t row, int64_t n) const {
    A max[V::kSize], log_sum[V::kSize];
    stats.max.store(max);
    stats.log_sum.store(log_sum);
    auto* out = static_cast<RowStats<A>*>(p_.stats) + row;
    for (int64_t i = 0; i < n; ++i) out[i] = {max[i], log_sum[i]};
  }

  void reduce(const std::vector<Partial>& partials) const {
    for (int64_t g = 0; g < p_.groups; ++g) {
      Partial total;
      for (int64_t i = g * chunks_.per_group; i < (g + 1) * chunks_.per_group; ++i) {
        total.loss += partials[i].loss;
        total.weight += partials[i].weight;
      }
      const bool mean = p_.reduction == Reduction::kMean;
      static_cast<S*>(p_.loss)[g] = static_cast<S>(mean ? total.loss / total.weight : total.loss);
      if (mean) static_cast<A*>(p_.denominator)[g] = A(total.weight);
    }
  }

  const CrossEntropyForward& p_;
  const Matrix<const S> logits_;
  const CrossEntropy<V> loss_;
  const bool classes_as_lanes_;
  const Chunks chunks_;
};

template <class S>
class Backward {
  using A = opmath_t<S>;
  using V = Lanes<A>;

 public:
  explicit Backward(const CrossEntropyBackward& p)
      : p_(p),
        logits_{static_cast<const S*>(p.input), p.row_dims, p.input_rows, p.input_class_stride},
        grad_{static_cast<S*>(p.grad_input), p.row_dims, p.grad_input_rows, p.grad_input_class_stride},
        loss_(make_loss<A>(p)),
        classes_as_lanes_(classes_as_lanes(p.classes, {p.input_class_stride, p.grad_input_class_stride})),
        chunks_(p.rows, 1, chunk_rows(p.classes, classes_as_lanes_)) {}

  int64_t operator()() {
    advise_huge_pages(p_.grad_input, p_.rows * p_.classes * sizeof(S));
    FirstBadRow bad;
    chunks_.parallel([&](int64_t, const Chunk& chunk) {
      const ChunkTargets<A> targets(p_, chunk);
      if (targets.first_bad >= 0) return bad.report(targets.first_bad);
      ChunkGradients<A> gradients;
      prepare(chunk, targets, gradients);
      write(chunk, targets, gradients);
    });
    return bad.row();
  }

 private:
  void prepare(const Chunk& chunk, const ChunkTargets<A>& targets, ChunkGradients<A>& gradients) const {
    alignas(64) A scale[kMaxChunkRows], denominator[kMaxChunkRows];
    read_rows(static_cast<const S*>(p_.grad_output), p_.row_dims, p_.grad_output_rows, chunk, scale);
    if (p_.denominator) {
      read_rows(static_cast<const A*>(p_.denominator), p_.row_dims, p_.denominator_rows, chunk, denominator);
      for (int64_t r = 0; r < chunk.rows; ++r) scale[r] /= denominator[r];
    }
    const auto* stats = static_cast<const RowStats<A>*>(p_.stats) + chunk.first;
    for (int64_t r = 0; r < targets.padded_rows; ++r) {
      gradients.max[r] = r < chunk.rows ? stats[r].max : A(0);
      gradients.log_sum[r] = r < chunk.rows ? stats[r].log_sum : A(0);
    }
    std::fill(scale + chunk.rows, scale + targets.padded_rows, A(0));
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      const RowStats<V> row{V::load(gradients.max + r), V::load(gradients.log_sum + r)};
      gradients.set(r, loss_.gradient(row, V::load(targets.weight + r), V::load(scale + r)));
    }
  }

  void write(const Chunk& chunk, const ChunkTargets<A>& targets, const ChunkGradients<A>& gradients) const {
    // Only label smoothing pulls every class by its own weight.
    const A* weight = p_.label_smoothing > 0 ? static_cast<const A*>(p_.weight) : nullptr;
    if (!classes_as_lanes_) {
      return write_gradient(logits_, grad_, chunk, p_.classes, targets.target, weight, gradients);
    }
    alignas(64) A target_values[kMaxChunkRows] = {};  // logits, then their gradients
    for (int64_t r = 0; r < chunk.rows; ++r) {
      S* grad_x = grad_.row(chunk.first + r);
      if (targets.target[r] == kNoTarget) {
        std::fill(grad_x, grad_x + p_.classes, S(0));
      } else {
        const S* x = logits_.row(chunk.first + r);
        target_values[r] = static_cast<A>(x[targets.target[r]]);
        write_gradient(x, grad_x, p_.classes, weight, gradients.template get<A>(r));
      }
    }
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      gradients.template get<V>(r).at_target(V::load(target_values + r)).store(target_values + r);
    }
    for (int64_t r = 0; r < chunk.rows; ++r) {
      if (targets.target[r] == kNoTarget) continue;
      grad_.row(chunk.first + r)[targets.target[r]] = static_cast<S>(target_values[r]);
    }
  }

  const CrossEntropyBackward& p_;
  const Matrix<const S> logits_;
  const Matrix<S> grad_;
  const CrossEntropy<V> loss_;
  const bool classes_as_lanes_;
  const Chunks chunks_;
};

}  // namespace

int64_t Backend::run(const CrossEntropyForward& problem) {
  return dispatch<c10::Half, c10::BFloat16>(problem.dtype, [&](auto s) {
    using S = decltype(s);
    return problem.label_smoothing > 0 ? Forward<S, true>(problem)() : Forward<S, false>(problem)();
  });
}

int64_t Backend::run(const CrossEntropyBackward& problem) {
  return dispatch<c10::Half, c10::BFloat16>(problem.dtype, [&](auto s) { return Backward<decltype(s)>(problem)(); });
}

}  // namespace ce_ext::cpu
