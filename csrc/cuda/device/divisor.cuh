// Division by a number that the host knows, in three instructions.
#pragma once

#include <cstdint>

#include "cuda/device/portability.cuh"

namespace ce_ext::cuda {

// Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994, figure 4.1, for n < 2^31.
struct Divisor {
  uint32_t value, factor, shift;

  explicit Divisor(uint32_t value_) : value(value_), shift(0) {
    while (uint64_t(1) << shift < value) ++shift;
    factor = uint32_t((uint64_t(1) << 32) * ((uint64_t(1) << shift) - value) / value + 1);
  }

  __device__ __forceinline__ uint32_t divide(uint32_t n) const { return (__umulhi(n, factor) + n) >> shift; }
};

}  // namespace ce_ext::cuda
