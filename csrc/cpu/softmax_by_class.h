// Softmax over rows whose classes are contiguous: the lanes are classes. One row at a time, in blocks that stay
// in the first-level cache, so that memory is read once for both the maximum and the sum.
#pragma once

#include <algorithm>

#include "cpu/chunks.h"
#include "cpu/lanes.h"
#include "losses/logits.h"
#include "losses/softmax.h"

namespace ce_ext::cpu {

// As many classes in each lane as are added up in one sum.
template <class A>
constexpr int64_t kClassBlock = kClassesPerSum * Lanes<A>::kSize;

// Folds step(acc, i, n), which takes in the n <= V::kSize classes from i on, with four accumulators: independent
// chains hide the latency of an addition.
template <class V, class Step, class Combine>
V fold_classes(int64_t classes, V start, Step step, Combine combine) {
  constexpr int64_t kSize = V::kSize;
  V acc[4] = {start, start, start, start};
  int64_t i = 0;
  for (; i + 4 * kSize <= classes; i += 4 * kSize) {
    for (int u = 0; u < 4; ++u) acc[u] = step(acc[u], i + u * kSize, kSize);
  }
  for (int u = 0; i + kSize <= classes; i += kSize, ++u) acc[u] = step(acc[u], i, kSize);
  if (i < classes) acc[3] = step(acc[3], i, classes - i);
  return combine(combine(acc[0], acc[1]), combine(acc[2], acc[3]));
}

template <class V, class Step>
auto sum_classes(int64_t classes, Step step) {
  const auto add = [](V a, V b) { return a + b; };
  return fold_classes(classes, V(), [&](V acc, int64_t i, int64_t n) { return acc + step(i, n); }, add).sum();
}

// The first of the classes that is `value`; the number of classes if none is.
template <class A, class S>
int64_t find_class(const S* x, int64_t classes, A value) {
  using V = Lanes<A>;
  int64_t i = 0;
  for (; i < classes; i += V::kSize) {
    if (any(V::load(x + i, std::min<int64_t>(V::kSize, classes - i), A(NAN)) == V(value))) break;
  }
  while (i < classes && static_cast<A>(x[i]) != value) ++i;
  return std::min(i, classes);
}

// The logits of one row, block by block: where they lie, or changed in a buffer.
template <class A, class S, bool kLogitsChange>
class RowLogits {
 public:
  RowLogits(const S* x, const Logits<Lanes<A>, kLogitsChange>& logits) : x_(x), logits_(logits) {}

  const auto* block(int64_t begin, int64_t end) {
    if constexpr (!kLogitsChange) {
      return x_ + begin;
    } else {
      using V = Lanes<A>;
      for (int64_t i = begin; i < end; i += V::kSize) {
        const int64_t n = std::min<int64_t>(V::kSize, end - i);
        logits_(V::load(x_ + i, n, A(0))).store(changed_ + (i - begin), n);
      }
      return static_cast<const A*>(changed_);
    }
  }

  RowLogits from(int64_t i) const { return {x_ + i, logits_}; }

  // What is a block after class i, or belongs to the next row: memory is busy while sums are computed.
  C10_ALWAYS_INLINE void prefetch_after(int64_t i) const { prefetch(x_ + i + kClassBlock<A>); }

 private:
  const S* x_;
  const Logits<Lanes<A>, kLogitsChange>& logits_;
  alignas(64) A changed_[kLogitsChange ? kClassBlock<A> : 1];
};

// Of sums that each lane has of classes of its own, those of all.
template <class A, Gaps kGaps, bool kEntropy>
C10_ALWAYS_INLINE SoftmaxSums<A, kGaps, kEntropy> add_lanes(SoftmaxSums<Lanes<A>, kGaps, kEntropy> lanes) {
  SoftmaxSums<A, kGaps, kEntropy> all;
  all.max = lanes.max.max();
  const A ties = where(lanes.max == Lanes<A>(all.max), Lanes<A>(A(1)), Lanes<A>()).sum();
  lanes.raise_max(all.max);
  all.exp_sum = lanes.exp_sum.sum() + (ties - A(1));
  if constexpr (kGaps != Gaps::kNone) {
    all.gap_sum = lanes.gap_sum.sum();
    all.weight_sum = lanes.weight_sum.sum();
  }
  if constexpr (kGaps == Gaps::kSumAndWeights) all.tie_weight = lanes.tie_weight.sum();
  if constexpr (kEntropy) all.entropy_sum = lanes.entropy_sum.sum();
  return all;
}

// What the classes of a row weigh: weights(i, n) are those of the n <= V::kSize classes from i on, and 0 in other
// lanes.
template <class A>
struct WeightsByClass {
  const A* weight;  // may be null, for ones

  Lanes<A> operator()(int64_t i, int64_t n) const {
    return weight ? Lanes<A>::load(weight + i, n, A(0)) : Lanes<A>::first(n, A(1));
  }
  WeightsByClass from(int64_t i) const { return {weight ? weight + i : nullptr}; }
};

// The sums of a piece of a row, and where `argmax` is not null its largest class. `weights` matter for the gaps only.
template <Gaps kGaps, bool kEntropy, class A, class S, bool kLogitsChange, class Weights>
SoftmaxSums<A, kGaps, kEntropy> softmax_sums(RowLogits<A, S, kLogitsChange> row, int64_t classes,
                                             const Weights& weights, int64_t* argmax) {
  using V = Lanes<A>;
  constexpr A kLowest = A(-INFINITY);
  SoftmaxSums<V, kGaps, kEntropy> lanes;  // each with a maximum of its own
  A max_before = kLowest;
  if (argmax) *argmax = 0;
  for (int64_t begin = 0; begin < classes; begin += kClassBlock<A>) {
    const int64_t n = std::min(kClassBlock<A>, classes - begin);
    const auto* x = row.block(begin, begin + n);
    const auto larger = [](V a, V b) { return maximum(a, b); };
    const auto take_max = [&](V acc, int64_t i, int64_t count) { return larger(acc, V::load(x + i, count, kLowest)); };
    const V max = fold_classes(n, lanes.max, take_max, larger);
    V champion = lanes.max;
    if (begin > 0) lanes.measure_from(max, V());
    lanes.max = max;
    SoftmaxSums<V, kGaps, kEntropy> part;
    part.max = max;
    for_each_vector<V>(n, [&](int64_t i, int64_t count) C10_ALWAYS_INLINE_ATTRIBUTE {
      const V z = V::load(x + i, count, kLowest);
      part.add_loser(match(champion, z));
      if constexpr (kGaps != Gaps::kNone) part.add_gap(z, weights(begin + i, count));
      row.prefetch_after(begin + i);
    });
    lanes.add_sums(part);
    if (argmax && max.max() > max_before) {
      max_before = max.max();
      *argmax = begin + find_class(x, n, max_before);
    }
  }
  return add_lanes(lanes);
}

// Those of a row.
template <Gaps kGaps, bool kEntropy, class A, class S, bool kLogitsChange, class Weights>
SoftmaxSums<A, kGaps, kEntropy> softmax_sums(const RowLogits<A, S, kLogitsChange>& row, const Pieces& pieces,
                                             const Weights& weights, int64_t* argmax) {
  if (pieces.count == 1) return softmax_sums<kGaps, kEntropy>(row, pieces.total, weights, argmax);
  struct Part {
    SoftmaxSums<A, kGaps, kEntropy> sums;
    int64_t argmax;
  };
  const auto add_up = [&](int64_t begin, int64_t n) {
    Part part{};
    part.sums = softmax_sums<kGaps, kEntropy>(row.from(begin), n, weights.from(begin), argmax ? &part.argmax : nullptr);
    part.argmax += begin;
    return part;
  };
  const auto merge = [](Part& total, const Part& next) {
    if (next.sums.max > total.sums.max) total.argmax = next.argmax;
    total.sums.merge(next.sums);
  };
  const Part total = pieces.sum<Part>(add_up, merge);
  if (argmax) *argmax = total.argmax;
  return total.sums;
}

// grad_x = gradient.at(x, weight) for every class of a row; the target is left to the caller.
template <class A, class S, class Gradient>
void write_gradient(const S* x, S* grad_x, const Pieces& pieces, const WeightsByClass<A>& weights,
                    const Gradient& gradient) {
  using V = Lanes<A>;
  pieces.parallel([&](int64_t begin, int64_t n) {
    const auto lanes = gradient.template as<V>();
    const WeightsByClass<A> weight = weights.from(begin);
    const S* from = x + begin;
    S* to = grad_x + begin;
    for_each_vector<V>(n, [&](int64_t i, int64_t count) C10_ALWAYS_INLINE_ATTRIBUTE {
      lanes.at(V::load(from + i, count, A(0)), weight(i, count)).store(to + i, count);
    });
  });
}

}  // namespace ce_ext::cpu
