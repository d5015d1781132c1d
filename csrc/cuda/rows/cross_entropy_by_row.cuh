// The kernels of cross entropy whose threads have rows of their own: several neighbours whose classes lie apart, as
// pixels of images do.
#pragma once

#include "cuda/rows/cross_entropy_rows.cuh"
#include "cuda/rows/thread_rows.cuh"

namespace ce_ext::cuda {

// The loss of a thread's rows, of which `row` is the first; returns what they add to their group.
template <class S, class Form, int kRows, class Rows>
__device__ __forceinline__ RowTotals rows_forward(const CrossEntropyForward& p, const DeviceLoss<opmath_t<S>>& loss,
                                                  int64_t row, const Rows& x, RowTarget<opmath_t<S>> (&targets)[kRows],
                                                  SavedRow<opmath_t<S>> (&saved)[kRows]) {
  using A = opmath_t<S>;
  RowSums<A, Form> sums[kRows];
  bool wanted = false;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    targets[r] = load_target<A>(p, row + r, [&](int64_t c) { return x.at(r, c); });
    wanted |= is_wanted<Form>(targets[r]);
  }
  if (wanted) {
    const AddLogits<S, Form> add(p, loss);
    if constexpr (kIsPlain<Form>) {
      sum_planes(x, p.classes, sums, add);
    } else {
      sum_rows<A>(x, p.classes, sums, add);
    }
  }
  RowTotals totals;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const FinishedRow<A> finished = finish_row<S>(p, loss, row + r, targets[r], sums[r]);
    totals.merge(store_row<S>(p, loss, row + r, targets[r], finished, sums[r]));
    saved[r] = finished.saved;
  }
  return totals;
}

// Their gradients, which may lie over the logits. Those of the targets overwrite what they get as other classes.
template <class S, class Form, int kRows, class Rows, class Grads>
__device__ __forceinline__ void rows_backward(const CrossEntropyBackward& p, const DeviceLoss<opmath_t<S>>& loss,
                                              int64_t row, const Rows& x, const Grads& grad_x,
                                              const RowTarget<opmath_t<S>> (&targets)[kRows],
                                              const SavedRow<opmath_t<S>> (&saved)[kRows]) {
  using A = opmath_t<S>;
  RowGradient<A, Form> gradients[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) gradients[r] = row_gradient<S, Form>(p, loss, row + r, targets[r], saved[r]);
  for_each_class<A, kRows>(x, p.classes, [&](int64_t c, A(&values)[kRows]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      A value[1] = {gradients[r].reads_logits() ? values[r] : A(0)};
      gradients[r].apply(c, value);
      values[r] = value[0];
    }
    grad_x.store(c, values);
  });
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (gradients[r].reads_logits()) grad_x.store_at(r, targets[r].index, gradients[r].at_target(targets[r].x));
  }
}

template <class S, class Form, int kRows, class Rows, class Grads>
__device__ __forceinline__ void rows_backward(const CrossEntropyBackward& p, const DeviceLoss<opmath_t<S>>& loss,
                                              int64_t row, const Rows& x, const Grads& grad_x) {
  RowTarget<opmath_t<S>> targets[kRows];
  SavedRow<opmath_t<S>> saved[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    targets[r] = load_target<opmath_t<S>>(p, row + r, [&](int64_t c) { return x.at(r, c); });
    report_if_bad(p, loss.bad_target, row + r, targets[r]);
    saved[r] = saved_row<S>(p, row + r);
  }
  rows_backward<S, Form>(p, loss, row, x, grad_x, targets, saved);
}

template <class S, class Form, int kRows, class Rows, class Grads>
__device__ __forceinline__ RowTotals rows_with_grad(const CrossEntropyWithGrad& p, const DeviceLoss<opmath_t<S>>& loss,
                                                    int64_t row, const Rows& x, const Grads& grad_x) {
  RowTarget<opmath_t<S>> targets[kRows];
  SavedRow<opmath_t<S>> saved[kRows];
  const RowTotals totals = rows_forward<S, Form>(p.forward, loss, row, x, targets, saved);
  rows_backward<S, Form>(p.backward, loss, row, x, grad_x, targets, saved);
  return totals;
}

// kRows neighbours a thread.
template <class S, class Form, int kRows>
__global__ void __launch_bounds__(kThreadsByRow,
                                  resident_blocks(kThreadsByRow, kRows > 1 ? 128 : kRowRegisters<S, Form>))
    cross_entropy_forward_by_row(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss, Shares shares,
                                 RowTotals* of_shares) {
  using A = opmath_t<S>;
  RowTotals totals;
  const int64_t end = shares.end(blockIdx.x);
  for (int64_t row = shares.begin(blockIdx.x) + threadIdx.x * kRows; row < end; row += kThreadsByRow * kRows) {
    RowTarget<A> targets[kRows];
    SavedRow<A> saved[kRows];
    const StridedRows<const S, kRows> x{logits_row<S>(p, row), p.input_class_stride};
    totals.merge(rows_forward<S, Form>(p, loss, row, x, targets, saved));
  }
  finish_share<S>(p, shares, blockIdx.x, totals, of_shares);
}

template <class S, class Form, int kRows>
__global__ void __launch_bounds__(kThreadsByRow, resident_blocks(kThreadsByRow, sizeof(S) == 8 || kRows > 1 ? 128 : 64))
    cross_entropy_backward_by_row(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> loss) {
  const int64_t row = (int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x) * kRows;
  if (row >= p.rows) return;
  const StridedRows<const S, kRows> x{logits_row<S>(p, row), p.input_class_stride};
  const StridedRows<S, kRows> grad_x{grad_row<S>(p, row), p.grad_input_class_stride};
  rows_backward<S, Form, kRows>(p, loss, row, x, grad_x);
}

// The logits are read from the cache again.
template <class S, class Form, int kRows>
__global__ void __launch_bounds__(kThreadsByRow,
                                  resident_blocks(kThreadsByRow, sizeof(S) == 8 || !kIsPlain<Form> ? 168 : 128))
    cross_entropy_with_grad_by_row(CrossEntropyWithGrad p, DeviceLoss<opmath_t<S>> loss, Shares shares,
                                   RowTotals* of_shares) {
  RowTotals totals;
  const int64_t end = shares.end(blockIdx.x);
  for (int64_t row = shares.begin(blockIdx.x) + threadIdx.x * kRows; row < end; row += kThreadsByRow * kRows) {
    const StridedRows<const S, kRows> x{logits_row<S>(p.forward, row), p.forward.input_class_stride};
    const StridedRows<S, kRows> grad_x{grad_row<S>(p.backward, row), p.backward.grad_input_class_stride};
    totals.merge(rows_with_grad<S, Form, kRows>(p, loss, row, x, grad_x));
  }
  finish_share<S>(p.forward, shares, blockIdx.x, totals, of_shares);
}

}  // namespace ce_ext::cuda
