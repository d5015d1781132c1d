// Binary cross entropy of a target t in [0, 1] and a probability p, or its logit x with p = 1 / (1 + e^-x), as defined
// by torch.nn.BCELoss and torch.nn.BCEWithLogitsLoss, where P is `pos_weight`:
//
//   loss = P t miss_pos + (1 - t) miss_neg
//   of probabilities:  miss_pos = -max(log p, -100),            miss_neg = -max(log(1 - p), -100)
//   of logits:         miss_pos = -log p = log(1 + e^-x),       miss_neg = -log(1 - p) = log(1 + e^x)
//
// and the sigmoid focal loss (Lin et al., "Focal Loss for Dense Object Detection", 2017), as defined by
// torchvision.ops.sigmoid_focal_loss:
//
//   balance q^gamma loss,   balance = alpha t + (1 - alpha) (1 - t),   q = p (1 - t) + (1 - p) t
//
// The asymmetric loss is in asymmetric_loss.h. Label smoothing s takes (1 - s) t + s/2 for t.
#pragma once

#include <cfloat>
#include <type_traits>

#include "losses/math.h"

namespace ce_ext {

enum class BinaryInput { kProbability, kLogit, kFocalLogit, kAsymmetricLogit };

struct BinaryCrossEntropyOptions {
  BinaryInput input = BinaryInput::kLogit;
  double label_smoothing = 0;
  double gamma = 0;       // of the asymmetric loss that of positives
  double alpha = -1;      // negative: balance is 1
  double neg_weight = 1;  // of miss_neg: with 0, and P = 1, the loss is its derivative in P
  double gamma_neg = 0;   // of the asymmetric loss, as margin
  double margin = 0;
};

HOST_DEVICE bool has_whole_power(const BinaryCrossEntropyOptions& options) {
  return options.gamma == 0 || options.gamma == 1 || options.gamma == 2;
}

// A value for each of the two classes.
template <class T>
struct Sides {
  T pos, neg;
};

// A prediction by its less likely class, whose probability is never the difference of others.
template <class T>
class LogitPrediction {
 public:
  HOST_DEVICE explicit LogitPrediction(T x)
      : is_pos_(T(0) < x), distance_(abs(x)), odds_(exp_nonpositive(-distance_)), likely_(reciprocal(T(1) + odds_)) {}

  // e^-|x|, the less likely class against the other one.
  HOST_DEVICE T odds() const { return odds_; }
  HOST_DEVICE T log_odds() const { return -distance_; }
  HOST_DEVICE T probability() const { return likely_ * where(is_pos_, T(1), odds_); }  // p
  HOST_DEVICE T rest() const { return likely_ * where(is_pos_, odds_, T(1)); }         // 1 - p
  // p pos + (1 - p) neg
  HOST_DEVICE T expectation(T pos, T neg) const {
    return likely_ * (where(is_pos_, pos, neg) + odds_ * where(is_pos_, neg, pos));
  }
  // p (1 - p)
  HOST_DEVICE T variance() const { return likely_ * (odds_ * likely_); }

  HOST_DEVICE Sides<T> misses() const {
    const T of_likely = log1p_unit(odds_), of_unlikely = distance_ + of_likely;
    return {where(is_pos_, of_likely, of_unlikely), where(is_pos_, of_unlikely, of_likely)};
  }
  // The sum of the misses times `parts` but for what both classes cost, added to `sum`.
  HOST_DEVICE T add_excess(T sum, const Sides<T>& parts, T weight = T(1)) const {
    return add_term(sum, weight * where(is_pos_, parts.neg, parts.pos), distance_);
  }

 private:
  decltype(T() < T()) is_pos_;
  T distance_, odds_;
  T likely_;  // the probability of the likelier class
};

template <class T>
class ProbabilityPrediction {
 public:
  HOST_DEVICE explicit ProbabilityPrediction(T p) : is_pos_(T(0.5) < p), unlikely_(where(is_pos_, T(1) - p, p)) {}

  HOST_DEVICE Sides<T> misses() const {
    const T of_likely = neg_log1m_half(unlikely_), of_unlikely = -maximum(log_unit(unlikely_), T(-100));
    return {where(is_pos_, of_likely, of_unlikely), where(is_pos_, of_unlikely, of_likely)};
  }

 private:
  decltype(T() < T()) is_pos_;
  T unlikely_;  // the probability of the less likely class, at full relative accuracy: 1 - p is exact where p > 1/2
};

// What an element has besides its prediction.
template <class T>
struct BinaryTarget {
  T value;
  T pos_weight;
  Sides<T> alphas;
};

// The smoothed t, and what it makes of the two sides.
template <class T>
class SmoothTargets {
 public:
  // Scalar is T, or the type of one of its lanes.
  template <class Scalar>
  static HOST_DEVICE SmoothTargets make(const BinaryCrossEntropyOptions& options) {
    SmoothTargets targets;
    targets.confidence_ = T(Scalar(1 - options.label_smoothing));
    targets.smoothing_ = T(Scalar(options.label_smoothing / 2));
    targets.neg_of_zero_ = T(Scalar(options.neg_weight * (1 - options.label_smoothing / 2)));
    targets.neg_slope_ = T(Scalar(options.neg_weight * (1 - options.label_smoothing)));
    return targets;
  }

  HOST_DEVICE T smooth(T t) const { return confidence_ * t + smoothing_; }
  // Its derivative in t.
  HOST_DEVICE T slope() const { return confidence_; }
  // P t and 1 - t of the smoothed t, what the misses weigh. The latter in one multiplication and addition.
  HOST_DEVICE Sides<T> parts(const BinaryTarget<T>& target) const {
    return {target.pos_weight * smooth(target.value), neg_of_zero_ - neg_slope_ * target.value};
  }

 private:
  T confidence_;               // 1 - s
  T smoothing_;                // s / 2
  T neg_of_zero_, neg_slope_;  // of its part: neg_weight (1 - s / 2), neg_weight (1 - s)
};

// alpha and 1 - alpha, or 1 and 1 where alpha is negative.
template <class T>
HOST_DEVICE Sides<T> alphas_of(T alpha) {
  const auto is_none = alpha < T(0);
  return {where(is_none, T(1), alpha), where(is_none, T(1), T(1) - alpha)};
}

// NaN is none.
template <class T>
HOST_DEVICE auto is_probability(T x) {
  return saturate(x) == x;
}

// Without kPower gamma is known to be 0, 1 or 2; with kBare to be 2, and pos_weight and neg_weight to be 1, and the
// smoothing to be 0.
template <class T, BinaryInput kInput, bool kPower = true, bool kBare = false>
class BinaryCrossEntropy {
  using Prediction =
      std::conditional_t<kInput == BinaryInput::kProbability, ProbabilityPrediction<T>, LogitPrediction<T>>;
  using Target = BinaryTarget<T>;

 public:
  static constexpr bool kProbability = kInput == BinaryInput::kProbability;
  static constexpr bool kFocal = kInput == BinaryInput::kFocalLogit;
  static constexpr bool kPowers = kFocal && kPower;
  static constexpr bool kIsBare = kBare;

  // Scalar is T, or the type of one of its lanes.
  template <class Scalar>
  static HOST_DEVICE BinaryCrossEntropy make(const BinaryCrossEntropyOptions& options) {
    BinaryCrossEntropy loss;
    loss.targets_ = SmoothTargets<T>::template make<Scalar>(options);
    loss.neg_weight_ = T(Scalar(options.neg_weight));
    loss.gamma_ = T(Scalar(options.gamma));
    loss.alphas_ = alphas_of(T(Scalar(options.alpha)));
    loss.least_lack_ = T(sizeof(Scalar) == sizeof(double) ? Scalar(DBL_MIN) : Scalar(FLT_MIN));
    for (int power = 0; power < 3; ++power) loss.focus_[power] = T(Scalar(options.gamma == power));
    loss.is_power_ = !has_whole_power(options);
    return loss;
  }

  // Those of the elements that have none of their own.
  HOST_DEVICE Sides<T> alphas() const { return alphas_; }

  HOST_DEVICE T loss(T x, const Target& target) const { return add_loss(T(0), x, target); }

  // The sum of several losses. Where all misses have the same part in it, they share a logarithm: of up to 127
  // elements, or what it is taken of may overflow.
  template <int kCount>
  HOST_DEVICE T sum(const T (&x)[kCount], const Target (&targets)[kCount]) const {
    T sum(0);
    if constexpr (kInput == BinaryInput::kLogit && kBare) {
      static_assert(kCount < 128);
      Log1pSum<T> likely_misses;
      for (int k = 0; k < kCount; ++k) {
        const Prediction prediction(x[k]);
        likely_misses.add(prediction.odds());
        sum = prediction.add_excess(sum, parts(targets[k]));
      }
      return sum + likely_misses.total();
    } else {
      for (int k = 0; k < kCount; ++k) sum = add_loss(sum, x[k], targets[k]);
      return sum;
    }
  }

  // dloss/dx
  HOST_DEVICE T in_input(T x, const Target& target) const {
    if constexpr (kProbability) {
      const T grad = (x - smooth(target)) / maximum(x * (T(1) - x), T(1e-12));
      return where(is_probability(x), grad, T(NAN));
    } else {
      const Prediction prediction(x);
      const Sides<T> part = parts(target);
      const T slope = prediction.expectation(part.neg, -part.pos);
      if constexpr (!kFocal) return slope;
      const Focused f = focus(lack(target, prediction));
      const T t = smooth(target), lack_slope = prediction.variance() * ((T(1) - t) - t);
      // In this order the power of a very small q meets what makes up for it before anything is too small.
      const T fading = add_cross_entropy(T(0), target, prediction, f.slope * lack_slope);
      return balance(target) * (f.value * slope + fading);
    }
  }

  // dloss/dt
  HOST_DEVICE T in_target(T x, const Target& target) const {
    const Prediction prediction(x);
    if constexpr (kProbability) {
      return where(is_probability(x), targets_.slope() * cross_entropy_slope(x, target, prediction), T(NAN));
    } else if constexpr (kFocal) {
      const T q = lack(target, prediction), lack_slope = prediction.expectation(T(-1), T(1));
      const T ce = add_cross_entropy(T(0), target, prediction), slope = cross_entropy_slope(x, target, prediction);
      Focused f = focus(q);
      T fading = f.slope * product(lack_slope, ce);
      if (kPower && is_power_) {
        // Where q is too small for a number, its power need not be. There q is e^-|x|, and so many parts are the cross
        // entropy.
        const Sides<T> part = parts(target);
        const auto is_far = q < least_lack_;
        f.value = where(is_far, exp(gamma_ * prediction.log_odds()), f.value);
        fading = where(is_far, gamma_ * f.value * lack_slope * prediction.expectation(part.pos, part.neg), fading);
      }
      const T of_balance = product(balance_slope(target), product(f.value, ce));
      return targets_.slope() * (of_balance + balance(target) * (fading + product(f.value, slope)));
    } else {
      return targets_.slope() * cross_entropy_slope(x, target, prediction);
    }
  }

 private:
  // q^gamma and its derivative in q
  struct Focused {
    T value, slope;
  };

  HOST_DEVICE T add_loss(T sum, T x, const Target& target) const {
    const Prediction prediction(x);
    if constexpr (kProbability) {
      const Sides<T> part = parts(target), miss = prediction.misses();
      const T all = sum + part.pos * miss.pos + part.neg * miss.neg;
      return where(is_probability(x) & is_probability(target.value), all, T(NAN));
    } else if constexpr (kFocal) {
      const T focused = balance(target) * focus(lack(target, prediction)).value;
      return add_cross_entropy(sum, target, prediction, focused);
    } else {
      return add_cross_entropy(sum, target, prediction);
    }
  }

  HOST_DEVICE T smooth(const Target& target) const { return kBare ? target.value : targets_.smooth(target.value); }

  HOST_DEVICE Sides<T> parts(const Target& target) const {
    if constexpr (kBare) return {target.value, T(1) - target.value};
    return targets_.parts(target);
  }

  // That of a logit, times `weight`.
  HOST_DEVICE T add_cross_entropy(T sum, const Target& target, const Prediction& prediction, T weight = T(1)) const {
    const Sides<T> part = parts(target);
    const T of_both = kBare ? weight : weight * (part.pos + part.neg);
    return prediction.add_excess(sum + of_both * log1p_unit(prediction.odds()), part, weight);
  }

  // The derivative of the cross entropy in the smoothed t. log(1 + e^-x) - log(1 + e^x) = -x.
  HOST_DEVICE T cross_entropy_slope(T x, const Target& target, const Prediction& prediction) const {
    if constexpr (kBare && !kProbability) return -x;
    const Sides<T> miss = prediction.misses();
    return product(target.pos_weight, miss.pos) - product(neg_weight_, miss.neg);
  }

  // q
  HOST_DEVICE T lack(const Target& target, const Prediction& prediction) const {
    const T t = smooth(target);
    return prediction.expectation(T(1) - t, t);
  }

  HOST_DEVICE T balance(const Target& target) const {
    const T t = smooth(target);
    return target.alphas.pos * t + target.alphas.neg * (T(1) - t);
  }
  static HOST_DEVICE T balance_slope(const Target& target) { return target.alphas.pos - target.alphas.neg; }

  HOST_DEVICE Focused focus(T q) const {
    if constexpr (kBare) return {q * q, T(2) * q};
    if (kPower && is_power_) {
      const T power = exp(gamma_ * log_unit(q));
      // At its bound, which keeps the quotient finite, the cross entropy leaves nothing of it.
      return {power, gamma_ * power / maximum(q, least_lack_)};
    }
    return {focus_[0] + q * (focus_[1] + q * focus_[2]), focus_[1] + T(2) * focus_[2] * q};
  }

  SmoothTargets<T> targets_;
  T neg_weight_;
  T gamma_;
  Sides<T> alphas_;
  T least_lack_;
  T focus_[3];  // the coefficients of q^gamma where gamma is 0, 1 or 2
  bool is_power_;
};

}  // namespace ce_ext
