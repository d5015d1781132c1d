// The scalar words that the formulas in this folder are written in. Code here includes nothing of torch
// and runs in host code, in CUDA threads and, through cpu/lanes.h, on SIMD lanes, which offer the same words.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define HOST_DEVICE __host__ __device__ __forceinline__
#else
#define HOST_DEVICE inline
#endif

// What is said of loops is for GPUs, where indices that are known keep arrays in registers.
#if defined(__CUDA_ARCH__)
#define UNROLL _Pragma("unroll")
#define DO_NOT_UNROLL _Pragma("unroll 1")
#else
#define UNROLL
#define DO_NOT_UNROLL
#endif

namespace ce_ext {

HOST_DEVICE float exp(float x) { return ::expf(x); }
HOST_DEVICE double exp(double x) { return ::exp(x); }
// e^x for x <= 0, as a term of a sum: in float32 its relative error grows with |x|, and is 3e-7 for x = -1.
HOST_DEVICE float exp_term(float x) {
#if defined(__CUDA_ARCH__)
  float result;  // a third of the instructions of expf
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x * 1.442695041f));
  return result;
#else
  return ::expf(x);
#endif
}
template <class T>
HOST_DEVICE T exp_term(T x) {
  return exp(x);
}
// e^{x - y} for x <= 0 <= y: where y is the same for many x, a product and a sum less.
HOST_DEVICE float exp_difference(float x, float y) {
#if defined(__CUDA_ARCH__)
  constexpr float kLog2e = 1.442695041f;
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(::fmaf(x, kLog2e, -(y * kLog2e))));
  return result;
#else
  return ::expf(x - y);
#endif
}
template <class T>
HOST_DEVICE T exp_difference(T x, T y) {
  return exp(x - y);
}
HOST_DEVICE float expm1(float x) { return ::expm1f(x); }
HOST_DEVICE double expm1(double x) { return ::expm1(x); }
HOST_DEVICE float log(float x) { return ::logf(x); }
HOST_DEVICE double log(double x) { return ::log(x); }
HOST_DEVICE float log1p(float x) { return ::log1pf(x); }
HOST_DEVICE double log1p(double x) { return ::log1p(x); }
// log(x), log(1 + x) and log(1 - x) for 0 <= x <= 1, for which lanes are quicker.
HOST_DEVICE float log_unit(float x) { return ::logf(x); }
HOST_DEVICE double log_unit(double x) { return ::log(x); }
// In float32 log1p_unit is within 2 ulp, 1.6e-7: x times a minimax polynomial for log1p(x) / x.
HOST_DEVICE float log1p_unit(float x) {
  float q = ::fmaf(x, -0x1.a93368p-9f, 0x1.453f0ep-6f);
  q = ::fmaf(q, x, -0x1.d29ccap-5f);
  q = ::fmaf(q, x, 0x1.b25360p-4f);
  q = ::fmaf(q, x, -0x1.397562p-3f);
  q = ::fmaf(q, x, 0x1.92f696p-3f);
  q = ::fmaf(q, x, -0x1.ff0f88p-3f);
  q = ::fmaf(q, x, 0x1.554c80p-2f);
  q = ::fmaf(q, x, -0x1.ffffbep-2f);
  return x * ::fmaf(q, x, 1.0f);
}
HOST_DEVICE double log1p_unit(double x) { return ::log1p(x); }
HOST_DEVICE float log1m_unit(float x) { return ::log1pf(-x); }
HOST_DEVICE double log1m_unit(double x) { return ::log1p(-x); }
// 1 / x for 1 <= x <= 2, within 1 ulp.
HOST_DEVICE float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float result;  // one instruction, where a division has to look after exponents
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return 1.0f / x;
#endif
}
HOST_DEVICE double reciprocal(double x) { return 1.0 / x; }
HOST_DEVICE float tanh(float x) { return ::tanhf(x); }
HOST_DEVICE double tanh(double x) { return ::tanh(x); }
HOST_DEVICE float maximum(float a, float b) { return ::fmaxf(a, b); }
HOST_DEVICE double maximum(double a, double b) { return ::fmax(a, b); }
HOST_DEVICE float minimum(float a, float b) { return ::fminf(a, b); }
HOST_DEVICE double minimum(double a, double b) { return ::fmin(a, b); }
// The lesser of the two, and NaN if either is.
HOST_DEVICE float lesser(float x, float y) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(x), "f"(y));
  return result;
#else
  return y < x || y != y ? y : x;
#endif
}
HOST_DEVICE double lesser(double x, double y) { return y < x || y != y ? y : x; }
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
