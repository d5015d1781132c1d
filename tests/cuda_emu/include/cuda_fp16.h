// Stands in for the CUDA toolkit's header.
#pragma once

#include <bit>
#include <cstdint>

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

// The NaN that CUDA makes where either is one; -0 is below 0.
inline __half __hmin_nan(__half a, __half b) {
  const float x = __half2float(a), y = __half2float(b);
  if (x != x || y != y) return {0x7fff};
  return x < y || (x == y && a.bits >> 15) ? a : b;
}
inline __half __hmax_nan(__half a, __half b) {
  const float x = __half2float(a), y = __half2float(b);
  if (x != x || y != y) return {0x7fff};
  return x > y || (x == y && !(a.bits >> 15)) ? a : b;
}
inline __half2 __hmin2_nan(__half2 a, __half2 b) { return {__hmin_nan(a.x, b.x), __hmin_nan(a.y, b.y)}; }
inline __half2 __hmax2_nan(__half2 a, __half2 b) { return {__hmax_nan(a.x, b.x), __hmax_nan(a.y, b.y)}; }
