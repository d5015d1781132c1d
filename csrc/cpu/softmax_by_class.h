// Softmax over rows whose classes are contiguous: the lanes are classes. One row at a time, in blocks that stay
// in the first-level cache, so that memory is read once for both the maximum and the sum.
#pragma once

#include <algorithm>

#include "cpu/lanes.h"
#include "losses/logits.h"
#include "losses/softmax.h"

namespace ce_ext::cpu {

constexpr int64_t kClassBlock = 4096;

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

// Calls f(i, n) for the n <= V::kSize classes from i on, for all classes.
template <class V, class F>
void for_each_vector(int64_t classes, F f) {
  int64_t i = 0;
  for (; i + V::kSize <= classes; i += V::kSize) f(i, V::kSize);
  if (i < classes) f(i, classes - i);
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

 private:
  const S* x_;
  const Logits<Lanes<A>, kLogitsChange>& logits_;
  alignas(64) A changed_[kLogitsChange ? kClassBlock : 1];
};

// What the classes of a row weigh: weights(i, n) are those of the n <= V::kSize classes from i on, and 0 in other
// lanes.
template <class A>
struct WeightsByClass {
  const A* weight;  // may be null, for ones

  Lanes<A> operator()(int64_t i, int64_t n) const {
    return weight ? Lanes<A>::load(weight + i, n, A(0)) : Lanes<A>::first(n, A(1));
  }
};

// The sums of one row, and where `argmax` is not null its largest class. `weights` matter for the gaps only.
template <Gaps kGaps, bool kEntropy, class A, class S, bool kLogitsChange, class Weights>
SoftmaxSums<A, kGaps, kEntropy> softmax_sums(RowLogits<A, S, kLogitsChange> row, int64_t classes,
                                             const Weights& weights, int64_t* argmax) {
  using V = Lanes<A>;
  constexpr A kLowest = A(-INFINITY);
  SoftmaxSums<A, kGaps, kEntropy> sums;
  if (argmax) *argmax = 0;
  for (int64_t begin = 0; begin < classes; begin += kClassBlock) {
    const int64_t n = std::min(kClassBlock, classes - begin);
    const auto* x = row.block(begin, begin + n);
    const auto larger = [](V a, V b) { return maximum(a, b); };
    const auto take_max = [&](V acc, int64_t i, int64_t count) { return larger(acc, V::load(x + i, count, kLowest)); };
    const A max_before = sums.max;
    const A block_max = fold_classes(n, V(kLowest), take_max, larger).max();
    sums.raise_max(std::max(max_before, block_max));

    // Where the maximum is, it stays out of the sum; it is enough to find it once.
    const int64_t top = block_max == sums.max ? find_class(x, n, sums.max) : n;
    if (argmax && block_max > max_before) *argmax = begin + top;
    const A pivot = sums.pivot();
    const auto add_range = [&](int64_t from, int64_t to) {
      const auto exponent = [=](int64_t i, int64_t count) { return V::load(x + from + i, count, kLowest) - V(pivot); };
      sums.exp_sum += sum_classes<V>(to - from, [=](int64_t i, int64_t count) { return exp(exponent(i, count)); });
      if constexpr (kGaps == Gaps::kSumAndWeights) {
        sums.weight_sum +=
            sum_classes<V>(to - from, [&](int64_t i, int64_t count) { return weights(begin + from + i, count); });
      }
      if constexpr (kEntropy) {
        sums.entropy_sum += sum_classes<V>(to - from, [=](int64_t i, int64_t count) {
          const V below = exponent(i, count);
          return product(exp(below), -below);
        });
      }
    };
    add_range(0, top);
    if (top < n) {
      sums.add_below(static_cast<A>(x[top]));
      if constexpr (kGaps == Gaps::kSumAndWeights) sums.tie_weight += weights(begin + top, 1).sum();
      add_range(top + 1, n);
    }

    if constexpr (kGaps != Gaps::kNone) {
      sums.gap_sum += sum_classes<V>(n, [&](int64_t i, int64_t count) {
        return product(weights(begin + i, count), V(pivot) - V::load(x + i, count, pivot));
      });
    }
    if constexpr (kGaps == Gaps::kSum) {
      sums.weight_sum += sum_classes<V>(n, [&](int64_t i, int64_t count) { return weights(begin + i, count); });
    }
  }
  return sums;
}

// grad_x = gradient.at(x, weight) for every class of a row; the target is left to the caller.
template <class A, class S, class Gradient>
void write_gradient(const S* x, S* grad_x, int64_t classes, const WeightsByClass<A>& weights,
                    const Gradient& gradient) {
  using V = Lanes<A>;
  const auto lanes = gradient.template as<V>();
  for_each_vector<V>(
      classes, [&](int64_t i, int64_t n) { lanes.at(V::load(x + i, n, A(0)), weights(i, n)).store(grad_x + i, n); });
}

}  // namespace ce_ext::cpu
