// The CUDA kernels of log-softmax, each direction in two forms: a block for every row, whose threads share the classes
// (by class), and a thread for every row (by row). All read their rows twice: to gather what belongs to the row, and,
// mostly from the cache, to write the result.
#pragma once

#include "cuda/portability.cuh"
#include "cuda/row_sums.cuh"
#include "host/log_softmax_problem.h"
#include "losses/log_softmax.h"

namespace ce_ext::cuda {

// Where a row of one of the tensors starts; S is const for those that are read.
template <class S, class Data>
__device__ __forceinline__ S* row_of(const LogSoftmaxProblem& p, Data* data, const RowStrides& rows, int64_t row) {
  return static_cast<S*>(data) + rows.offset(p.row_dims, row);
}

// Adds values to the sums of their row, as row_sums.cuh has it.
struct AddLogits {
  template <class A, int kCount>
  __device__ __forceinline__ void operator()(SoftmaxSums<A, Gaps::kNone>& sums, const A (&x)[kCount], int64_t) const {
    constexpr A kNoWeights[kCount] = {};
    sums.add(x, kNoWeights);
  }
};

template <class S, class Out>
__global__ void __launch_bounds__(kThreadsByClass, min_blocks(kThreadsByClass, sizeof(S) == 8))
    log_softmax_forward_by_class(LogSoftmaxForward p) {
  using A = opmath_t<S>;
  const S* x = row_of<const S>(p, p.input, p.input_rows, blockIdx.x);
  RowSplit<S> split(x, p.classes);
  const auto sums = sum_row_by_class<SoftmaxSums<A, Gaps::kNone>>(split, x, p.classes, AddLogits());
  const LogSoftmax<A> result{block_broadcast(sums.finish())};
  Out* y = row_of<Out>(p, p.output, p.output_rows, blockIdx.x);
  split.share(y, p.classes);
  for_each_pack<kThreadsByClass>(split, p.classes, [&](int64_t c, auto n) {
    A values[n.value];
    load_pack(x + c, values);
#pragma unroll
    for (int i = 0; i < n.value; ++i) values[i] = result.at(values[i]);
    store_pack(y + c, values);
  });
}

template <class S, class Out>
__global__ void __launch_bounds__(kThreadsByRow, min_blocks(kThreadsByRow, sizeof(S) == 8))
    log_softmax_forward_by_row(LogSoftmaxForward p) {
  using A = opmath_t<S>;
  const int64_t index = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (index >= p.rows) return;
  const S* x = row_of<const S>(p, p.input, p.input_rows, index);
  const int64_t stride = p.input_class_stride;
  const auto sums = sum_row_by_row<SoftmaxSums<A, Gaps::kNone>>(x, stride, p.classes, AddLogits());
  const LogSoftmax<A> result{sums.finish()};
  Out* y = row_of<Out>(p, p.output, p.output_rows, index);
  for (int64_t c = 0; c < p.classes; ++c) store(y + c * p.output_class_stride, result.at(load(x + c * stride)));
}

template <class S, class Out>
__global__ void __launch_bounds__(kThreadsByClass, min_blocks(kThreadsByClass, sizeof(S) == 8))
    log_softmax_backward_by_class(LogSoftmaxBackward p) {
  using A = opmath_t<S>;
  const Out* grad_y = row_of<const Out>(p, p.grad_output, p.grad_output_rows, blockIdx.x);
  Sum<A> sum;
  for_each_pack<kThreadsByClass>(RowSplit<Out>(grad_y, p.classes), p.classes, [&](int64_t c, auto n) {
    A values[n.value];
    load_pack(grad_y + c, values);
#pragma unroll
    for (int i = 0; i < n.value; ++i) sum.value += values[i];
  });
  const LogSoftmaxGradient<A> gradient{block_broadcast(block_reduce<kThreadsByClass>(sum)).value};
  const Out* y = row_of<const Out>(p, p.output, p.output_rows, blockIdx.x);
  S* grad_x = row_of<S>(p, p.grad_input, p.grad_input_rows, blockIdx.x);
  RowSplit<S> split(grad_x, p.classes);
  split.share(y, p.classes);
  split.share(grad_y, p.classes);
  for_each_pack<kThreadsByClass>(split, p.classes, [&](int64_t c, auto n) {
    A grads[n.value], values[n.value];
    load_pack(grad_y + c, grads);
    load_pack(y + c, values);
#pragma unroll
    for (int i = 0; i < n.value; ++i) grads[i] = gradient.at(grads[i], values[i]);
    store_pack(grad_x + c, grads);
  });
}

template <class S, class Out>
__global__ void __launch_bounds__(kThreadsByRow, min_blocks(kThreadsByRow, sizeof(S) == 8))
    log_softmax_backward_by_row(LogSoftmaxBackward p) {
  using A = opmath_t<S>;
  const int64_t index = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (index >= p.rows) return;
  const Out* grad_y = row_of<const Out>(p, p.grad_output, p.grad_output_rows, index);
  A sum(0);
  for (int64_t c = 0; c < p.classes; ++c) sum += load(grad_y + c * p.grad_output_class_stride);
  const LogSoftmaxGradient<A> gradient{sum};
  const Out* y = row_of<const Out>(p, p.output, p.output_rows, index);
  S* grad_x = row_of<S>(p, p.grad_input, p.grad_input_rows, index);
  for (int64_t c = 0; c < p.classes; ++c) {
    const A grad = load(grad_y + c * p.grad_output_class_stride);
    store(grad_x + c * p.grad_input_class_stride, gradient.at(grad, load(y + c * p.output_class_stride)));
  }
}

}  // namespace ce_ext::cuda
