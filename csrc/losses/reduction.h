// How the losses of rows become one.
#pragma once

#include <cstdint>

#include "losses/math.h"

namespace ce_ext {

enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

// What the mean divides by: what it counts, or a number that is given.
struct MeanDivisor {
  bool zero_if_empty = false;  // nothing is divided by infinity, which makes it 0, and its gradient, too
  bool is_given = false;
  double given = 0;

  HOST_DEVICE double of(double counted) const {
    const double divisor = is_given ? given : counted;
    return divisor == 0 && zero_if_empty ? INFINITY : divisor;
  }
};

// What rows add up to, in float64.
struct RowTotals {
  double loss = 0;
  double weight = 0;

  HOST_DEVICE void merge(const RowTotals& other) {
    loss += other.loss;
    weight += other.weight;
  }
};

}  // namespace ce_ext
