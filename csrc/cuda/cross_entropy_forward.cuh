// The forward kernels of cross entropy, in two forms: a block for every row, whose threads share the classes (by
// class), and a thread for every row (by row).
#pragma once

#include "cuda/cross_entropy_rows.cuh"
#include "cuda/policy.cuh"
#include "cuda/row_sums.cuh"

namespace ce_ext::cuda {

// The weights of kCount classes from class c on, or ones where they do not matter.
template <bool kMatter, class A, int kCount>
__device__ __forceinline__ void class_weights(const CrossEntropyProblem& p, int64_t c, A (&weights)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) weights[i] = kMatter ? class_weight<A>(p, c + i) : A(1);
}

// Ends a row: what is kept and what is reported of it, and its loss.
template <class S, class Form>
__device__ __forceinline__ SavedRow<opmath_t<S>> finish_row(const CrossEntropyForward& p,
                                                            const DeviceLoss<opmath_t<S>>& device_loss, int64_t row,
                                                            const S* x, const RowSums<opmath_t<S>, Form>& sums,
                                                            opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  const CrossEntropy<A> loss_of = device_loss.get();
  const int64_t target = p.target[row];
  const TargetKind kind = kind_of(p, target);
  const RowStats<A> stats = p.input_is_log_prob ? RowStats<A>{A(0), A(0)} : sums.softmax.finish();
  const SavedRow<A> saved = loss_of.save(stats, sums.softmax.gap_sum);
  A loss = kind == TargetKind::kIgnored ? A(0) : A(NAN);
  A target_log_prob = loss;
  if (kind == TargetKind::kClass) {
    const A z_target = logits_of<Form::kLogitsChange>(device_loss.logits)(load(x + target * p.input_class_stride));
    target_log_prob = -negative_log_likelihood(stats, z_target);
    loss = product(sample_weight<A>(p, row), loss_of.loss(saved, z_target, class_weight<A>(p, target)));
  }
  if (p.saved) static_cast<SavedRow<A>*>(p.saved)[row] = saved;
  store_report(p, row, stats, sums, target_log_prob);
  store_row_loss<S>(p, row, loss, row_loss);
  return saved;
}

// Whether the logits of a row have to be read.
template <class Form>
__device__ __forceinline__ bool is_wanted(const CrossEntropyProblem& p, int64_t row) {
  return !p.input_is_log_prob && (Form::kReport || kind_of(p, p.target[row]) == TargetKind::kClass);
}

// The sums of a row, by one block (kBlock) or by one thread.
template <bool kBlock, class S, class Form>
__device__ __forceinline__ RowSums<opmath_t<S>, Form> sum_row(const CrossEntropyProblem& p,
                                                              const DeviceLoss<opmath_t<S>>& loss, int64_t row,
                                                              const S* x) {
  using Sums = RowSums<opmath_t<S>, Form>;
  const auto logits = logits_of<Form::kLogitsChange>(loss.logits);
  const auto add = [&](Sums& sums, auto& values, int64_t c) {
    std::remove_reference_t<decltype(values)> weights;
    class_weights<Form::kGaps != Gaps::kNone>(p, c, weights);
    sums.add(logits, values, weights, c);
  };
  if (!is_wanted<Form>(p, row)) return {};  // the same for the whole block
  if constexpr (kBlock) {
    return sum_row_by_class<Sums>(RowSplit<S>(x, p.classes), x, p.classes, add);
  } else {
    return sum_row_by_row<Sums>(x, p.input_class_stride, p.classes, add);
  }
}

template <class S, class Form>
__global__ void __launch_bounds__(kThreadsByClass, min_blocks(kThreadsByClass, kManyRegisters<S, Form>))
    cross_entropy_forward_by_class(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss, opmath_t<S>* row_loss) {
  const int64_t row = blockIdx.x;
  const S* x = logits_row<S>(p, row);
  const auto sums = sum_row<true, S, Form>(p, loss, row, x);
  if (threadIdx.x == 0) finish_row(p, loss, row, x, sums, row_loss);
}

template <class S, class Form>
__global__ void __launch_bounds__(kThreadsByRow, min_blocks(kThreadsByRow, kManyRegisters<S, Form>))
    cross_entropy_forward_by_row(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss, opmath_t<S>* row_loss) {
  const int64_t row = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (row >= p.rows) return;
  const S* x = logits_row<S>(p, row);
  finish_row(p, loss, row, x, sum_row<false, S, Form>(p, loss, row, x), row_loss);
}

}  // namespace ce_ext::cuda
