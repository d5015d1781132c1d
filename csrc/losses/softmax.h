// What every softmax loss needs to know about a row of logits x_0 ... x_{C-1} with target y, gathered in one
// pass over the classes in any order and any grouping (Milakov and Gimelshein, "Online normalizer calculation
// for softmax", 2018), and without cancellation: e^{x_y} never enters the sum it would later be taken from.
#pragma once

#include <cstdint>

#include "losses/math.h"

namespace ce_ext {

// The finished statistics of a row: log(sum_j e^{x_j}) = max + log_sum. The two are kept apart because their
// sum would lose what tells a confident row from a certain one, and the accuracy of logits far from zero.
template <class T>
struct RowStats {
  T max;
  T log_sum;  // >= 0
};

// -log softmax(x)_y: a sum of two terms that are never negative.
template <class T>
HOST_DEVICE T negative_log_likelihood(const RowStats<T>& stats, T x_target) {
  return (stats.max - x_target) + stats.log_sum;
}

template <class T>
HOST_DEVICE T probability(const RowStats<T>& stats, T x) {
  return exp((x - stats.max) - stats.log_sum);
}

// Sums over the classes seen so far. `kGaps` adds what label smoothing needs.
template <class T, bool kGaps>
struct SoftmaxSums {
  T max = T(-INFINITY);
  T exp_sum = T(0);     // sum of e^{x_j - max} over the classes other than the target
  T gap_sum = T(0);     // sum of w_j (max - x_j) over all classes: each term >= 0
  T weight_sum = T(0);  // sum of w_j over all classes

  HOST_DEVICE void raise_max(T new_max) {
    exp_sum = exp_sum * exp(difference(max, new_max));
    if constexpr (kGaps) gap_sum = gap_sum + product(weight_sum, difference(new_max, max));
    max = new_max;
  }

  // What to measure from: max, or 0 while every class is masked, so that e^{-inf - pivot} is 0 and not NaN.
  HOST_DEVICE T pivot() const { return where(max == T(-INFINITY), T(0), max); }

  // Takes in kCount classes; `target` is the place of the target among them, or any other number.
  template <int kCount>
  HOST_DEVICE void add(const T (&x)[kCount], const T (&weight)[kCount], int64_t target) {
    T new_max = max;
    for (int i = 0; i < kCount; ++i) new_max = maximum(new_max, x[i]);
    if (new_max > max) raise_max(new_max);
    const T from = pivot();
    for (int i = 0; i < kCount; ++i) exp_sum = exp_sum + (i == target ? T(0) : exp(x[i] - from));
    if constexpr (kGaps) {
      for (int i = 0; i < kCount; ++i) {
        gap_sum = gap_sum + product(weight[i], from - x[i]);
        weight_sum = weight_sum + weight[i];
      }
    }
  }

  HOST_DEVICE void merge(SoftmaxSums other) {
    const T new_max = maximum(max, other.max);
    raise_max(new_max);
    other.raise_max(new_max);
    exp_sum = exp_sum + other.exp_sum;
    gap_sum = gap_sum + other.gap_sum;
    weight_sum = weight_sum + other.weight_sum;
  }

  // log(exp_sum + e^{x_y - max}), written so that it stays exact when the target is all there is:
  // for x_y = max it is log1p(exp_sum), and otherwise another class contributes the 1 that expm1 takes away.
  HOST_DEVICE RowStats<T> finish(T x_target) const { return {max, log1p(exp_sum + expm1(x_target - max))}; }
};

}  // namespace ce_ext
