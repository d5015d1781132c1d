// Cross entropy of logits z and class probabilities q, with class weights w and label smoothing s, as defined by
// torch.nn.CrossEntropyLoss, and with the z-loss of cross_entropy.h. With lse = log(sum_j e^{z_j}), p = softmax(z):
//
//   u_j  = ((1 - s) q_j + s/C) w_j,   mass = sum_j u_j
//   loss = sum_j u_j (lse - z_j) + zeta lse^2
//   dloss/dz_j = (mass + 2 zeta lse) p_j - u_j
//   dloss/dq_j = (1 - s) w_j (lse - z_j)
//
// The focal loss (Lin et al., 2017) of class probabilities is that of each class, weighted alike. Of n_j = lse - z_j,
// which is -log p_j, it has h(n_j) in place of n_j, and in gradients in z u_j h'(n_j) in place of u_j, in mass, too:
//
//   h(n) = (1 - e^-n)^gamma n,   h'(n) = (1 - e^-n)^gamma (1 + gamma e^-n n / (1 - e^-n))
#pragma once

#include "losses/cross_entropy.h"

namespace ce_ext {

// What the forward pass keeps of a row for the backward pass.
template <class T>
struct SavedSoftRow {
  RowStats<T> stats;
  T mass_below;  // of the classes below the maximum; mass is the sum of both; of the focal loss, that of gradients
  T mass_at_max;

  HOST_DEVICE T mass() const { return mass_below + mass_at_max; }
};

// The gradient of one row, in x and in q: everything that does not depend on the class.
template <class T, bool kLogitsChange>
struct SoftCrossEntropyGradient {
  RowStats<T> stats;
  T sure_max;  // the maximum if its class has more than half of the probability, NaN if not
  T at_max;    // scale (mass_below + mass (p_max - 1) + 2 zeta lse p_max)
  T pull;      // scale (mass + 2 zeta lse)
  T scale;
  T target_factor;  // scale (1 - s)
  Logits<T, kLogitsChange> logits;

  // In x_j, with u_j, or what the focal loss has in its place. Where p_j is close to 1, mass p_j - u_j would cancel.
  HOST_DEVICE T in_logit(const Logit<T>& z, T u) const {
    const T elsewhere = pull * probability(stats, z.value) - scale * u;
    return logits.chain(z, where(z.value == sure_max, at_max, elsewhere));
  }

  // In q_j, with n_j or h(n_j).
  HOST_DEVICE T in_target(T weight, T cost) const { return product(target_factor * weight, cost); }
};

template <class T>
struct SoftCrossEntropy {
  T confidence;  // 1 - s
  T smoothing;   // s / C
  T z_loss;
  T gamma;
  T least_rest;
  bool has_classes;

  // Scalar is T, or the type of one of its lanes.
  template <class Scalar>
  static HOST_DEVICE SoftCrossEntropy make(const CrossEntropyOptions& options, int64_t classes) {
    const double smoothing = options.label_smoothing > 0 ? options.label_smoothing / double(classes) : 0.0;
    return {Scalar(1 - options.label_smoothing),
            Scalar(smoothing),
            Scalar(options.z_loss),
            Scalar(options.gamma),
            kLeastRest<Scalar>,
            classes > 0};
  }

  // u_j
  HOST_DEVICE T mass(T q, T weight) const { return (confidence * q + smoothing) * weight; }

  // n_j, or h(n_j) if the loss is focal.
  template <bool kFocal>
  HOST_DEVICE T cost(T nll) const {
    if constexpr (kFocal) {
      return focus(nll, gamma) * nll;
    } else {
      return nll;
    }
  }

  // u_j, or u_j h'(n_j). 1 - e^-n is nearly n where that is small, so that their quotient is a number.
  template <bool kFocal>
  HOST_DEVICE T pull_of(T mass, T nll) const {
    if constexpr (kFocal) {
      const T rest = maximum(-expm1(-nll), least_rest);
      return mass * (focus(nll, gamma) * (T(1) + gamma * product(exp(-nll), nll / rest)));
    } else {
      return mass;
    }
  }

  // `gap_sum` is sum_j u_j (max - z_j). Where all classes are masked there is no loss, even if none has any mass.
  HOST_DEVICE T loss(const SavedSoftRow<T>& row, T gap_sum) const {
    const T of_max = has_classes ? row.stats.max - row.stats.max : T(0);
    return with_z_loss(row.stats, of_max + gap_sum + product(row.mass(), row.stats.log_sum));
  }

  HOST_DEVICE T with_z_loss(const RowStats<T>& stats, T loss) const {
    const T lse = log_sum_exp(stats);
    return loss + product(z_loss, lse * lse);
  }

  // The gradient in the largest logit where there is but one: mass p_max - u_max + 2 zeta lse p_max.
  HOST_DEVICE T gradient_at_max(const SavedSoftRow<T>& row) const {
    const T nll = negative_log_likelihood(row.stats, row.stats.max);  // NaN for an infinite maximum
    return row.mass_below + row.mass() * expm1(-nll) + z_pull(row) * exp(-nll);
  }

  // The gradient of `scale * loss`; `at_max` is gradient_at_max(row).
  template <bool kLogitsChange>
  HOST_DEVICE SoftCrossEntropyGradient<T, kLogitsChange> gradient(const SavedSoftRow<T>& row, T at_max, T scale,
                                                                  const Logits<T, kLogitsChange>& logits) const {
    const auto is_sure = row.stats.log_sum < T(0.5);  // p_max = e^-log_sum > 0.6
    const T sure_max = where(is_sure, row.stats.max, T(NAN));
    return {row.stats, sure_max, scale * at_max, scale * (row.mass() + z_pull(row)), scale, scale * confidence, logits};
  }

 private:
  HOST_DEVICE T z_pull(const SavedSoftRow<T>& row) const { return product(T(2) * z_loss, log_sum_exp(row.stats)); }
};

// What the focal loss adds up of a row, in a second pass: each class has a factor of its own, which needs the softmax.
template <class T>
struct FocalSums {
  T loss = T(0);  // sum of u_j h(n_j)
  T mass_below = T(0);
  T mass_at_max = T(0);

  HOST_DEVICE void add(const SoftCrossEntropy<T>& formula, const RowStats<T>& stats, T z, T mass) {
    const T nll = negative_log_likelihood(stats, z);
    const T pull = formula.template pull_of<true>(mass, nll);
    const auto is_max = z == stats.max;
    loss = loss + product(mass, formula.template cost<true>(nll));
    mass_below = add_where(!is_max, mass_below, pull);
    mass_at_max = add_where(is_max, mass_at_max, pull);
  }

  HOST_DEVICE void merge(const FocalSums& other) {
    loss = loss + other.loss;
    mass_below = mass_below + other.mass_below;
    mass_at_max = mass_at_max + other.mass_at_max;
  }
};

}  // namespace ce_ext
