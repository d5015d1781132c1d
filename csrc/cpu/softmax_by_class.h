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

// `weight` may be null, for ones; it matters for the gaps only.
template <bool kGaps, class A, class S>
SoftmaxSums<A, kGaps> softmax_sums(const S* x, int64_t classes, const A* weight) {
  using V = Lanes<A>;
  constexpr A kLowest = A(-INFINITY);
  SoftmaxSums<A, kGaps> sums;
  for (int64_t begin = 0; begin < classes; begin += kClassBlock) {
    const int64_t end = std::min(begin + kClassBlock, classes);
    const auto larger = [](V a, V b) { return maximum(a, b); };
    const auto take_max = [&](V acc, int64_t i, int64_t n) { return larger(acc, V::load(x + begin + i, n, kLowest)); };
    const A block_max = fold_classes(end - begin, V(kLowest), take_max, larger).max();
    sums.raise_max(std::max(sums.max, block_max));

    const A pivot = sums.pivot();
    const auto exp_sum = [&](int64_t from, int64_t to) {
      const S* p = x + from;
      return sum_classes<V>(to - from,
                            [=](int64_t i, int64_t n) { return exp(V::load(p + i, n, kLowest) - V(pivot)); });
    };
    // Where the maximum is, it stays out of the sum; it is enough to find it once.
    const int64_t top = begin + (block_max == sums.max ? find_class(x + begin, end - begin, sums.max) : end - begin);
    sums.exp_sum += exp_sum(begin, top);
    if (top < end) {
      sums.add_below(static_cast<A>(x[top]));
      sums.exp_sum += exp_sum(top + 1, end);
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
  for_each_vector<V>(classes, [&](int64_t i, int64_t n) {
    const V w = weight ? V::load(weight + i, n, A(0)) : V(A(1));
    lanes.at(V::load(x + i, n, A(0)), w).store(grad_x + i, n);
  });
}

}  // namespace ce_ext::cpu
