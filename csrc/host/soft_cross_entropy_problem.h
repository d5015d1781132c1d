// A problem of cross entropy with class probabilities, after every check.
#pragma once

#include <type_traits>

#include "host/softmax_loss_problem.h"
#include "losses/soft_cross_entropy.h"

namespace ce_ext {

struct SoftCrossEntropyProblem : SoftmaxLossProblem {
  bool target_is_opmath;  // the dtype of target and its gradient: opmath, or that of input
  const void* target;     // class probabilities
  RowStrides target_rows;
  int64_t target_class_stride;
};

struct SoftCrossEntropyForward : SoftCrossEntropyProblem, LossForward {};  // keeps SavedSoftRow

struct SoftCrossEntropyBackward : SoftCrossEntropyProblem, LossBackward {  // either gradient may be null
  void* grad_target;
  RowStrides grad_target_rows;
  int64_t grad_target_class_stride;
};

// Calls f with a value of the element type of input and one of that of target.
template <class Half, class BFloat16, class F>
auto dispatch(const SoftCrossEntropyProblem& p, F f) {
  return dispatch<Half, BFloat16>(p.dtype, [&](auto s) {
    using S = decltype(s);
    return p.target_is_opmath ? f(s, opmath_t<S>()) : f(s, S());
  });
}

// The form of the focal loss, which takes a second pass over each row, and gathers there what others do in the first.
struct FocalForm : FullForm<Gaps::kNone> {};

template <class Form>
constexpr bool kIsFocal = std::is_same_v<Form, FocalForm>;

// Calls f with a value of the form that the problem needs.
template <class F>
auto dispatch_form(const SoftCrossEntropyForward& p, F f) {
  return p.options.gamma > 0 ? f(FocalForm{}) : dispatch_form<Gaps::kSumAndWeights>(p, f);
}

// Calls f with whether the logits change and whether the loss is focal, of which there is the most general kernel.
template <class F>
auto dispatch_form(const SoftCrossEntropyBackward& p, F f) {
  using std::bool_constant;
  return p.options.gamma > 0         ? f(bool_constant<true>(), bool_constant<true>())
         : p.options.logits.change() ? f(bool_constant<true>(), bool_constant<false>())
                                     : f(bool_constant<false>(), bool_constant<false>());
}

}  // namespace ce_ext
