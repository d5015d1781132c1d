// How the losses of rows become one.
#pragma once

#include <cstdint>

#include "losses/math.h"

namespace ce_ext {

enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

// What rows add up to, in float64.
struct RowTotals {
  double loss = 0;
  double weight = 0;

  HOST_DEVICE void merge(const RowTotals& other) {
    loss += other.loss;
    weight += other.weight;
  }

  // What the mean divides by. Nothing is divided by 0 without `zero_if_empty`; with it the mean over nothing is 0, and
  // so is its gradient.
  HOST_DEVICE double divisor(bool zero_if_empty) const { return weight == 0 && zero_if_empty ? INFINITY : weight; }
};

}  // namespace ce_ext
