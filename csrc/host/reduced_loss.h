// Where the losses of rows, or of elements, go. Torch-free.
#pragma once

#include <cstdint>

#include "losses/reduction.h"

namespace ce_ext {

struct ReducedLoss {
  Reduction reduction;
  MeanDivisor mean_divisor;
  int64_t groups;     // the rows are this many equal runs, and each is reduced to a loss of its own
  void* loss;         // one a row for kNone, else one a group
  void* denominator;  // in opmath, one a group; kMean only
};

}  // namespace ce_ext
