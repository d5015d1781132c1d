// What a comparison of SIMD lanes gives. AVX-512 has registers for it, which at::vec turns into vectors and back.
#pragma once

#include <ATen/cpu/vec/vec.h>

#include <type_traits>

namespace ce_ext::cpu {

#if defined(CPU_CAPABILITY_AVX512)

template <class T>
struct LaneMask {
  using Vec = at::vec::Vectorized<T>;
  using Bits = std::conditional_t<std::is_same_v<T, float>, __mmask16, __mmask8>;

  Bits bits;

  static LaneMask equal(Vec a, Vec b) { return compare<_CMP_EQ_OQ>(a, b); }
  static LaneMask less(Vec a, Vec b) { return compare<_CMP_LT_OQ>(a, b); }

  Vec select(Vec a, Vec b) const {
    if constexpr (std::is_same_v<T, float>) {
      return _mm512_mask_blend_ps(bits, b, a);
    } else {
      return _mm512_mask_blend_pd(bits, b, a);
    }
  }

  // sum + x in these lanes, sum in the others.
  Vec add(Vec sum, Vec x) const {
    if constexpr (std::is_same_v<T, float>) {
      return _mm512_mask_add_ps(sum, bits, sum, x);
    } else {
      return _mm512_mask_add_pd(sum, bits, sum, x);
    }
  }

  friend LaneMask operator!(LaneMask mask) { return {static_cast<Bits>(~mask.bits)}; }
  friend LaneMask operator&(LaneMask a, LaneMask b) { return {static_cast<Bits>(a.bits & b.bits)}; }
  friend bool any(LaneMask mask) { return mask.bits != 0; }

 private:
  template <int kPredicate>
  static LaneMask compare(Vec a, Vec b) {
    if constexpr (std::is_same_v<T, float>) {
      return {_mm512_cmp_ps_mask(a, b, kPredicate)};
    } else {
      return {_mm512_cmp_pd_mask(a, b, kPredicate)};
    }
  }
};

#else

template <class T>
struct LaneMask {
  using Vec = at::vec::Vectorized<T>;

  Vec bits;

  static LaneMask equal(Vec a, Vec b) { return {a == b}; }
  static LaneMask less(Vec a, Vec b) { return {a < b}; }

  Vec select(Vec a, Vec b) const { return Vec::blendv(b, a, bits); }

  Vec add(Vec sum, Vec x) const { return sum + (bits & x); }

  friend LaneMask operator!(LaneMask mask) { return {mask.bits ^ (Vec(T(0)) == Vec(T(0)))}; }
  friend LaneMask operator&(LaneMask a, LaneMask b) { return {a.bits & b.bits}; }
  friend bool any(LaneMask mask) { return mask.bits.zero_mask() != (1 << Vec::size()) - 1; }
};

#endif

}  // namespace ce_ext::cpu
