// From the types of tensors to those that kernels are compiled for. Most of the code knows only the type that numbers
// are computed in: what memory holds, which may be narrower, matters where it is read or written.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <type_traits>

#include "host/dtype.h"

namespace ce_ext::cpu {

// Calls f with a value of the type that numbers of `dtype` are computed in.
template <class F>
auto dispatch_opmath(DType dtype, F f) {
  return dtype == DType::kFloat64 ? f(double()) : f(float());
}

// Calls f with values of the types that memory holds, which are computed in A. `what` is a dtype, or a problem whose
// tensors have two.
template <class A, class What, class F>
void dispatch_stored(const What& what, F f) {
  dispatch<c10::Half, c10::BFloat16>(what, [&](auto... numbers) {
    if constexpr ((std::is_same_v<opmath_t<decltype(numbers)>, A> && ...)) f(numbers...);
  });
}

}  // namespace ce_ext::cpu
