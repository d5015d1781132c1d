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
  return exp_difference(x - stats.max, stats.log_sum);
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

// A match of a class against the largest of those before it. The winner stays the champion, and the other one is
// returned, NaN where there is one. In the end one instance of the maximum has never been returned, and every other
// class has, ties of the maximum, too: no class is compared with the maximum to find that out.
template <class T>
HOST_DEVICE T match(T& champion, T x) {
  const T loser = lesser(x, champion);
  champion = maximum(champion, x);
  return loser;
}

// All classes play in pairs until the champion comes first, and the losers are behind it. W may hold several classes,
// each of which then has a tournament of its own.
template <class W, int kCount>
HOST_DEVICE void hold_tournament(W (&x)[kCount]) {
  UNROLL
  for (int step = 1; step < kCount; step *= 2) {
    UNROLL
    for (int i = 0; i + step < kCount; i += 2 * step) x[i + step] = match(x[i], x[i + step]);
  }
}

// Sums over the classes seen so far. `kEntropy` adds what the entropy needs.
template <class T, Gaps kGaps, bool kEntropy = false>
struct SoftmaxSums {
  T max = T(-INFINITY);
  T exp_sum = T(0);      // sum of e^{x_j - max} over all classes but one that is the maximum
  T gap_sum = T(0);      // sum of w_j (max - x_j): each term >= 0
  T weight_sum = T(0);   // sum of w_j, but for those in tie_weight
  T tie_weight = T(0);   // with kSumAndWeights, the same over classes that are the maximum: one of them or more
  T entropy_sum = T(0);  // sum of e^{x_j - max} (max - x_j)

  // Measures from a maximum that may be larger. The old one is counted `times`: not at all where it has yet to lose its
  // match, or is the new one; once where it has lost.
  HOST_DEVICE void measure_from(T new_max, T times) {
    const T rise = difference(new_max, max);
    const T factor = exp_term(-rise);
    const T terms = exp_sum + times;
    if constexpr (kEntropy) entropy_sum = entropy_sum * factor + terms * term(factor, rise);
    exp_sum = terms * factor;
    if constexpr (kGaps == Gaps::kSumAndWeights) {
      const auto stays = new_max == max;
      weight_sum = where(stays, weight_sum, weight_sum + tie_weight);
      tie_weight = where(stays, tie_weight, T(0));
    }
    if constexpr (kGaps != Gaps::kNone) gap_sum = gap_sum + term(weight_sum, rise);
    max = new_max;
  }

  // Measures from the maximum of several sums, which are to be added up. Of those whose own it is, one leaves it out.
  HOST_DEVICE void raise_max(T of_all) { measure_from(of_all, where(max == of_all, T(0), T(1))); }

  // What to measure from: max, or 0 while every class is masked, so that e^{-inf - pivot} is 0 and not NaN.
  HOST_DEVICE T pivot() const { return where(max == T(-INFINITY), T(0), max); }

  // Takes in a class that has lost against the maximum, or against one that will.
  HOST_DEVICE void add_loser(T x) {
    const T e = exp_term(x - pivot());
    exp_sum = exp_sum + e;
    if constexpr (kEntropy) entropy_sum = entropy_sum + term(e, pivot() - x);
  }
  HOST_DEVICE void add_gap(T x, T weight) {
    gap_sum = gap_sum + term(weight, pivot() - x);
    if constexpr (kGaps == Gaps::kSumAndWeights) {
      const auto is_max = x == max;
      weight_sum = add_where(!is_max, weight_sum, weight);
      tie_weight = add_where(is_max, tie_weight, weight);
    } else {
      weight_sum = weight_sum + weight;
    }
  }

  // Takes in classes, the first kChampions of which are above the others.
  template <int kChampions, int kCount>
  HOST_DEVICE void add_fought(T (&x)[kCount]) {
    T champion = max;
    UNROLL
    for (int i = 0; i < kChampions; ++i) x[i] = match(champion, x[i]);
    measure_from(champion, T(0));
    // Added up by themselves: a long sum of terms that are all alike would round each of them the same way.
    SoftmaxSums sums[2];
    UNROLL
    for (int i = 0; i < kCount; ++i) {
      sums[i % 2].max = champion;
      sums[i % 2].add_loser(x[i]);
    }
    UNROLL
    for (int i = 0; i < 2; ++i) add_sums(sums[i]);
  }

  template <int kCount>
  HOST_DEVICE void add(const T (&x)[kCount], const T (&weight)[kCount]) {
    T losers[kCount];
    UNROLL
    for (int i = 0; i < kCount; ++i) losers[i] = x[i];
    hold_tournament(losers);
    add_fought<1>(losers);
    if constexpr (kGaps != Gaps::kNone) {
      SoftmaxSums gaps;
      gaps.max = max;
      UNROLL
      for (int i = 0; i < kCount; ++i) gaps.add_gap(x[i], weight[i]);
      add_sums(gaps);
    }
  }

  HOST_DEVICE void merge(const SoftmaxSums& other) {
    SoftmaxSums raised = other;
    const T of_both = maximum(max, other.max);
    const T ties = where(max == other.max, T(1), T(0));
    raise_max(of_both);
    raised.raise_max(of_both);
    add_sums(raised);
    exp_sum = exp_sum + ties;
  }

  // Those of other classes, from the same maximum.
  HOST_DEVICE void add_sums(const SoftmaxSums& other) {
    exp_sum = exp_sum + other.exp_sum;
    if constexpr (kGaps != Gaps::kNone) {
      gap_sum = gap_sum + other.gap_sum;
      weight_sum = weight_sum + other.weight_sum;
    }
    if constexpr (kGaps == Gaps::kSumAndWeights) tie_weight = tie_weight + other.tie_weight;
    if constexpr (kEntropy) entropy_sum = entropy_sum + other.entropy_sum;
  }

  // Of classes that are all masked, both are -inf; NaN among them, of which a maximum does not tell, is in the sum. An
  // infinite maximum makes the row NaN.
  HOST_DEVICE RowStats<T> finish() const {
    return {max, where(max == T(-INFINITY), max + exp_sum, log1p(exp_sum) + (max - max))};
  }

  // -sum_j p_j log p_j = log_sum + sum_j p_j (max - x_j)
  HOST_DEVICE T entropy(const RowStats<T>& stats) const {
    return (max - max) + stats.log_sum + entropy_sum / (exp_sum + T(1));
  }
};

// The class with the largest logit, the first of them if there are several.
template <class T>
struct ArgMax {
  T max = T(-INFINITY);
  int64_t index = 0;

  HOST_DEVICE void add(T x, int64_t i) {  // in ascending order
    if (x > max) *this = {x, i};
  }
  HOST_DEVICE void merge(const ArgMax& other) {
    if (other.max > max || (other.max == max && other.index < index)) *this = other;
  }
};

}  // namespace ce_ext
