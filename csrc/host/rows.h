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

// Of numbers that are not negative. A GPU takes several times as long for 64 bits as for 32.
HOST_DEVICE int64_t divide(int64_t a, int64_t b) {
#if defined(__CUDA_ARCH__)
  if ((a | b) >> 32 == 0) return uint32_t(a) / uint32_t(b);
#endif
  return a / b;
}

// Where each row of one tensor starts, in elements from its data pointer.
struct RowStrides {
  int64_t strides[kMaxRowDims] = {};
  bool differ = false;  // else all of them are 0: rows share what the tensor has

  HOST_DEVICE int64_t offset(const RowDims& dims, int64_t row) const {
    if (!differ) return 0;
    int64_t result = 0;
    DO_NOT_UNROLL  // seldom there are several, and a GPU takes a hundred instructions for each
        for (int d = dims.ndim - 1; d > 0; --d) {
      const int64_t outer = divide(row, dims.sizes[d]);
      result += (row - outer * dims.sizes[d]) * strides[d];
      row = outer;
    }
    return result + row * strides[0];
  }
};

}  // namespace ce_ext
