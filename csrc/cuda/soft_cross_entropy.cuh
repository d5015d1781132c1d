// The kernels of soft cross entropy, each direction in two forms: a block for every row, whose threads share the
// classes (by class), and a thread for every row (by row).
#pragma once

#include "cuda/row_sums.cuh"
#include "cuda/soft_cross_entropy_rows.cuh"

namespace ce_ext::cuda {

// u_j of kCount classes from class c on, in place of their probabilities.
template <class A, int kCount>
__device__ __forceinline__ void weigh(const SoftCrossEntropyProblem& p, const SoftCrossEntropy<A>& loss, int64_t c,
                                      A (&q)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) q[i] = loss.mass(q[i], class_weight<A>(p, c + i));
}

// sum_j q_j log p_j over kCount classes.
template <class A, bool kLogitsChange, int kCount>
__device__ __forceinline__ A target_log_prob(const RowStats<A>& stats, const Logits<A, kLogitsChange>& logits,
                                             const A (&x)[kCount], const A (&q)[kCount]) {
  A sum(0);
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum -= product(q[i], negative_log_likelihood(stats, logits(x[i])));
  return sum;
}

// Ends a row: what is kept and what is reported of it, and its loss.
template <class S, class Form>
__device__ __forceinline__ void finish_row(const SoftCrossEntropyForward& p, const SoftCrossEntropy<opmath_t<S>>& loss,
                                           int64_t row, const RowSums<opmath_t<S>, Form>& sums,
                                           opmath_t<S> target_log_prob, opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  const SavedSoftRow<A> saved{sums.softmax.finish(), sums.softmax.weight_sum, sums.softmax.tie_weight};
  if (p.saved) static_cast<SavedSoftRow<A>*>(p.saved)[row] = saved;
  store_report(p, row, saved.stats, sums, target_log_prob);
  const A row_loss_value = product(sample_weight<A>(p, row), loss.loss(saved, sums.softmax.gap_sum));
  store_row_loss<S>(p, row, row_loss_value, row_loss);
}

template <class S, class Q, class Form>
__global__ void __launch_bounds__(kThreadsByClass, min_blocks(kThreadsByClass, kManyRegisters<S, Form>))
    soft_cross_entropy_forward_by_class(SoftCrossEntropyForward p, SoftDeviceLoss<opmath_t<S>> device_loss,
                                        opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  using Sums = RowSums<A, Form>;
  const int64_t row = blockIdx.x;
  const S* x = logits_row<S>(p, row);
  const Q* q = target_row<Q>(p, row);
  const auto logits = logits_of<Form::kLogitsChange>(device_loss.logits);
  RowSplit<S> split(x, p.classes);
  split.share(q, p.classes);
  const auto add = [&](Sums& sums, auto& values, int64_t c) {
    std::remove_reference_t<decltype(values)> masses;
    load_pack(q + c, masses);
    weigh(p, device_loss.loss, c, masses);
    sums.add(logits, values, masses, c);
  };
  const Sums sums = sum_row_by_class<Sums>(split, x, p.classes, add);
  Sum<A> log_prob;
  if constexpr (Form::kReport) {
    if (p.report) {
      const RowStats<A> stats = block_broadcast(sums.softmax.finish());
      for_each_pack<kThreadsByClass>(split, p.classes, [&](int64_t c, auto n) {
        A values[n.value], probabilities[n.value];
        load_pack(x + c, values);
        load_pack(q + c, probabilities);
        log_prob.value += target_log_prob(stats, logits, values, probabilities);
      });
      log_prob = block_reduce<kThreadsByClass>(log_prob);
    }
  }
  if (threadIdx.x == 0) finish_row<S>(p, device_loss.loss, row, sums, log_prob.value, row_loss);
}

template <class S, class Q, class Form>
__global__ void __launch_bounds__(kThreadsByRow, min_blocks(kThreadsByRow, /*many_registers=*/true))
    soft_cross_entropy_forward_by_row(SoftCrossEntropyForward p, SoftDeviceLoss<opmath_t<S>> device_loss,
                                      opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  using Sums = RowSums<A, Form>;
  const int64_t row = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (row >= p.rows) return;
  const S* x = logits_row<S>(p, row);
  const Q* q = target_row<Q>(p, row);
  const auto logits = logits_of<Form::kLogitsChange>(device_loss.logits);
  const auto add = [&](Sums& sums, auto& values, int64_t c) {
    std::remove_reference_t<decltype(values)> masses;
    load_strided(q + c * p.target_class_stride, p.target_class_stride, masses);
    weigh(p, device_loss.loss, c, masses);
    sums.add(logits, values, masses, c);
  };
  const Sums sums = sum_row_by_row<Sums>(x, p.input_class_stride, p.classes, add);
  A log_prob(0);
  if constexpr (Form::kReport) {
    if (p.report) {
      const RowStats<A> stats = sums.softmax.finish();
      for (int64_t c = 0; c < p.classes; ++c) {
        const A value[1] = {load(x + c * p.input_class_stride)};
        const A probability[1] = {load(q + c * p.target_class_stride)};
        log_prob += target_log_prob(stats, logits, value, probability);
      }
    }
  }
  finish_row<S>(p, device_loss.loss, row, sums, log_prob, row_loss);
}

// The gradients of one row, in the logits and in the targets; null where one is not wanted.
template <class S, class Q, bool kLogitsChange>
struct SoftRowGradients {
  using A = opmath_t<S>;

  const SoftCrossEntropyBackward& p;
  SoftCrossEntropy<A> loss;
  SoftCrossEntropyGradient<A, kLogitsChange> gradient;
  S* grad_x = nullptr;
  Q* grad_q = nullptr;

  __device__ SoftRowGradients(const SoftCrossEntropyBackward& p_, const SoftDeviceLoss<A>& device_loss, int64_t row)
      : p(p_), loss(device_loss.loss) {
    const auto saved = static_cast<const SavedSoftRow<A>*>(p.saved)[row];
    const auto logits = logits_of<kLogitsChange>(device_loss.logits);
    gradient = loss.gradient(saved, loss.gradient_at_max(saved), row_scale<S>(p, A(1), row), logits);
    if (p.grad_input) grad_x = static_cast<S*>(p.grad_input) + p.grad_input_rows.offset(p.row_dims, row);
    if (p.grad_target) grad_q = static_cast<Q*>(p.grad_target) + p.grad_target_rows.offset(p.row_dims, row);
  }

  // The logits and probabilities of kCount classes from class c on become their gradients.
  template <int kCount>
  __device__ __forceinline__ void at(int64_t c, A (&x)[kCount], A (&q)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const Logit<A> z = gradient.logits.with_slope(x[i]);
      const A weight = class_weight<A>(p, c + i);
      if (grad_x) x[i] = gradient.in_logit(z, loss.mass(q[i], weight));
      if (grad_q) q[i] = gradient.in_target(z, weight);
    }
  }
};

template <class S, class Q, bool kLogitsChange>
__global__ void __launch_bounds__(kThreadsByClass, min_blocks(kThreadsByClass, sizeof(S) == 8))
    soft_cross_entropy_backward_by_class(SoftCrossEntropyBackward p, SoftDeviceLoss<opmath_t<S>> loss) {
  const SoftRowGradients<S, Q, kLogitsChange> row(p, loss, blockIdx.x);
  const S* x = logits_row<S>(p, blockIdx.x);
  const Q* q = target_row<Q>(p, blockIdx.x);
  RowSplit<S> split(x, p.classes);
  split.share(q, p.classes);
  if (row.grad_x) split.share(row.grad_x, p.classes);
  if (row.grad_q) split.share(row.grad_q, p.classes);
  for_each_pack<kThreadsByClass>(split, p.classes, [&](int64_t c, auto n) {
    opmath_t<S> values[n.value], probabilities[n.value];
    load_pack(x + c, values);
    load_pack(q + c, probabilities);
    row.at(c, values, probabilities);
    if (row.grad_x) store_pack(row.grad_x + c, values);
    if (row.grad_q) store_pack(row.grad_q + c, probabilities);
  });
}

template <class S, class Q, bool kLogitsChange>
__global__ void __launch_bounds__(kThreadsByRow, min_blocks(kThreadsByRow, sizeof(S) == 8))
    soft_cross_entropy_backward_by_row(SoftCrossEntropyBackward p, SoftDeviceLoss<opmath_t<S>> loss) {
  const int64_t index = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (index >= p.rows) return;
  const SoftRowGradients<S, Q, kLogitsChange> row(p, loss, index);
  const S* x = logits_row<S>(p, index);
  const Q* q = target_row<Q>(p, index);
  for (int64_t c = 0; c < p.classes; ++c) {
    opmath_t<S> value[1] = {load(x + c * p.input_class_stride)};
    opmath_t<S> probability[1] = {load(q + c * p.target_class_stride)};
    row.at(c, value, probability);
    if (row.grad_x) store(row.grad_x + c * p.grad_input_class_stride, value[0]);
    if (row.grad_q) store(row.grad_q + c * p.grad_target_class_stride, probability[0]);
  }
}

}  // namespace ce_ext::cuda
