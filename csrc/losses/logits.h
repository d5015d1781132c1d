// The logits z that a loss is taken of, where they are not those in memory, x: scaled, and with a soft cap c as in
// Gemma 2 (Gemma Team, 2024),
//
//   z = c tanh(scale x / c),   dz/dx = scale (1 - tanh^2(scale x / c)).
#pragma once

#include "losses/math.h"

namespace ce_ext {

struct LogitOptions {
  double scale = 1;
  double softcap = 0;  // 0: none

  bool change() const { return scale != 1 || softcap > 0; }
};

template <class T>
struct Logit {
  T value;
  T slope;  // dz/dx
};

template <class T, bool kChanged>
struct Logits {
  int capped = 0;  // whether they are, in as many bytes as scale: GPUs that pass this on would pass padding by the byte
  T scale = T(1);  // divided by the cap, if there is one
  T cap = T(0);

  Logits() = default;

  HOST_DEVICE explicit Logits(const LogitOptions& options)
      : capped(options.softcap > 0),
        scale(T(capped ? options.scale / options.softcap : options.scale)),
        cap(T(options.softcap)) {}

  // The same in another type: SIMD lanes, all alike.
  template <class U>
  HOST_DEVICE explicit Logits(const Logits<U, kChanged>& other)
      : capped(other.capped), scale(other.scale), cap(other.cap) {}

  HOST_DEVICE T operator()(T x) const {
    if constexpr (!kChanged) return x;
    return capped ? cap * tanh(scale * x) : scale * x;
  }

  HOST_DEVICE Logit<T> with_slope(T x) const {
    if constexpr (!kChanged) return {x, T(1)};
    if (!capped) return {scale * x, scale};
    // 1 - tanh^2(y) in e^-2|y|: it cancels nowhere.
    const T y = scale * x, odds = exp_nonpositive(T(-2) * abs(y)), likely = reciprocal(T(1) + odds);
    return {cap * tanh(y), T(4) * (cap * scale) * (likely * (odds * likely))};
  }

  // A gradient in z as one in x.
  HOST_DEVICE T chain(const Logit<T>& z, T grad_z) const {
    if constexpr (!kChanged) return grad_z;
    return z.slope * grad_z;
  }
};

}  // namespace ce_ext
