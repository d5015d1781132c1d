// Stands in for the CUDA toolkit's header.
#pragma once

#include <bit>
#include <cstdint>

#include "packed_halves.h"

struct __nv_bfloat16 {
  uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) { return std::bit_cast<float>(uint32_t(x.bits) << 16); }

// To nearest, ties to even; every NaN becomes the one that CUDA makes.
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  if (x != x) return {0x7fff};
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}

inline __nv_bfloat162 __hmin2_nan(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {cuda_emu::min_or_nan(a.x, b.x, __bfloat162float(a.x), __bfloat162float(b.x)),
          cuda_emu::min_or_nan(a.y, b.y, __bfloat162float(a.y), __bfloat162float(b.y))};
}
inline __nv_bfloat162 __hmax2_nan(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {cuda_emu::max_or_nan(a.x, b.x, __bfloat162float(a.x), __bfloat162float(b.x)),
          cuda_emu::max_or_nan(a.y, b.y, __bfloat162float(a.y), __bfloat162float(b.y))};
}
