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
// 2^x, and 0 where it would be subnormal.
HOST_DEVICE float exp2_approx(float x) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return ::exp2f(x);
#endif
}
// e^x for x <= 0, as a term of a sum: in float32 its relative error grows with |x|, and is 3e-7 for x = -1.
HOST_DEVICE float exp_term(float x) {
#if defined(__CUDA_ARCH__)
  return exp2_approx(x * 1.442695041f);  // a third of the instructions of expf
#else
  return ::expf(x);
#endif
}
template <class T>
HOST_DEVICE T exp_term(T x) {
  return exp(x);
}
// x within [0, 1], and 0 for NaN.
HOST_DEVICE float saturate(float x) {
#if defined(__CUDA_ARCH__)
  return __saturatef(x);  // a modifier of the instruction that makes x
#else
  return ::fminf(::fmaxf(x, 0.0f), 1.0f);
#endif
}
// e^x for x <= 0, within 6e-7, in half the instructions that expf takes on CUDA: 2^n for the rounded n, and what n has
// too much of. That is never negative, since log2(e) is rounded up, and NaN for x = -inf, where there is nothing to
// mend.
HOST_DEVICE float exp_nonpositive(float x) {
  const float n = x * 0x1.715478p0f;
  const float power = exp2_approx(n);
  return ::fmaf(power, saturate(::fmaf(n, -0x1.62e430p-1f, x)), power);
}
template <class T>
HOST_DEVICE T exp_nonpositive(T x) {
  return exp(x);
}
// e^{x - y} for x <= 0 <= y: where y is the same for many x, a product and a sum less.
HOST_DEVICE float exp_difference(float x, float y) {
#if defined(__CUDA_ARCH__)
  constexpr float kLog2e = 1.442695041f;
  return exp2_approx(::fmaf(x, kLog2e, -(y * kLog2e)));
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
HOST_DEVICE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
HOST_DEVICE double fma(double a, double b, double c) { return ::fma(a, b, c); }
// log(x) for 0 <= x <= 1. In CUDA threads its error is 3e-7, relative to it below 1/2, and absolute above.
HOST_DEVICE float log_unit(float x) {
#if defined(__CUDA_ARCH__)
  return ::__log2f(x) * 0x1.62e430p-1f;
#else
  return ::logf(x);
#endif
}
HOST_DEVICE double log_unit(double x) { return ::log(x); }
// log(1 + x) for 0 <= x <= 1 and -log(1 - x) for 0 <= x <= 1/2, in float32 within 1.5e-7: x and x^2 times a minimax
// polynomial. Of float64 there are the functions of the library.
template <class T>
HOST_DEVICE T log1p_unit(T x) {
  T q = fma(x, T(0x1.5f96cep-8f), T(-0x1.ec9910p-6f));
  q = fma(q, x, T(0x1.446bf8p-4f));
  q = fma(q, x, T(-0x1.19ad88p-3f));
  q = fma(q, x, T(0x1.884450p-3f));
  q = fma(q, x, T(-0x1.fd1320p-3f));
  q = fma(q, x, T(0x1.5535dap-2f));
  q = fma(q, x, T(-0x1.ffff14p-2f));
  return fma(x * x, q, x);
}
HOST_DEVICE double log1p_unit(double x) { return ::log1p(x); }
template <class T>
HOST_DEVICE T neg_log1m_half(T x) {
  T q = fma(x, T(0x1.6a1ff4p0f), T(-0x1.a3bc72p0f));
  q = fma(q, x, T(0x1.356e84p0f));
  q = fma(q, x, T(-0x1.7297e2p-3f));
  q = fma(q, x, T(0x1.0e0516p-2f));
  q = fma(q, x, T(0x1.f30fd8p-3f));
  q = fma(q, x, T(0x1.55a3a8p-2f));
  q = fma(q, x, T(0x1.fffec0p-2f));
  return fma(x * x, q, x);
}
HOST_DEVICE double neg_log1m_half(double x) { return -::log1p(-x); }
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
template <class T>
HOST_DEVICE T saturate(T x) {
  return minimum(maximum(x, T(0)), T(1));
}
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

// The sum of log(1 + x) of numbers x >= 0, with one logarithm for all: 1 + s is the product of all 1 + x. s is a sum of
// terms that are never negative, and so keeps the relative accuracy of the smallest numbers.
template <class T>
class Log1pSum {
 public:
  HOST_DEVICE void add(T x) { s_ = fma(s_, x, s_) + x; }
  HOST_DEVICE T total() const { return log1p(s_); }

 private:
  T s_ = T(0);
};

// One policy for infinities, the same in every loss: what has no weight adds nothing, 0 * inf = 0, but hides no NaN ...
template <class T>
HOST_DEVICE T product(T weight, T x) {
  return where((weight == T(0)) & (x == x), T(0), weight * x);
}
// The same as one of several terms, another of which is NaN where x is: a comparison less.
template <class T>
HOST_DEVICE T term(T weight, T x) {
  return where(weight == T(0), T(0), weight * x);
}
template <class T>
HOST_DEVICE T add_term(T sum, T weight, T x) {
  return where(weight == T(0), sum, fma(weight, x, sum));
}

// ... and an infinity does not differ from itself: inf - inf = 0.
template <class T>
HOST_DEVICE T difference(T a, T b) {
  return where(a == b, T(0), a - b);
}

}  // namespace ce_ext
