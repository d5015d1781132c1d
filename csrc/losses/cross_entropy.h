// Cross entropy of logits x and a class index y, with class weights w and label smoothing s, as defined by
// torch.nn.CrossEntropyLoss; lse = log(sum_j e^{x_j}), p = softmax(x):
//
//   loss    = (1 - s) w_y (lse - x_y)  +  s/C sum_j w_j (lse - x_j)
//   dloss/dx_j = ((1 - s) w_y + s/C sum_k w_k) p_j  -  s/C w_j  -  (1 - s) w_y [j = y]
#pragma once

#include "losses/softmax.h"

namespace ce_ext {

// The gradient of one row: everything that does not depend on the class.
template <class T>
struct CrossEntropyGradient {
  RowStats<T> stats;
  T hard;       // factor of p_j that comes from the target: scale (1 - s) w_y
  T soft;       // factor of p_j that comes from smoothing: scale s/C sum_k w_k
  T smoothing;  // factor of w_j: scale s/C
  T pull;       // smoothing * w_y

  HOST_DEVICE T at(T x, T weight) const { return (hard + soft) * probability(stats, x) - smoothing * weight; }

  // The target's own gradient, in which p_y - 1 does not cancel.
  HOST_DEVICE T at_target(T x_target) const {
    const T hard_grad = hard * expm1(-negative_log_likelihood(stats, x_target));
    return hard_grad + (soft * probability(stats, x_target) - pull);
  }

  // The same row in another type: SIMD lanes that all hold it.
  template <class R>
  CrossEntropyGradient<R> as() const {
    return {{R(stats.max), R(stats.log_sum)}, R(hard), R(soft), R(smoothing), R(pull)};
  }
};

template <class T>
struct CrossEntropy {
  T confidence;  // 1 - s
  T smoothing;   // s / C
  T weight_sum;  // sum of w_j over the classes

  // Scalar is T, or the type of one of its lanes.
  template <class Scalar>
  HOST_DEVICE CrossEntropy(double label_smoothing, int64_t classes, Scalar weight_sum_)
      : confidence(Scalar(1 - label_smoothing)),
        smoothing(label_smoothing > 0 ? Scalar(label_smoothing / double(classes)) : Scalar(0)),
        weight_sum(weight_sum_) {}

  // `gap_sum` is sum_j w_j (max - x_j); without label smoothing it is 0.
  HOST_DEVICE T loss(const RowStats<T>& stats, T x_target, T gap_sum, T weight_target) const {
    const T hard = product(confidence * weight_target, negative_log_likelihood(stats, x_target));
    return hard + smoothing * (gap_sum + weight_sum * stats.log_sum);
  }

  // The gradient of `scale * loss`.
  HOST_DEVICE CrossEntropyGradient<T> gradient(const RowStats<T>& stats, T weight_target, T scale) const {
    const T each = scale * smoothing;
    return {stats, scale * (confidence * weight_target), each * weight_sum, each, each * weight_target};
  }
};

}  // namespace ce_ext
