// The forward kernels of cross entropy, in two forms: a block for every row, whose threads share the classes (by
// class), and a thread for every row (by row).
#pragma once

#include "cuda/cross_entropy_rows.cuh"
#include "cuda/policy.cuh"
#include "cuda/row_sums.cuh"

namespace ce_ext::cuda {

template <class S, class Form>
constexpr bool kManyRegisters = sizeof(S) == 8 || Form::kReport;

// What is gathered of a row.
template <class A, class Form>
struct RowSums {
  SoftmaxSums<A, Form::kGaps, Form::kReport> softmax;
  ArgMax<A> top;  // kReport only

  // Takes in kCount logits from class c on.
  template <int kCount>
  __device__ __forceinline__ void add(const CrossEntropyProblem& p, const DeviceLoss<A>& loss, A (&x)[kCount],
                                      int64_t c) {
    const auto logits = loss.template logits<Form::kLogitsChange>();
    A weights[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      x[i] = logits(x[i]);
      weights[i] = Form::kGaps ? class_weight<A>(p, c + i) : A(1);
      if constexpr (Form::kReport) top.add(x[i], c + i);
    }
    softmax.add(x, weights);
  }

  __device__ void merge(const RowSums& other) {
    softmax.merge(other.softmax);
    if constexpr (Form::kReport) top.merge(other.top);
  }
};

template <class A, class Form>
__device__ __forceinline__ RowSums<A, Form> shuffle_down(const RowSums<A, Form>& x, int offset) {
  RowSums<A, Form> result{shuffle_down(x.softmax, offset), {}};
  if constexpr (Form::kReport) result.top = shuffle_down(x.top, offset);
  return result;
}

template <class S>
__device__ __forceinline__ void store_loss(const CrossEntropyForward& p, int64_t i, opmath_t<S> loss) {
  if (p.loss_is_opmath) {
    static_cast<opmath_t<S>*>(p.loss)[i] = loss;
  } else {
    store(static_cast<S*>(p.loss) + i, loss);
  }
}

// Ends a row: what is kept and what is reported of it, and its loss, which goes to the result for kNone and else to
// `row_loss`.
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
    const A z_target = device_loss.template logits<Form::kLogitsChange>()(load(x + target * p.input_class_stride));
    target_log_prob = -negative_log_likelihood(stats, z_target);
    loss = product(sample_weight<A>(p, row), loss_of.loss(saved, z_target, class_weight<A>(p, target)));
  }
  if (p.saved) static_cast<SavedRow<A>*>(p.saved)[row] = saved;
  if constexpr (Form::kReport) {
    if (p.report) {
      static_cast<RowReport<A>*>(p.report)[row] = {log_sum_exp(stats), sums.softmax.entropy(stats), target_log_prob};
      p.argmax[row] = sums.top.index;
    }
  }
  if (p.reduction == Reduction::kNone) {
    store_loss<S>(p, row, loss);
  } else {
    row_loss[row] = loss;
  }
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
  const auto add = [&](Sums& sums, auto& values, int64_t c) { sums.add(p, loss, values, c); };
  if (!is_wanted<Form>(p, row)) return {};  // the same for the whole block
  if constexpr (kBlock) {
    return sum_row_by_class<Sums>(x, p.classes, add);
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
