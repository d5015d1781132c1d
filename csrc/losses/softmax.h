// What every softmax loss needs to know about a row of logits x_0 ... x_{C-1}, gathered in one pass over the classes
// in any order and any grouping (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018), and
// without cancellation: the maximum's own e^0 = 1 stays out of the sum, so that of a confident row what little the
// other classes add is not lost.
#pragma once

#include <cstdint>

#include "losses/math.h"

namespace ce_ext {

// The finished statistics of a row: log(sum_j e^{x_j}) = max + log_sum. The two are kept apart because their
// sum would lose what tells a confident row from a certain one, and the accuracy of logits far from zero.
template <class T>
struct RowStats {
  T max;
  T log_sum;  // >= 0
};

// -log softmax(x)_y: a sum of two terms that are never negative.
template <class T>
HOST_DEVICE T negative_log_likelihood(const RowStats<T>& stats, T x_target) {
  return (stats.max - x_target) + stats.log_sum;
}

template <class T>
HOST_DEVICE T log_sum_exp(const RowStats<T>& stats) {
  return stats.max + stats.log_sum;
}

template <class T>
HOST_DEVICE T probability(const RowStats<T>& stats, T x) {
  return exp((x - stats.max) - stats.log_sum);
}

// What a row tells besides its loss.
template <class T>
struct RowReport {
  T lse;
  T entropy;
  T target_log_prob;
};

// What is summed up of classes that have weights: nothing; the gaps to the maximum, which label smoothing needs; or
// those, and the weight at the maximum apart from that below it, so that of neither the other hides a part.
enum class Gaps { kNone, kSum, kSumAndWeights };

// Classes that lie one after another and are added up in one sum. Where there are more, the sums of parts are added:
// one long sum loses accuracy, the more where its terms are alike.
constexpr int64_t kClassesPerSum = 64;

// Sums over the classes seen so far. `kEntropy` adds what the entropy needs.
template <class T, Gaps kGaps, bool kEntropy = false>
struct SoftmaxSums {
  T max = T(-INFINITY);
  T ties = T(0);         // sum of e^{x_j - max} = 1 over classes that are the maximum: one of them or more
  T exp_sum = T(0);      // sum of e^{x_j - max} over the others
  T gap_sum = T(0);      // sum of w_j (max - x_j): each term >= 0
  T weight_sum = T(0);   // sum of w_j, but for those in tie_weight
  T tie_weight = T(0);   // with kSumAndWeights, the same over classes that are the maximum: one of them or more
  T entropy_sum = T(0);  // sum of e^{x_j - max} (max - x_j)

  HOST_DEVICE void raise_max(T new_max) {
    const auto stays = new_max == max;
    if constexpr (kEntropy) {
      const T raised = entropy_sum + product(exp_sum + ties, difference(new_max, max));
      entropy_sum = where(stays, entropy_sum, raised * exp(max - new_max));
    }
    exp_sum = where(stays, exp_sum, (exp_sum + ties) * exp(max - new_max));
    ties = where(stays, ties, T(0));
    if constexpr (kGaps == Gaps::kSumAndWeights) {
      weight_sum = where(stays, weight_sum, weight_sum + tie_weight);
      tie_weight = where(stays, tie_weight, T(0));
    }
    if constexpr (kGaps != Gaps::kNone) gap_sum = gap_sum + product(weight_sum, difference(new_max, max));
    max = new_max;
  }

  // What to measure from: max, or 0 while every class is masked, so that e^{-inf - pivot} is 0 and not NaN.
  HOST_DEVICE T pivot() const { return where(max == T(-INFINITY), T(0), max); }

  // Takes in a class that is not above the maximum.
  HOST_DEVICE void add_below(T x) {
    const auto is_max = x == max;
    const T e = exp_term(x - pivot());  // NaN for an infinite maximum, which makes the row NaN
    exp_sum = add_where(!is_max, exp_sum, e);
    ties = add_where(is_max, ties, e);
    if constexpr (kEntropy) entropy_sum = entropy_sum + product(e, pivot() - x);
  }
  HOST_DEVICE void add_gap(T x, T weight) {
    gap_sum = gap_sum + product(weight, pivot() - x);
    if constexpr (kGaps == Gaps::kSumAndWeights) {
      const auto is_max = x == max;
      weight_sum = add_where(!is_max, weight_sum, weight);
      tie_weight = add_where(is_max, tie_weight, weight);
    } else {
      weight_sum = weight_sum + weight;
    }
  }

  template <int kCount>
  HOST_DEVICE void add(const T (&x)[kCount], const T (&weight)[kCount]) {
    T new_max = max;
    for (int i = 0; i < kCount; ++i) new_max = maximum(new_max, x[i]);
    if (new_max > max) raise_max(new_max);
    // Added up by themselves: a long sum of terms that are all alike would round each of them the same way.
    SoftmaxSums sums;
    sums.max = max;
    for (int i = 0; i < kCount; ++i) {
      sums.add_below(x[i]);
      if constexpr (kGaps != Gaps::kNone) sums.add_gap(x[i], weight[i]);
    }
    add_sums(sums);
  }

  HOST_DEVICE void merge(const SoftmaxSums& other) {
    SoftmaxSums raised = other;
    const T new_max = maximum(max, other.max);
    raise_max(new_max);
    raised.raise_max(new_max);
    add_sums(raised);
  }

  // Those of other classes, from the same maximum.
  HOST_DEVICE void add_sums(const SoftmaxSums& other) {
    ties = ties + other.ties;
    exp_sum = exp_sum + other.exp_sum;
    if constexpr (kGaps != Gaps::kNone) {
      gap_sum = gap_sum + other.gap_sum;
      weight_sum = weight_sum + other.weight_sum;
    }
    if constexpr (kGaps == Gaps::kSumAndWeights) tie_weight = tie_weight + other.tie_weight;
    if constexpr (kEntropy) entropy_sum = entropy_sum + other.entropy_sum;
  }

  HOST_DEVICE RowStats<T> finish() const { return {max, log1p(exp_sum + (ties - T(1)))}; }

  // -sum_j p_j log p_j = log_sum + sum_j p_j (max - x_j)
  HOST_DEVICE T entropy(const RowStats<T>& stats) const { return stats.log_sum + entropy_sum / (exp_sum + ties); }
};

// The class with the largest logit, the first of them if there are several.
template <class T>
struct ArgMax {
  T max = T(-INFINITY);
  int64_t index = 0;

  HOST_DEVICE void add(T x, int64_t i) {
    if (x > max) *this = {x, i};
  }
  HOST_DEVICE void merge(const ArgMax& other) {
    if (other.max > max || (other.max == max && other.index < index)) *this = other;
  }
};

}  // namespace ce_ext
