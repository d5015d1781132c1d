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
// Label smoothing s takes (1 - s) t + s/2 for t.
#pragma once

#include <cfloat>
#include <type_traits>

#include "losses/math.h"

namespace ce_ext {

enum class BinaryInput { kProbability, kLogit, kFocalLogit };

struct BinaryCrossEntropyOptions {
  BinaryInput input = BinaryInput::kLogit;
  double label_smoothing = 0;
  double gamma = 0;
  double alpha = -1;      // negative: balance is 1
  double neg_weight = 1;  // of miss_neg: with 0, and P = 1, the loss is its derivative in P
};

HOST_DEVICE bool has_whole_power(const BinaryCrossEntropyOptions& options) {
  return options.gamma == 0 || options.gamma == 1 || options.gamma == 2;
}

// A value for each of the two classes.
template <class T>
struct Sides {
  T pos, neg;
};

// A prediction as probabilities of the classes, and as what they would cost, none of them a difference of others.
template <class T>
class LogitPrediction {
 public:
  HOST_DEVICE explicit LogitPrediction(T x) : x_(x), distance_(abs(x)), e_(exp(-distance_)) {}

  HOST_DEVICE Sides<T> probabilities() const {
    const T likely = reciprocal(T(1) + e_);
    return sides(likely, e_ * likely);
  }
  HOST_DEVICE Sides<T> misses() const {
    const T miss = log1p_unit(e_);
    return sides(miss, distance_ + miss);
  }
  // The sum of the misses times these: the sum of both times log(1 + e^-|x|), and what is paid for the distance.
  HOST_DEVICE T cross_entropy(T pos_part, T neg_part) const {
    return (pos_part + neg_part) * log1p_unit(e_) + of_distance(pos_part, neg_part);
  }
  HOST_DEVICE T of_distance(T pos_part, T neg_part) const {
    return product(where(T(0) < x_, neg_part, pos_part), distance_);
  }
  // s, if it was that before, with 1 + s = prod_i (1 + e^-|x_i|): no term is negative, and where all are small no digit
  // is lost.
  HOST_DEVICE T multiply(T s) const { return (s * e_ + s) + e_; }

 private:
  HOST_DEVICE Sides<T> sides(T of_likely, T of_unlikely) const {
    const auto is_pos = T(0) < x_;
    return {where(is_pos, of_likely, of_unlikely), where(is_pos, of_unlikely, of_likely)};
  }

  T x_, distance_;
  T e_;  // e^-|x|
};

template <class T>
struct ProbabilityPrediction {
  T p;

  HOST_DEVICE Sides<T> misses() const { return {-maximum(log_unit(p), T(-100)), -maximum(log1m_unit(p), T(-100))}; }
  HOST_DEVICE T cross_entropy(T pos_part, T neg_part) const {
    const Sides<T> miss = misses();
    return pos_part * miss.pos + neg_part * miss.neg;
  }
};

// What an element has besides its prediction.
template <class T>
struct BinaryTarget {
  T value;
  T pos_weight;
  T alpha;
};

// NaN is none.
template <class T>
HOST_DEVICE auto is_probability(T x) {
  return minimum(maximum(x, T(0)), T(1)) == x;
}

// Without kPower gamma is known to be 0, 1 or 2.
template <class T, BinaryInput kInput, bool kPower = true>
class BinaryCrossEntropy {
  static constexpr bool kProbability = kInput == BinaryInput::kProbability;
  using Prediction = std::conditional_t<kProbability, ProbabilityPrediction<T>, LogitPrediction<T>>;
  using Target = BinaryTarget<T>;

 public:
  static constexpr bool kFocal = kInput == BinaryInput::kFocalLogit;
  static constexpr bool kHasSum = kInput == BinaryInput::kLogit;

  // Scalar is T, or the type of one of its lanes.
  template <class Scalar>
  static HOST_DEVICE BinaryCrossEntropy make(const BinaryCrossEntropyOptions& options) {
    BinaryCrossEntropy loss;
    loss.confidence_ = T(Scalar(1 - options.label_smoothing));
    loss.smoothing_ = T(Scalar(options.label_smoothing / 2));
    loss.neg_weight_ = T(Scalar(options.neg_weight));
    loss.neg_of_zero_ = T(Scalar(options.neg_weight * (1 - options.label_smoothing / 2)));
    loss.neg_slope_ = T(Scalar(options.neg_weight * (1 - options.label_smoothing)));
    loss.gamma_ = T(Scalar(options.gamma));
    loss.alpha_ = T(Scalar(options.alpha));
    loss.least_lack_ = T(sizeof(Scalar) == sizeof(double) ? Scalar(DBL_MIN) : Scalar(FLT_MIN));
    for (int power = 0; power < 3; ++power) loss.focus_[power] = T(Scalar(options.gamma == power));
    loss.is_power_ = !has_whole_power(options);
    return loss;
  }

  // Of the elements that have none of their own.
  HOST_DEVICE T alpha() const { return alpha_; }

  HOST_DEVICE T loss(T x, const Target& target) const {
    const Prediction prediction{x};
    if constexpr (kProbability) {
      return where(is_probability(x), cross_entropy(target, prediction), T(NAN));
    } else if constexpr (kFocal) {
      return cross_entropy(target, prediction, balance(target) * focus(lack(target, prediction.probabilities())).value);
    } else {
      return cross_entropy(target, prediction);
    }
  }

  // Whether losses may be added up by `sum`.
  HOST_DEVICE bool shares_logarithm(T pos_weight) const { return kHasSum && pos_weight == T(1) && neg_weight_ == T(1); }

  // The sum of the losses of a few elements, with one logarithm, as their parts add up to 1: sum_i log(1 + e_i) is the
  // logarithm of a product.
  template <int kCount>
  HOST_DEVICE T sum(const T (&x)[kCount], const Target (&targets)[kCount]) const {
    T distances(0), s(0);
    for (int i = 0; i < kCount; ++i) {
      const LogitPrediction<T> prediction(x[i]);
      distances = distances + prediction.of_distance(pos_part(targets[i]), neg_part(targets[i]));
      s = prediction.multiply(s);
    }
    return distances + log1p(s);
  }

  // dloss/dx
  HOST_DEVICE T in_input(T x, const Target& target) const {
    if constexpr (kProbability) {
      const T grad = (x - smooth(target)) / maximum(x * (T(1) - x), T(1e-12));
      return where(is_probability(x), grad, T(NAN));
    } else {
      const Prediction prediction{x};
      const Sides<T> p = prediction.probabilities();
      const T slope = neg_part(target) * p.pos - pos_part(target) * p.neg;
      if constexpr (!kFocal) return slope;
      const Focused f = focus(lack(target, p));
      const T lack_slope = p.pos * p.neg * (T(1) - T(2) * smooth(target));
      const T fading = f.slope * cross_entropy(target, prediction, lack_slope);
      return balance(target) * (f.value * slope + fading);
    }
  }

  // dloss/dt
  HOST_DEVICE T in_target(T x, const Target& target) const {
    const Prediction prediction{x};
    const Sides<T> miss = prediction.misses();
    const T slope = product(target.pos_weight, miss.pos) - product(neg_weight_, miss.neg);
    if constexpr (kProbability) {
      return where(is_probability(x), confidence_ * slope, T(NAN));
    } else if constexpr (kFocal) {
      const Sides<T> p = prediction.probabilities();
      const Focused f = focus(lack(target, p));
      const T ce = cross_entropy(target, prediction);
      const T fading = f.slope * product(p.neg - p.pos, ce) + product(f.value, slope);
      return confidence_ * (balance_slope(target) * product(f.value, ce) + balance(target) * fading);
    } else {
      return confidence_ * slope;
    }
  }

 private:
  // q^gamma and its derivative in q
  struct Focused {
    T value, slope;
  };

  HOST_DEVICE T smooth(const Target& target) const { return confidence_ * target.value + smoothing_; }

  // P t and 1 - t of the smoothed t, the latter in one multiplication and addition.
  HOST_DEVICE T pos_part(const Target& target) const { return target.pos_weight * smooth(target); }
  HOST_DEVICE T neg_part(const Target& target) const { return neg_of_zero_ - neg_slope_ * target.value; }

  HOST_DEVICE T cross_entropy(const Target& target, const Prediction& prediction, T weight = T(1)) const {
    return prediction.cross_entropy(weight * pos_part(target), weight * neg_part(target));
  }

  // q
  HOST_DEVICE T lack(const Target& target, const Sides<T>& p) const {
    const T t = smooth(target);
    return p.pos * (T(1) - t) + p.neg * t;
  }

  HOST_DEVICE T balance(const Target& target) const {
    const auto is_none = target.alpha < T(0);
    const T of_pos = where(is_none, T(1), target.alpha), of_neg = where(is_none, T(1), T(1) - target.alpha);
    const T t = smooth(target);
    return of_pos * t + of_neg * (T(1) - t);
  }
  static HOST_DEVICE T balance_slope(const Target& target) {
    return where(target.alpha < T(0), T(0), T(2) * target.alpha - T(1));
  }

  HOST_DEVICE Focused focus(T q) const {
    if (kPower && is_power_) {
      const T power = exp(gamma_ * log_unit(q));
      // At its bound, which keeps the quotient finite, the cross entropy leaves nothing of it.
      return {power, gamma_ * power / maximum(q, least_lack_)};
    }
    return {focus_[0] + q * (focus_[1] + q * focus_[2]), focus_[1] + T(2) * focus_[2] * q};
  }

  T confidence_;  // 1 - s
  T smoothing_;   // s / 2
  T neg_weight_;
  T neg_of_zero_, neg_slope_;  // of its part: neg_weight (1 - s / 2), neg_weight (1 - s)
  T gamma_;
  T alpha_;
  T least_lack_;
  T focus_[3];  // the coefficients of q^gamma where gamma is 0, 1 or 2
  bool is_power_;
};

}  // namespace ce_ext
