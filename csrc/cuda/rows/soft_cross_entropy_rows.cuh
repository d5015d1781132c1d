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
    for (int i = 0; i < kCount; ++i) q[i] = loss.loss.mass(q[i], class_weight<A>(p, c + i));
    sums.add(logits_of<Form::kLogitsChange>(loss.logits), x, q, c);
  }
  template <int kCount>
  __device__ __forceinline__ void operator()(RowSums<A, Form>& sums, const Pair<A> (&pairs)[kCount], int64_t c) const {
    A x[kCount], q[kCount];
    split_pairs(pairs, x, q);
    (*this)(sums, x, q, c);
  }
};

// sum_j q_j log p_j over kCount classes.
template <class A, bool kLogitsChange, int kCount>
__device__ __forceinline__ A target_log_prob(const RowStats<A>& stats, const Logits<A, kLogitsChange>& logits,
                                             const A (&x)[kCount], const A (&q)[kCount]) {
  A sum(0);
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum -= product(q[i], negative_log_likelihood(stats, logits(x[i])));
  return sum;
}

// Writes what is kept and what is reported of a row, and returns what it adds to its group. One thread calls it.
template <class S, class Form>
__device__ __forceinline__ RowTotals store_row(const SoftCrossEntropyForward& p,
                                               const SoftDeviceLoss<opmath_t<S>>& device_loss, int64_t row,
                                               const RowSums<opmath_t<S>, Form>& sums, opmath_t<S> target_log_prob) {
  using A = opmath_t<S>;
  const SavedSoftRow<A> saved{sums.softmax.finish(), sums.softmax.weight_sum, sums.softmax.tie_weight};
  if (p.saved) static_cast<SavedSoftRow<A>*>(p.saved)[row] = saved;
  store_report(p, row, saved.stats, sums, target_log_prob);
  const A weight = sample_weight<A>(p, row);
  return store_row_loss<S>(p, row, product(weight, device_loss.loss.loss(saved, sums.softmax.gap_sum)), weight);
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
template <class A, bool kLogitsChange, int kCount>
__device__ __forceinline__ void differentiate(const SoftCrossEntropyBackward& p, const SoftCrossEntropy<A>& loss,
                                              const SoftCrossEntropyGradient<A, kLogitsChange>& gradient, int64_t c,
                                              A (&x)[kCount], A (&q)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const Logit<A> z = gradient.logits.with_slope(x[i]);
    const A weight = class_weight<A>(p, c + i);
    if (p.grad_input) x[i] = gradient.in_logit(z, loss.mass(q[i], weight));
    if (p.grad_target) q[i] = gradient.in_target(z, weight);
  }
}

}  // namespace ce_ext::cuda
