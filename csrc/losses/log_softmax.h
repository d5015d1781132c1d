// Log-softmax of logits x, as torch.nn.LogSoftmax defines it, and the gradient in x from the gradient g in its output
// y:
//
//   y_j   = x_j - log(sum_k e^{x_k})
//   dx_j  = g_j - e^{y_j} sum_k g_k
#pragma once

#include "losses/softmax.h"

namespace ce_ext {

template <class T>
struct LogSoftmax {
  RowStats<T> stats;

  HOST_DEVICE T at(T x) const { return (x - stats.max) - stats.log_sum; }
};

template <class T>
class LogSoftmaxGradient {
 public:
  HOST_DEVICE explicit LogSoftmaxGradient(T grad_sum)
      : grad_sum_(grad_sum), likely_(where(grad_sum - grad_sum == T(0), T(-0.5), T(INFINITY))) {}

  HOST_DEVICE T at(T grad, T y) const {
    const T result = grad - product(exp(y), grad_sum_);
    const auto is_likely = likely_ < y;
    if (!any(is_likely)) return result;
    return where(is_likely, (grad - grad_sum_) - expm1(y) * grad_sum_, result);
  }

 private:
  T grad_sum_;  // sum_k g_k
  // Above this log-probability e^y is taken as 1 + expm1(y), so that what g_j has in common with the sum cancels
  // exactly: a negative log likelihood then gets a gradient as accurate as that of cross entropy. It takes a finite
  // sum.
  T likely_;
};

}  // namespace ce_ext
