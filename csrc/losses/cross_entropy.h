// Cross entropy of logits z and a class index y, with class weights w and label smoothing s, as defined by
// torch.nn.CrossEntropyLoss; with the factor of the focal loss (Lin et al., "Focal Loss for Dense Object Detection",
// 2017) and with a z-loss (Chowdhery et al., "PaLM", 2022). With lse = log(sum_j e^{z_j}), p = softmax(z):
//
//   base  = (1 - s) w_y (lse - z_y)  +  s/C sum_j w_j (lse - z_j)
//   loss  = f base + zeta lse^2,   f = (1 - p_y)^gamma
//   dloss/dz_j = (hard + soft) p_j  -  smoothing w_j  -  hard [j = y]
//
//   hard      = f ((1 - s) w_y + gamma base p_y / (1 - p_y))
//   soft      = f s/C sum_k w_k + 2 zeta lse
//   smoothing = f s/C
#pragma once

#include <cfloat>

#include "losses/logits.h"
#include "losses/softmax.h"

namespace ce_ext {

struct CrossEntropyOptions {
  double label_smoothing = 0;
  double gamma = 0;
  double z_loss = 0;  // zeta
  LogitOptions logits;
};

// What the forward pass keeps of a row for the backward pass.
template <class T>
struct SavedRow {
  RowStats<T> stats;
  T spread;  // sum_j w_j (lse - z_j); only label smoothing needs it
};

// The gradient of one row, in x: everything that does not depend on the class.
template <class T, bool kLogitsChange>
struct CrossEntropyGradient {
  RowStats<T> stats;
  T hard;
  T soft;
  T smoothing;
  T pull;  // smoothing * w_y
  Logits<T, kLogitsChange> logits;

  HOST_DEVICE T at(T x, T weight) const {
    const Logit<T> z = logits.with_slope(x);
    return logits.chain(z, (hard + soft) * probability(stats, z.value) - smoothing * weight);
  }
  // Without label smoothing.
  HOST_DEVICE T at(T x) const {
    const Logit<T> z = logits.with_slope(x);
    return logits.chain(z, (hard + soft) * probability(stats, z.value));
  }

  // The target's own gradient, in which p_y - 1 does not cancel.
  HOST_DEVICE T at_target(T x_target) const {
    const Logit<T> z = logits.with_slope(x_target);
    const T hard_grad = hard * expm1(-negative_log_likelihood(stats, z.value));
    return logits.chain(z, hard_grad + (soft * probability(stats, z.value) - pull));
  }

  // The same row in another type: SIMD lanes that all hold it.
  template <class R>
  CrossEntropyGradient<R, kLogitsChange> as() const {
    const RowStats<R> all{R(stats.max), R(stats.log_sum)};
    return {all, R(hard), R(soft), R(smoothing), R(pull), Logits<R, kLogitsChange>(logits)};
  }
};

// The factor of the focal loss of a class that has the probability p = e^-nll: (1 - p)^gamma.
template <class T>
HOST_DEVICE T focus(T nll, T gamma) {
  return exp(gamma * log(-expm1(-nll)));
}

// Bound of 1 - p where something is divided by it. At it, which keeps the quotient finite, what p is a factor of or p
// itself leaves nothing of it.
template <class Scalar>
constexpr Scalar kLeastRest = Scalar(1024 * (sizeof(Scalar) == sizeof(double) ? DBL_MIN : double(FLT_MIN)));

// Where the input holds log-probabilities, the loss is -w_y x_y, and no class has a gradient but the target.
template <class T>
HOST_DEVICE T nll_loss(T x_target, T weight_target) {
  return product(weight_target, -x_target);
}

// Of scale * nll_loss.
template <class T>
HOST_DEVICE T nll_gradient(T weight_target, T scale) {
  return -(scale * weight_target);
}

template <class T>
struct CrossEntropy {
  bool is_smoothed;
  bool is_focal;
  bool has_z_loss;
  T confidence;  // 1 - s
  T smoothing;   // s / C
  T weight_sum;  // sum of w_j over the classes
  T gamma;
  T z_loss;
  T least_rest;

  // Scalar is T, or the type of one of its lanes.
  template <class Scalar>
  HOST_DEVICE CrossEntropy(const CrossEntropyOptions& options, int64_t classes, Scalar weight_sum_)
      : is_smoothed(options.label_smoothing > 0),
        is_focal(options.gamma > 0),
        has_z_loss(options.z_loss != 0),
        confidence(Scalar(1 - options.label_smoothing)),
        smoothing(options.label_smoothing > 0 ? Scalar(options.label_smoothing / double(classes)) : Scalar(0)),
        weight_sum(weight_sum_),
        gamma(Scalar(options.gamma)),
        z_loss(Scalar(options.z_loss)),
        least_rest(kLeastRest<Scalar>) {}

  // `gap_sum` is sum_j w_j (max - z_j); without label smoothing it is 0.
  HOST_DEVICE SavedRow<T> save(const RowStats<T>& stats, T gap_sum) const {
    return {stats, is_smoothed ? gap_sum + product(weight_sum, stats.log_sum) : T(0)};
  }

  HOST_DEVICE T loss(const SavedRow<T>& row, T z_target, T weight_target) const {
    const T nll = negative_log_likelihood(row.stats, z_target);
    const T base = this->base(row, nll, weight_target);
    const T loss = is_focal ? product(focus(nll, gamma), base) : base;
    if (!has_z_loss) return loss;
    const T lse = log_sum_exp(row.stats);
    return loss + product(z_loss, lse * lse);
  }

  // The gradient of `scale * loss`.
  template <bool kLogitsChange>
  HOST_DEVICE CrossEntropyGradient<T, kLogitsChange> gradient(const SavedRow<T>& row, T z_target, T weight_target,
                                                              T scale, const Logits<T, kLogitsChange>& logits) const {
    T hard = confidence * weight_target;
    T factor = scale;
    if (is_focal) {
      const T nll = negative_log_likelihood(row.stats, z_target);
      const T f = focus(nll, gamma);
      const T rest = maximum(-expm1(-nll), least_rest);
      hard = f * hard + gamma * product(exp(-nll), product(f, base(row, nll, weight_target)) / rest);
      factor = scale * f;
    }
    const T each = factor * smoothing;
    T soft = each * weight_sum;
    if (has_z_loss) soft = soft + scale * product(T(2) * z_loss, log_sum_exp(row.stats));
    return {row.stats, scale * hard, soft, each, each * weight_target, logits};
  }

 private:
  HOST_DEVICE T base(const SavedRow<T>& row, T nll, T weight_target) const {
    const T hard = product(confidence * weight_target, nll);
    return is_smoothed ? hard + product(smoothing, row.spread) : hard;
  }
};

}  // namespace ce_ext
