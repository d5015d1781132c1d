// Stands in for the CUDA toolkit's header.
#pragma once

#include <bit>
#include <cstdint>

#include "packed_halves.h"

struct __half {
  uint16_t bits;
};

inline float __half2float(__half x) { return std::bit_cast<_Float16>(x.bits); }
inline __half __float2half_rn(float x) { return {std::bit_cast<uint16_t>(static_cast<_Float16>(x))}; }

struct __half2 {
  __half x, y;
};

inline float __low2float(__half2 pair) { return __half2float(pair.x); }
inline float __high2float(__half2 pair) { return __half2float(pair.y); }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }

inline __half2 __hmin2_nan(__half2 a, __half2 b) {
  return {cuda_emu::min_or_nan(a.x, b.x, __half2float(a.x), __half2float(b.x)),
          cuda_emu::min_or_nan(a.y, b.y, __half2float(a.y), __half2float(b.y))};
}
inline __half2 __hmax2_nan(__half2 a, __half2 b) {
  return {cuda_emu::max_or_nan(a.x, b.x, __half2float(a.x), __half2float(b.x)),
          cuda_emu::max_or_nan(a.y, b.y, __half2float(a.y), __half2float(b.y))};
}
