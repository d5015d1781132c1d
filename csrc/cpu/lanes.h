// SIMD lanes with the vocabulary of losses/math.h, over at::vec::Vectorized of whatever instruction set this
// file is compiled for. Lanes hold the compute type (opmath); memory may hold a narrower one.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "cpu/lane_mask.h"
#include "losses/math.h"

namespace ce_ext::cpu {

template <class T>
struct Lanes {
  using Vec = at::vec::Vectorized<T>;
  using Int = at::vec::int_same_size_t<T>;
  static constexpr int kSize = Vec::size();

  Vec vec;

  Lanes() : vec(T(0)) {}
  Lanes(T value) : vec(value) {}
  explicit Lanes(Vec v) : vec(v) {}

  // n, padded to whole vectors.
  static constexpr int64_t round_up(int64_t n) { return (n + kSize - 1) / kSize * kSize; }

  // `value` in the first n lanes, 0 in the others.
  static Lanes first(int64_t n, T value) {
    return n == kSize ? Lanes(value) : where(iota() < Lanes(T(n)), Lanes(value), Lanes());
  }

  // These in the first n lanes, 0 in the others.
  Lanes keep_first(int64_t n) const { return n == kSize ? *this : where(iota() < Lanes(T(n)), *this, Lanes()); }

  static Lanes iota() { return Lanes(Vec::arange(T(0), T(1))); }

  template <class S>
  static Lanes load(const S* p) {
    if constexpr (std::is_same_v<S, T>) {
      return Lanes(Vec::loadu(p));
    } else {
      Lanes result;
      at::vec::load_to_float<S>(p, result.vec);
      return result;
    }
  }

  // The first n lanes from memory, `fill` in the others.
  template <class S>
  static Lanes load(const S* p, int64_t n, T fill) {
    if (n == kSize) return load(p);
    const Lanes fills(fill);
    if constexpr (std::is_same_v<S, T>) {
      return where(iota() < Lanes(T(n)), Lanes(Vec::loadu(p, n)), fills);
    } else {  // a vector of halves holds twice as many lanes
      const auto [low, high] = at::vec::convert_to_float<S>(at::vec::Vectorized<S>::loadu(p, n));
      return where(iota() < Lanes(T(n)), Lanes(low), fills);
    }
  }

  // p[index[0]], p[index[1]], ...
  static Lanes gather(const T* p, const Int* index) {
    return Lanes(at::vec::gather<sizeof(T)>(p, at::vec::Vectorized<Int>::loadu(index)));
  }

  // (Inlined, or a constant n is none, and half a vector of halves a call of memcpy.)
  template <class S>
  C10_ALWAYS_INLINE void store(S* p, int64_t n = kSize) const {
    if constexpr (std::is_same_v<S, T>) {
      vec.store(p, n);
    } else {
      at::vec::convert_from_float<S>(vec, vec).store(p, n);
    }
  }

  T sum() const {
    return at::vec::vec_reduce_all<T>([](Vec a, Vec b) { return a + b; }, vec);
  }
  T max() const {
    return at::vec::vec_reduce_all<T>([](Vec a, Vec b) { return at::vec::clamp_min(a, b); }, vec);
  }

  friend Lanes operator+(Lanes a, Lanes b) { return Lanes(a.vec + b.vec); }
  friend Lanes operator-(Lanes a, Lanes b) { return Lanes(a.vec - b.vec); }
  friend Lanes operator*(Lanes a, Lanes b) { return Lanes(a.vec * b.vec); }
  friend Lanes operator/(Lanes a, Lanes b) { return Lanes(a.vec / b.vec); }
  friend Lanes operator-(Lanes a) { return Lanes(a.vec.neg()); }
  friend LaneMask<T> operator==(Lanes a, Lanes b) { return LaneMask<T>::equal(a.vec, b.vec); }
  friend LaneMask<T> operator<(Lanes a, Lanes b) { return LaneMask<T>::less(a.vec, b.vec); }
  friend Lanes where(LaneMask<T> mask, Lanes a, Lanes b) { return Lanes(mask.select(a.vec, b.vec)); }
  friend Lanes add_where(LaneMask<T> mask, Lanes sum, Lanes x) { return Lanes(mask.add(sum.vec, x.vec)); }
  // One instruction. Of a number and a NaN either may come out; a NaN makes the sum of a row NaN in any case.
  friend Lanes maximum(Lanes a, Lanes b) { return Lanes(at::vec::clamp_min(a.vec, b.vec)); }
  friend Lanes minimum(Lanes a, Lanes b) { return Lanes(at::vec::clamp_max(a.vec, b.vec)); }
  // Likewise x, whether that is NaN or y: of what has been added up before, y is never NaN.
  friend Lanes lesser(Lanes x, Lanes y) { return minimum(x, y); }
  friend Lanes abs(Lanes x) { return Lanes(x.vec.abs()); }
  friend Lanes fma(Lanes a, Lanes b, Lanes c) { return Lanes(at::vec::fmadd(a.vec, b.vec, c.vec)); }
  friend Lanes reciprocal(Lanes x) { return Lanes(T(1)) / x; }
  friend Lanes tanh(Lanes x) { return Lanes(x.vec.tanh()); }
  friend Lanes log(Lanes x) { return Lanes(x.vec.log()); }
};

// Calls f(i, n) for the n <= V::kSize numbers from i on, for `count` numbers.
template <class V, class F>
C10_ALWAYS_INLINE void for_each_vector(int64_t count, F f) {
  int64_t i = 0;
  for (; i + V::kSize <= count; i += V::kSize) f(i, V::kSize);
  if (i < count) f(i, count - i);
}

// The types of torch's halves are none of C++'s own.
template <class S>
constexpr bool kIsHalf = !std::is_arithmetic_v<S>;

// to = from, converted.
template <class To, class From>
void copy_run(To* to, int64_t to_stride, const From* from, int64_t from_stride, int64_t n) {
  constexpr bool kWidens = std::is_same_v<To, float> && kIsHalf<From>;
  constexpr bool kNarrows = std::is_same_v<From, float> && kIsHalf<To>;
  if (to_stride == 1 && from_stride == 1) {
    int64_t i = 0;
    if constexpr (kWidens || kNarrows) {
      using V = Lanes<float>;
      for (; i + V::kSize <= n; i += V::kSize) V::load(from + i).store(to + i);
    }
    for (; i < n; ++i) to[i] = static_cast<To>(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i * to_stride] = static_cast<To>(from[i * from_stride]);
  }
}

// Calls f with 0 ... kCount - 1 as constants: arrays that only they index can live in registers.
template <int kCount, class F>
C10_ALWAYS_INLINE void unroll(F f) {
  const auto call = [&]<int... i>(std::integer_sequence<int, i...>)
                        C10_ALWAYS_INLINE_ATTRIBUTE { (f(std::integral_constant<int, i>()), ...); };
  call(std::make_integer_sequence<int, kCount>());
}

constexpr int64_t kCacheLine = 64;  // bytes

// Asks for memory that will soon be read once, or written: a hint, which may also point past the end. (Inlined, as is
// whatever only calls it: to GCC a function that does nothing but this does nothing, and it leaves out the call.)
template <class S>
C10_ALWAYS_INLINE void prefetch(S* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, std::is_const_v<S> ? 0 : 1, std::is_const_v<S> ? 1 : 3);
#endif
}

// One value or a vector of them, by the type asked for.
template <class T, class A>
T read(const A* p) {
  if constexpr (std::is_same_v<T, A>) {
    return *p;
  } else {
    return T::load(p);
  }
}
template <class A>
void write(A* p, A value) {
  *p = value;
}
template <class A>
void write(A* p, Lanes<A> value) {
  value.store(p);
}

inline Lanes<double> log_unit(Lanes<double> x) { return log(x); }
inline Lanes<double> log1p(Lanes<double> x) { return Lanes<double>(x.vec.log1p()); }
inline Lanes<double> log1p_unit(Lanes<double> x) { return log1p(x); }
inline Lanes<double> neg_log1m_half(Lanes<double> x) { return -log1p(-x); }

// log(x + rest) within 2 ulp, for a normal x and a rest of half its last place at most: x = 2^n (1 + f) with 1 + f
// between sqrt(1/2) and sqrt(2), and a minimax polynomial for log(1 + f).
inline at::vec::Vectorized<float> log_of_normal(at::vec::Vectorized<float> x, at::vec::Vectorized<float> rest) {
  using Vec = at::vec::Vectorized<float>;
  using Int = at::vec::Vectorized<int32_t>;
  using at::vec::cast;
  using at::vec::fmadd;
  const Int bits = cast<int32_t>(x);
  const Int n = (bits - Int(0x3f3504f3)) >> Int(23);  // the bits of sqrt(1/2)
  const Vec scaled_rest = rest * cast<float>((Int(127) - n) << Int(23));
  const Vec f = (cast<float>(bits - (n << Int(23))) - Vec(1.0f)) + scaled_rest;
  Vec q = fmadd(f, Vec(0x1.65c772p-4f), Vec(-0x1.25049ep-3f));
  q = fmadd(q, f, Vec(0x1.318526p-3f));
  q = fmadd(q, f, Vec(-0x1.535d30p-3f));
  q = fmadd(q, f, Vec(0x1.98d2c0p-3f));
  q = fmadd(q, f, Vec(-0x1.00049ap-2f));
  q = fmadd(q, f, Vec(0x1.5556f4p-2f));
  q = fmadd(q, f, Vec(-0x1.fffffap-2f));
  // Added to the bits of this number, n is added to its value.
  const Vec shift(0x1.8p23f);
  const Vec exponent = cast<float>(cast<int32_t>(shift) + n) - shift;
  // ln2 in two parts, the first with zeros enough at its end that n times it is exact.
  return fmadd(exponent, Vec(0x1.62e400p-1f), fmadd(exponent, Vec(0x1.7f7d1cp-20f), fmadd(f * f, q, f)));
}

inline Lanes<float> log_unit(Lanes<float> x) {
  using V = Lanes<float>;
  const auto is_tiny = x < V(0x1p-126f);
  const V result(log_of_normal(where(is_tiny, x * V(0x1p25f), x).vec, at::vec::Vectorized<float>(0.0f)));
  return where(x == V(0.0f), V(-INFINITY), where(is_tiny, result - V(0x1.154246p4f), result));  // 25 ln2
}

// For 0 <= x < infinity, and for -1.
inline Lanes<float> log1p(Lanes<float> x) {
  using V = Lanes<float>;
  const V sum = V(1.0f) + x;
  const V rest = minimum(x, V(1.0f)) - (sum - maximum(x, V(1.0f)));
  return where(sum == V(0.0f), V(-INFINITY), V(log_of_normal(sum.vec, rest.vec)));
}

inline Lanes<double> exp(Lanes<double> x) { return Lanes<double>(x.vec.exp()); }

// e^x for x <= 0, within 2 ulp, as softmax needs it: 0 about where it would be subnormal, 1 for 0, NaN for NaN.
// x = n ln2 + r with |r| <= ln2/2; e^r by a minimax polynomial, times 2^n, whose exponent field is 0 for the least n.
inline Lanes<float> exp(Lanes<float> x) {
  using Vec = at::vec::Vectorized<float>;
  using at::vec::fmadd;
  const Vec lowest(-88.0f);  // -127 ln2, or a bit more
  // Adding this rounds to an integer and leaves n + 127, the exponent field of 2^n, in the low bits of the mantissa.
  const Vec round(0x1.8p23f + 127.0f);
  const Vec clamped = at::vec::clamp_min(x.vec, lowest);
  const Vec shifted = fmadd(clamped, Vec(0x1.715476p0f), round);
  const Vec n = shifted - round;
  const Vec power = at::vec::cast<float>(at::vec::cast<int32_t>(shifted) << at::vec::Vectorized<int32_t>(23));
  // ln2 in two parts, the first with zeros enough at its end that n times it is exact.
  const Vec r = fmadd(n, Vec(-0x1.7f7d1cp-20f), fmadd(n, Vec(-0x1.62e400p-1f), clamped));
  Vec e = fmadd(r, Vec(0x1.0fa7d8p-7f), Vec(0x1.573ad0p-5f));
  e = fmadd(e, r, Vec(0x1.555a6ep-3f));
  e = fmadd(e, r, Vec(0x1.fffdc4p-2f));
  e = fmadd(e, r, Vec(0x1.fffff6p-1f));
  e = fmadd(e, r, Vec(1.0f));
  return Lanes<float>(e * power);
}

inline Lanes<double> expm1(Lanes<double> x) { return Lanes<double>(x.vec.expm1()); }

// e^x - 1 for x <= 0, within 4 ulp: near 0, where that would cancel, x times a minimax polynomial for expm1(x) / x.
inline Lanes<float> expm1(Lanes<float> x) {
  using Vec = at::vec::Vectorized<float>;
  using at::vec::fmadd;
  Vec q = fmadd(x.vec, Vec(0x1.2607a4p-10f), Vec(0x1.0c48c6p-7f));
  q = fmadd(q, x.vec, Vec(0x1.550688p-5f));
  q = fmadd(q, x.vec, Vec(0x1.555304p-3f));
  q = fmadd(q, x.vec, Vec(0x1.fffff4p-2f));
  q = fmadd(q, x.vec, Vec(1.0f));
  return where(Lanes<float>(-0.5f) < x, Lanes<float>(x.vec * q), exp(x) - Lanes<float>(1.0f));
}

}  // namespace ce_ext::cpu
