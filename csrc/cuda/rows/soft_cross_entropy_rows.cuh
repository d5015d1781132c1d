// What the CUDA kernels of soft cross entropy do with a row, however its logits and probabilities are read.
#pragma once

#include "cuda/rows/row_sums.cuh"
#include "cuda/rows/softmax_loss_rows.cuh"
#include "cuda/rows/thread_rows.cuh"
#include "host/soft_cross_entropy_problem.h"

namespace ce_ext::cuda {

// The loss with its constants, made on the host.
template <class A>
struct SoftDeviceLoss {
  SoftCrossEntropy<A> loss;
  Logits<A, true> logits;

  explicit SoftDeviceLoss(const SoftCrossEntropyProblem& p)
      : loss(SoftCrossEntropy<A>::template make<A>(p.options, p.classes)), logits(p.options.logits) {}
};

template <class Q>
__device__ __forceinline__ const Q* target_row(const SoftCrossEntropyProblem& p, int64_t row) {
  return static_cast<const Q*>(p.target) + p.target_rows.offset(p.row_dims, row);
}

// Where a row of a gradient starts, or null if the gradient is not wanted.
template <class S>
__device__ __forceinline__ S* grad_row(const SoftCrossEntropyBackward& p, void* grad, const RowStrides& rows,
                                       int64_t row) {
  return grad ? static_cast<S*>(grad) + rows.offset(p.row_dims, row) : nullptr;
}

// Takes logits, and the probabilities q_j of their classes as u_j, into the sums of their row.
template <class A, class Form>
struct AddClasses {
  const SoftCrossEntropyProblem& p;
  const SoftDeviceLoss<A>& loss;

  template <int kCount>
  __device__ __forceinline__ void operator()(RowSums<A, Form>& sums, A (&x)[kCount], A (&q)[kCount], int64_t c) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (Form::kGaps != Gaps::kNone) q[i] = loss.loss.mass(q[i], class_weight<A>(p, c + i));
    }
    sums.add(logits_of<Form::kLogitsChange>(loss.logits), x, q, c);
  }
  template <int kCount>
  __device__ __forceinline__ void operator()(RowSums<A, Form>& sums, const Pair<A> (&pairs)[kCount], int64_t c) const {
    A x[kCount], q[kCount];
    split_pairs(pairs, x, q);
    (*this)(sums, x, q, c);
  }
};

// What a second pass adds up of a row whose softmax is known: what is reported, sum_j q_j log p_j; and the focal loss.
struct NoSums {};
template <class A, class Form>
struct SecondSums : std::conditional_t<kIsFocal<Form>, FocalSums<A>, NoSums> {
  A target_log_prob = A(0);

  // Whether there is one.
  static __device__ __forceinline__ bool needed(const SoftCrossEntropyForward& p) {
    return kIsFocal<Form> || (Form::kReport && p.report);
  }

  // Takes in kCount classes from class c on.
  template <int kCount>
  __device__ __forceinline__ void add(const SoftCrossEntropyProblem& p, const SoftDeviceLoss<A>& loss,
                                      const RowStats<A>& stats, const A (&x)[kCount], const A (&q)[kCount], int64_t c) {
    const auto logits = logits_of<Form::kLogitsChange>(loss.logits);
    A sum(0);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const A z = logits(x[i]);
      sum -= product(q[i], negative_log_likelihood(stats, z));
      if constexpr (kIsFocal<Form>) {
        FocalSums<A>::add(loss.loss, stats, z, loss.loss.mass(q[i], class_weight<A>(p, c + i)));
      }
    }
    target_log_prob += sum;
  }

  __device__ void merge(const SecondSums& other) {
    target_log_prob += other.target_log_prob;
    if constexpr (kIsFocal<Form>) FocalSums<A>::merge(other);
  }
};

template <class A, class Form, class F>
__device__ __forceinline__ SecondSums<A, Form> transform(const SecondSums<A, Form>& x, const F& f) {
  SecondSums<A, Form> result;
  result.target_log_prob = f(x.target_log_prob);
  if constexpr (kIsFocal<Form>) {
    result.loss = f(x.loss);
    result.mass_below = f(x.mass_below);
    result.mass_at_max = f(x.mass_at_max);
  }
  return result;
}

// Writes what is kept and what is reported of a row, and returns what it adds to its group. One thread calls it.
template <class S, class Form>
__device__ __forceinline__ RowTotals store_row(const SoftCrossEntropyForward& p,
                                               const SoftDeviceLoss<opmath_t<S>>& device_loss, int64_t row,
                                               const RowSums<opmath_t<S>, Form>& sums,
                                               const SecondSums<opmath_t<S>, Form>& second) {
  using A = opmath_t<S>;
  SavedSoftRow<A> saved{sums.softmax.finish(), sums.softmax.weight_sum, sums.softmax.tie_weight};
  A loss;
  if constexpr (kIsFocal<Form>) {
    saved = {saved.stats, second.mass_below, second.mass_at_max};
    loss = device_loss.loss.with_z_loss(saved.stats, second.loss);
  } else {
    loss = device_loss.loss.loss(saved, sums.softmax.gap_sum);
  }
  if (p.saved) static_cast<SavedSoftRow<A>*>(p.saved)[row] = saved;
  store_report(p, row, saved.stats, sums, second.target_log_prob);
  const A weight = sample_weight<A>(p, row);
  return store_row_loss<S>(p, row, product(weight, loss), weight);
}

// What the gradients of a row have in common.
template <class S, bool kLogitsChange>
__device__ __forceinline__ SoftCrossEntropyGradient<opmath_t<S>, kLogitsChange> row_gradient(
    const SoftCrossEntropyBackward& p, const SoftDeviceLoss<opmath_t<S>>& device_loss, int64_t row) {
  using A = opmath_t<S>;
  const SoftCrossEntropy<A>& loss = device_loss.loss;
  const auto saved = static_cast<const SavedSoftRow<A>*>(p.saved)[row];
  const auto logits = logits_of<kLogitsChange>(device_loss.logits);
  return loss.gradient(saved, loss.gradient_at_max(saved), row_scale<S>(p, A(1), row), logits);
}

// The logits and probabilities of kCount classes from class c on become their gradients, where those are wanted.
template <bool kFocal, class A, bool kLogitsChange, int kCount>
__device__ __forceinline__ void differentiate(const SoftCrossEntropyBackward& p, const SoftCrossEntropy<A>& loss,
                                              const SoftCrossEntropyGradient<A, kLogitsChange>& gradient, int64_t c,
                                              A (&x)[kCount], A (&q)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const Logit<A> z = gradient.logits.with_slope(x[i]);
    const A nll = negative_log_likelihood(gradient.stats, z.value);
    const A weight = class_weight<A>(p, c + i);
    if (p.grad_input) x[i] = gradient.in_logit(z, loss.template pull_of<kFocal>(loss.mass(q[i], weight), nll));
    if (p.grad_target) q[i] = gradient.in_target(weight, loss.template cost<kFocal>(nll));
  }
}

}  // namespace ce_ext::cuda
