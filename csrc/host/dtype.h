// The element types that kernels are built for. Torch-free; each backend brings its own half types.
#pragma once

#include <cstdint>

namespace ce_ext {

enum class DType { kFloat64, kFloat32, kFloat16, kBFloat16 };

// The type that values of S are computed in.
template <class S>
struct OpMath {
  using type = float;
};
template <>
struct OpMath<double> {
  using type = double;
};
template <class S>
using opmath_t = typename OpMath<S>::type;

// `dtype`, or the type that its numbers are computed in.
inline DType opmath_if(bool is_opmath, DType dtype) {
  return is_opmath && dtype != DType::kFloat64 ? DType::kFloat32 : dtype;
}

inline int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 8;
    case DType::kFloat32:
      return 4;
    default:
      return 2;
  }
}

// Calls f with a value of the element type that `dtype` names.
template <class Half, class BFloat16, class F>
auto dispatch(DType dtype, F f) {
  switch (dtype) {
    case DType::kFloat64:
      return f(double{});
    case DType::kFloat16:
      return f(Half{});
    case DType::kBFloat16:
      return f(BFloat16{});
    default:
      return f(float{});
  }
}

}  // namespace ce_ext
