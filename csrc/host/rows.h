// How the rows of an N-dimensional tensor lie in memory. Torch-free: kernels of both backends read it.
#pragma once

#include <cstdint>

#include "losses/math.h"

namespace ce_ext {

constexpr int kMaxRowDims = 8;

// The dimensions that enumerate rows (all but the class dimension), collapsed as far as the strides allow,
// outermost first. Row numbers count in the order of a contiguous target.
struct RowDims {
  int ndim = 0;
  int64_t sizes[kMaxRowDims] = {};
};

// Where each row of one tensor starts, in elements from its data pointer.
struct RowStrides {
  int64_t strides[kMaxRowDims] = {};

  HOST_DEVICE int64_t offset(const RowDims& dims, int64_t row) const {
    int64_t result = 0;
    for (int d = dims.ndim - 1; d > 0; --d) {
      const int64_t outer = row / dims.sizes[d];
      result += (row - outer * dims.sizes[d]) * strides[d];
      row = outer;
    }
    return result + row * strides[0];
  }
};

}  // namespace ce_ext
