// The asymmetric loss of a target t in [0, 1] and a logit x with p = 1 / (1 + e^-x) (Ridnik et al., "Asymmetric Loss
// For Multi-Label Classification", 2021), where P is `pos_weight`:
//
//   loss = P t (1 - p)^gamma_pos (-log p) + (1 - t) p_m^gamma_neg (-log(1 - p_m)),   p_m = max(p - margin, 0)
//
// Of a target that is neither 0 nor 1 it has a share of both. Label smoothing is that of binary cross entropy.
#pragma once

#include "losses/binary_cross_entropy.h"

namespace ce_ext {

constexpr int kLargestWholePower = 4;

HOST_DEVICE bool is_whole_power(double gamma) { return gamma <= kLargestWholePower && gamma == int(gamma); }
HOST_DEVICE bool has_whole_powers(const BinaryCrossEntropyOptions& options) {
  return is_whole_power(options.gamma) && is_whole_power(options.gamma_neg);
}

// q^gamma for q in [0, 1]; without kPower for a gamma that is whole.
template <class T, bool kPower>
class Power {
 public:
  template <class Scalar>
  static HOST_DEVICE Power make(double gamma) {
    Power power;
    power.gamma_ = T(Scalar(gamma));
    for (int k = 0; k <= kLargestWholePower; ++k) power.coefficients_[k] = T(Scalar(gamma == k));
    power.is_whole_ = is_whole_power(gamma);
    return power;
  }

  HOST_DEVICE T gamma() const { return gamma_; }
  HOST_DEVICE T operator()(T q) const {
    if (kPower && !is_whole_) return exp(gamma_ * log_unit(q));
    T power = coefficients_[kLargestWholePower];
    UNROLL for (int k = kLargestWholePower - 1; k >= 0; --k) power = coefficients_[k] + q * power;
    return power;
  }

 private:
  T gamma_;
  T coefficients_[kLargestWholePower + 1];  // one of them is 1
  bool is_whole_;
};

template <class T, bool kPower = true>
class AsymmetricLoss {
  using Prediction = LogitPrediction<T>;
  using Target = BinaryTarget<T>;

 public:
  static constexpr bool kProbability = false;
  static constexpr bool kFocal = true;
  static constexpr bool kPowers = kPower;
  static constexpr bool kIsBare = false;

  // Scalar is T, or the type of one of its lanes.
  template <class Scalar>
  static AsymmetricLoss make(const BinaryCrossEntropyOptions& options) {
    AsymmetricLoss loss;
    loss.targets_ = SmoothTargets<T>::template make<Scalar>(options);
    loss.neg_weight_ = T(Scalar(options.neg_weight));
    loss.pos_focus_ = Power<T, kPower>::template make<Scalar>(options.gamma);
    loss.neg_focus_ = Power<T, kPower>::template make<Scalar>(options.gamma_neg);
    const double least = sizeof(Scalar) == sizeof(double) ? DBL_MIN : double(FLT_MIN);
    loss.least_ = T(Scalar(least));
    loss.has_margin_ = options.margin >= least;
    // In more digits than those of double where the host has any: next to the edge, the difference to it needs them.
    const long double margin = options.margin, edge = loss.has_margin_ ? std::log(margin) - std::log1p(-margin) : 0;
    loss.coarse_edge_ = T(Scalar(edge));
    loss.fine_edge_ = T(Scalar(edge - Scalar(edge)));
    loss.margin_ = T(Scalar(options.margin));
    loss.rest_of_margin_ = T(Scalar(1 - options.margin));
    return loss;
  }

  // It has none.
  HOST_DEVICE Sides<T> alphas() const { return {T(1), T(1)}; }

  HOST_DEVICE T loss(T x, const Target& target) const { return add_loss(T(0), x, target); }

  template <int kCount>
  HOST_DEVICE T sum(const T (&x)[kCount], const Target (&targets)[kCount]) const {
    T sum(0);
    for (int k = 0; k < kCount; ++k) sum = add_loss(sum, x[k], targets[k]);
    return sum;
  }

  // dloss/dx
  HOST_DEVICE T in_input(T x, const Target& target) const {
    const Prediction prediction(x);
    const Sides<T> part = targets_.parts(target);
    const T p = prediction.probability(), rest = prediction.rest();
    // What is next to nothing times infinity is nothing: the limits.
    const T pos = pos_focus_(rest) * (pos_focus_.gamma() * product(p, prediction.misses().pos) + rest);
    const Shifted m = shift(x, prediction);
    const T neg = neg_focus_(m.p) * (neg_focus_.gamma() * product(rest, m.miss_ratio) + m.miss_slope);
    return part.neg * neg - part.pos * pos;
  }

  // dloss/dt
  HOST_DEVICE T in_target(T x, const Target& target) const {
    const Sides<T> cost = costs(x);
    return targets_.slope() * (product(target.pos_weight, cost.pos) - product(neg_weight_, cost.neg));
  }

 private:
  // The shifted probability of a negative.
  struct Shifted {
    T p;           // p_m
    T miss;        // -log(1 - p_m)
    T miss_ratio;  // miss p / p_m
    T miss_slope;  // the derivative of miss in x
  };

  // p - margin = p (1 - margin) (1 - e^(edge - x)), where p is margin at the logit `edge`: no difference of what is
  // nearly the same but of the logits, and those are exact.
  HOST_DEVICE Shifted shift(T x, const Prediction& prediction) const {
    const T p = prediction.probability();
    if (!has_margin_) {
      const T miss = prediction.misses().neg;
      return {p, miss, miss, p};
    }
    const T above = (x - coarse_edge_) - fine_edge_;
    const T p_m = -(p * rest_of_margin_) * expm1(where(above < T(0), T(0), -above));
    const T rest = prediction.rest(), rest_m = rest + margin_;  // 1 - p_m, where that is not 1
    const T miss = where(p_m < T(0.5), neg_log1m_half(p_m), -log_unit(rest_m));
    const T slope = p * rest / rest_m;
    return {p_m, miss, p * miss / maximum(p_m, least_), where(p_m == T(0), T(0), slope)};
  }

  // Of a positive and of a negative.
  HOST_DEVICE Sides<T> costs(T x) const {
    const Prediction prediction(x);
    const Shifted m = shift(x, prediction);
    return {pos_focus_(prediction.rest()) * prediction.misses().pos, neg_focus_(m.p) * m.miss};
  }

  HOST_DEVICE T add_loss(T sum, T x, const Target& target) const {
    const Sides<T> part = targets_.parts(target), cost = costs(x);
    return sum + product(part.pos, cost.pos) + product(part.neg, cost.neg);
  }

  SmoothTargets<T> targets_;
  T neg_weight_;
  Power<T, kPower> pos_focus_, neg_focus_;
  bool has_margin_;
  T margin_, rest_of_margin_;
  T coarse_edge_, fine_edge_;  // their sum is the edge
  T least_;
};

// The loss of any input.
template <class T, BinaryInput kInput, bool kPower = true, bool kBare = false>
using BinaryLoss = std::conditional_t<kInput == BinaryInput::kAsymmetricLogit, AsymmetricLoss<T, kPower>,
                                      BinaryCrossEntropy<T, kInput, kPower, kBare>>;

}  // namespace ce_ext
