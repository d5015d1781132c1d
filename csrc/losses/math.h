// The scalar words that the formulas in this folder are written in. Code here includes nothing of torch
// and runs in host code, in CUDA threads and, through cpu/lanes.h, on SIMD lanes, which offer the same words.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define HOST_DEVICE __host__ __device__ __forceinline__
#else
#define HOST_DEVICE inline
#endif

namespace ce_ext {

HOST_DEVICE float exp(float x) { return ::expf(x); }
HOST_DEVICE double exp(double x) { return ::exp(x); }
HOST_DEVICE float expm1(float x) { return ::expm1f(x); }
HOST_DEVICE double expm1(double x) { return ::expm1(x); }
HOST_DEVICE float log(float x) { return ::logf(x); }
HOST_DEVICE double log(double x) { return ::log(x); }
HOST_DEVICE float log1p(float x) { return ::log1pf(x); }
HOST_DEVICE double log1p(double x) { return ::log1p(x); }
// log(x), log(1 + x) and log(1 - x) for 0 <= x <= 1, for which lanes are quicker.
HOST_DEVICE float log_unit(float x) { return ::logf(x); }
HOST_DEVICE double log_unit(double x) { return ::log(x); }
HOST_DEVICE float log1p_unit(float x) { return ::log1pf(x); }
HOST_DEVICE double log1p_unit(double x) { return ::log1p(x); }
HOST_DEVICE float log1m_unit(float x) { return ::log1pf(-x); }
HOST_DEVICE double log1m_unit(double x) { return ::log1p(-x); }
HOST_DEVICE float tanh(float x) { return ::tanhf(x); }
HOST_DEVICE double tanh(double x) { return ::tanh(x); }
HOST_DEVICE float maximum(float a, float b) { return ::fmaxf(a, b); }
HOST_DEVICE double maximum(double a, double b) { return ::fmax(a, b); }
HOST_DEVICE float minimum(float a, float b) { return ::fminf(a, b); }
HOST_DEVICE double minimum(double a, double b) { return ::fmin(a, b); }
HOST_DEVICE float abs(float x) { return ::fabsf(x); }
HOST_DEVICE double abs(double x) { return ::fabs(x); }

HOST_DEVICE float where(bool condition, float a, float b) { return condition ? a : b; }
HOST_DEVICE double where(bool condition, double a, double b) { return condition ? a : b; }
// x added to a sum if the condition holds.
HOST_DEVICE float add_where(bool condition, float sum, float x) { return condition ? sum + x : sum; }
HOST_DEVICE double add_where(bool condition, double sum, double x) { return condition ? sum + x : sum; }
HOST_DEVICE bool any(bool condition) { return condition; }  // for lanes: of any of them

// One policy for infinities, the same in every loss: what has no weight adds nothing, 0 * inf = 0 ...
template <class T>
HOST_DEVICE T product(T weight, T x) {
  return where(weight == T(0), T(0), weight * x);
}

// ... and an infinity does not differ from itself: inf - inf = 0.
template <class T>
HOST_DEVICE T difference(T a, T b) {
  return where(a == b, T(0), a - b);
}

}  // namespace ce_ext
