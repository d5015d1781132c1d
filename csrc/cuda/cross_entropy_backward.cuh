// The backward kernels of cross entropy, by class and by row like the forward ones, and those that do both at once.
#pragma once

#include "cuda/cross_entropy_forward.cuh"

namespace ce_ext::cuda {

template <class S>
__device__ __forceinline__ S* grad_row(const CrossEntropyBackward& p, int64_t row) {
  return static_cast<S*>(p.grad_input) + p.grad_input_rows.offset(p.row_dims, row);
}

// The gradient of one row, class by class.
template <class A, bool kLogitsChange>
struct RowGradient {
  int64_t target;
  TargetKind kind;
  const A* weight;  // of every class, or null where only the target's matters
  CrossEntropyGradient<A, kLogitsChange> gradient;

  __device__ __forceinline__ A at(int64_t c, A x) const {
    if (kind != TargetKind::kClass) return kind == TargetKind::kIgnored ? A(0) : A(NAN);
    if (c == target) return gradient.at_target(x);
    return gradient.at(x, weight ? weight[c] : A(1));
  }
};

template <bool kLogitsChange, class S>
__device__ __forceinline__ RowGradient<opmath_t<S>, kLogitsChange> row_gradient(const CrossEntropyBackward& p,
                                                                                const DeviceLoss<opmath_t<S>>& loss,
                                                                                int64_t row, const S* x,
                                                                                const SavedRow<opmath_t<S>>& saved) {
  using A = opmath_t<S>;
  const A* weight = loss.on_host.smoothing > 0 ? static_cast<const A*>(p.weight) : nullptr;
  RowGradient<A, kLogitsChange> result{p.target[row], kind_of(p, p.target[row]), weight, {}};
  if (result.kind != TargetKind::kClass) return result;
  const auto logits = logits_of<kLogitsChange>(loss.logits);
  const A z_target = logits(load(x + result.target * p.input_class_stride));
  const A weight_target = class_weight<A>(p, result.target);
  result.gradient = loss.get().gradient(saved, z_target, weight_target, row_scale<S>(p, loss.loss_scale, row), logits);
  return result;
}

template <class S, bool kLogitsChange>
__device__ __forceinline__ void write_row_by_class(const CrossEntropyProblem& p, const S* x, S* grad_x,
                                                   const RowGradient<opmath_t<S>, kLogitsChange>& gradient) {
  using A = opmath_t<S>;
  RowSplit<S> split(x, p.classes);
  split.share(grad_x, p.classes);
  for_each_pack<kThreadsByClass>(split, p.classes, [&](int64_t c, auto n) {
    A values[n.value];
    load_pack(x + c, values);
#pragma unroll
    for (int i = 0; i < n.value; ++i) values[i] = gradient.at(c + i, values[i]);
    store_pack(grad_x + c, values);
  });
}

template <class S, bool kLogitsChange>
__device__ __forceinline__ void write_row_by_row(const CrossEntropyBackward& p, const S* x, S* grad_x,
                                                 const RowGradient<opmath_t<S>, kLogitsChange>& gradient) {
  for (int64_t c = 0; c < p.classes; ++c, x += p.input_class_stride, grad_x += p.grad_input_class_stride) {
    store(grad_x, gradient.at(c, load(x)));
  }
}

template <class S, bool kLogitsChange>
__global__ void __launch_bounds__(kThreadsByClass, min_blocks(kThreadsByClass, sizeof(S) == 8))
    cross_entropy_backward_by_class(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> loss) {
  const int64_t row = blockIdx.x;
  const S* x = logits_row<S>(p, row);
  const auto saved = static_cast<const SavedRow<opmath_t<S>>*>(p.saved)[row];
  write_row_by_class(p, x, grad_row<S>(p, row), row_gradient<kLogitsChange>(p, loss, row, x, saved));
}

template <class S, bool kLogitsChange>
__global__ void __launch_bounds__(kThreadsByRow, min_blocks(kThreadsByRow, sizeof(S) == 8))
    cross_entropy_backward_by_row(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> loss) {
  const int64_t row = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (row >= p.rows) return;
  const S* x = logits_row<S>(p, row);
  const auto saved = static_cast<const SavedRow<opmath_t<S>>*>(p.saved)[row];
  write_row_by_row(p, x, grad_row<S>(p, row), row_gradient<kLogitsChange>(p, loss, row, x, saved));
}

// Loss and gradient of a row that is read from memory once and then from the cache. The gradient may lie over the
// logits: all that is wanted of other threads' logits is read before the barrier, and then everyone overwrites its own.
template <class S, class Form>
__global__ void __launch_bounds__(kThreadsByClass, min_blocks(kThreadsByClass, true))
    cross_entropy_with_grad_by_class(CrossEntropyWithGrad p, DeviceLoss<opmath_t<S>> loss, opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  const int64_t row = blockIdx.x;
  const S* x = logits_row<S>(p.forward, row);
  const auto sums = sum_row<true, S, Form>(p.forward, loss, row, x);
  SavedRow<A> saved{};
  if (threadIdx.x == 0) saved = finish_row(p.forward, loss, row, x, sums, row_loss);
  saved = block_broadcast(saved);
  const auto gradient = row_gradient<Form::kLogitsChange>(p.backward, loss, row, x, saved);
  __syncthreads();
  write_row_by_class(p.backward, x, grad_row<S>(p.backward, row), gradient);
}

template <class S, class Form>
__global__ void __launch_bounds__(kThreadsByRow, min_blocks(kThreadsByRow, true))
    cross_entropy_with_grad_by_row(CrossEntropyWithGrad p, DeviceLoss<opmath_t<S>> loss, opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  const int64_t row = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (row >= p.forward.rows) return;
  const S* x = logits_row<S>(p.forward, row);
  const auto sums = sum_row<false, S, Form>(p.forward, loss, row, x);
  const SavedRow<A> saved = finish_row(p.forward, loss, row, x, sums, row_loss);
  const auto gradient = row_gradient<Form::kLogitsChange>(p.backward, loss, row, x, saved);
  write_row_by_row(p.backward, x, grad_row<S>(p.backward, row), gradient);
}

// Into a gradient of zeros.
template <class S>
__global__ void __launch_bounds__(kThreadsByRow) nll_backward(CrossEntropyBackward p) {
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
    for (int64_t c = 0; c < p.classes; ++c) store(grad_x + c * p.grad_input_class_stride, A(NAN));
  }
}

}  // namespace ce_ext::cuda
