// The element types that kernels are built for. Torch-free; each backend brings its own half types.
#pragma once

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
