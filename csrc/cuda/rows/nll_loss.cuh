// The kernels of nll_loss, which reads one number a row, and whose gradient has one.
#pragma once

#include "cuda/rows/cross_entropy_rows.cuh"

namespace ce_ext::cuda {

template <class S>
__device__ __forceinline__ RowTarget<opmath_t<S>> load_target(const CrossEntropyProblem& p, int64_t row) {
  const S* x = logits_row<S>(p, row);
  return load_target<opmath_t<S>>(p, row, [&](int64_t c) { return load(x + c * p.input_class_stride); });
}

template <class S>
__global__ void __launch_bounds__(kThreadsByRow)
    nll_forward(CrossEntropyForward p, Shares shares, RowTotals* of_shares, BadTarget* bad_target) {
  using A = opmath_t<S>;
  RowTotals totals;
  for (int64_t row = shares.begin(blockIdx.x) + threadIdx.x; row < shares.end(blockIdx.x); row += kThreadsByRow) {
    const RowTarget<A> target = load_target<S>(p, row);
    report_if_bad(p, bad_target, row, target);
    A loss = target.kind == TargetKind::kIgnored ? A(0) : A(NAN);
    if (target.kind == TargetKind::kClass) {
      loss = product(sample_weight<A>(p, row), nll_loss(target.x, target.weight));
    }
    totals.merge(store_row_loss<S>(p, row, loss, row_weight(p, row, target)));
  }
  finish_share<S>(p, shares, blockIdx.x, totals, of_shares);
}

// Into a gradient of zeros.
template <class S>
__global__ void __launch_bounds__(kThreadsByRow) nll_backward(CrossEntropyBackward p, BadTarget* bad_target) {
  using A = opmath_t<S>;
  const int64_t row = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (row >= p.rows) return;
  const int64_t target = p.target[row];
  const TargetKind kind = kind_of(p, target);
  S* grad_x = grad_row<S>(p, row);
  if (kind == TargetKind::kClass) {
    store(grad_x + target * p.grad_input_class_stride,
          nll_gradient(class_weight<A>(p, target), row_scale<S>(p, A(1), row)));
  } else if (kind == TargetKind::kOutOfBounds) {
    report_bad_target(bad_target, row, target, p.classes);
    for (int64_t c = 0; c < p.classes; ++c) store(grad_x + c * p.grad_input_class_stride, A(NAN));
  }
}

}  // namespace ce_ext::cuda
