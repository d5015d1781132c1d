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
struct LogSoftmaxGradient {
  T grad_sum;  // sum_k g_k

  HOST_DEVICE T at(T grad, T y) const {
    const T result = grad - product(exp(y), grad_sum);
    // The one class of a row that may be all but certain: there e^y is 1 + expm1(y), and what g_j has in common with
    // the sum cancels exactly. So the gradient of a negative log likelihood is as accurate as that of cross entropy.
    const auto likely = T(-0.5) < y;
    if (!any(likely)) return result;
    const T accurate = (grad - grad_sum) - expm1(y) * grad_sum;
    const auto is_finite = grad_sum - grad_sum == T(0);
    return where(likely, where(is_finite, accurate, result), result);
  }
};

}  // namespace ce_ext
