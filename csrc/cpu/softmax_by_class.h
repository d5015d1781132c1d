// Softmax over rows whose classes are contiguous: the lanes are classes. One row at a time, in blocks that stay
// in the first-level cache, so that memory is read once for both the maximum and the sum.
#pragma once

#include <algorithm>

#include "cpu/lanes.h"
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

template <class V, class Step>
auto sum_classes(int64_t classes, Step step) {
  const auto add = [](V a, V b) { return a + b; };
  return fold_classes(classes, V(), [&](V acc, int64_t i, int64_t n) { return acc + step(i, n); }, add).sum();
}

// `weight` may be null, for ones; it matters for the gaps only.
template <bool kGaps, class A, class S>
SoftmaxSums<A, kGaps> softmax_sums(const S* x, int64_t classes, int64_t target, const A* weight) {
  using V = Lanes<A>;
  constexpr A kLowest = A(-INFINITY);
  SoftmaxSums<A, kGaps> sums;
  for (int64_t begin = 0; begin < classes; begin += kClassBlock) {
    const int64_t end = std::min(begin + kClassBlock, classes);
    const auto larger = [](V a, V b) { return maximum(a, b); };
    const auto block_max = [&](V acc, int64_t i, int64_t n) { return larger(acc, V::load(x + begin + i, n, kLowest)); };
    sums.raise_max(std::max(sums.max, fold_classes(end - begin, V(kLowest), block_max, larger).max()));

    const A pivot = sums.pivot();
    const auto exp_sum = [&](int64_t from, int64_t to) {
      const S* p = x + from;
      return sum_classes<V>(to - from,
                            [=](int64_t i, int64_t n) { return exp(V::load(p + i, n, kLowest) - V(pivot)); });
    };
    if (target < begin || target >= end) {
      sums.exp_sum += exp_sum(begin, end);
    } else {  // the target's own e^{x_y} stays out
      const int64_t first = target - (target - begin) % V::kSize;
      const int64_t last = std::min<int64_t>(first + V::kSize, end);
      const V others = where(V::iota() == V(A(target - first)), V(kLowest), V::load(x + first, last - first, kLowest));
      sums.exp_sum += exp_sum(begin, first) + exp(others - V(pivot)).sum() + exp_sum(last, end);
    }

    if constexpr (kGaps) {
      const auto weights = [&](int64_t i, int64_t n) {
        return weight ? V::load(weight + begin + i, n, A(0)) : V(A(1));
      };
      sums.gap_sum += sum_classes<V>(end - begin, [&](int64_t i, int64_t n) {
        return product(weights(i, n), V(pivot) - V::load(x + begin + i, n, pivot));
      });
      sums.weight_sum += weight ? sum_classes<V>(end - begin, weights) : A(end - begin);
    }
  }
  return sums;
}

// grad_x = gradient.at(x, weight) for every class of a row; the target is left to the caller. `weight` may be null, for
// ones.
template <class A, class S, class Gradient>
void write_gradient(const S* x, S* grad_x, int64_t classes, const A* weight, const Gradient& gradient) {
  using V = Lanes<A>;
  const auto lanes = gradient.template as<V>();
  const auto step = [&](int64_t i, int64_t n) {
    const V w = weight ? V::load(weight + i, n, A(0)) : V(A(1));
    lanes.at(V::load(x + i, n, A(0)), w).store(grad_x + i, n);
  };
  int64_t i = 0;
  for (; i + V::kSize <= classes; i += V::kSize) step(i, V::kSize);
  if (i < classes) step(i, classes - i);
}

}  // namespace ce_ext::cpu
