// The kernels of log-softmax: teams of threads share rows whose classes lie side by side (by class), or threads have
// rows of their own, several neighbours whose classes lie apart (by row) or short ones (in tiles).
#pragma once

#include "cuda/rows/row_sums.cuh"
#include "cuda/rows/thread_rows.cuh"
#include "cuda/rows/tile.cuh"
#include "host/log_softmax_problem.h"
#include "losses/log_softmax.h"

namespace ce_ext::cuda {

// Where a row of one of the tensors starts; S is const for those that are read.
template <class S, class Data>
__device__ __forceinline__ S* row_of(const LogSoftmaxProblem& p, Data* data, const RowStrides& rows, int64_t row) {
  return static_cast<S*>(data) + rows.offset(p.row_dims, row);
}

// Add values to the sums of their row, as row_sums.cuh has it.
struct AddLogits {
  template <class A, int kCount>
  __device__ __forceinline__ void operator()(SoftmaxSums<A, Gaps::kNone>& sums, const A (&x)[kCount], int64_t) const {
    constexpr A kNoWeights[kCount] = {};
    sums.add(x, kNoWeights);
  }
};

struct AddGradients {
  template <class A, int kCount>
  __device__ __forceinline__ void operator()(Sum<A>& sum, const A (&grads)[kCount], int64_t) const {
    A part(0);
#pragma unroll
    for (int i = 0; i < kCount; ++i) part += grads[i];
    sum.value += part;
  }
};

// Teams hold rows in registers. Longer rows are read again from the cache, the last chunk first.
template <class S, class Out, int kPacks>
__global__ void __launch_bounds__(max_row_threads(sizeof(S) == 8), 1)
    log_softmax_forward_by_class(LogSoftmaxForward p, RowShape shape) {
  using A = opmath_t<S>;
  const Team team(shape);
  const int64_t row = int64_t(blockIdx.x / shape.cluster) * team.count() + team.index();
  if (row >= p.rows) return;
  const S* x = row_of<const S>(p, p.input, p.input_rows, row);
  Out* y = row_of<Out>(p, p.output, p.output_rows, row);
  const RowSplit<S> split(x, p.classes);
  typename RowPart<S, kPacks>::template Held<S> held;
  const auto sums = team.reduce(sum_row<SoftmaxSums<A, Gaps::kNone>, kPacks>(team, split, x, held, AddLogits()));
  const LogSoftmax<A> result{team.share(sums.finish())};
  const int64_t chunks = chunks_of_row<kPacks, S>(p.classes, team.size());
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const RowPart<S, kPacks> part(split, team, chunk);
    if (chunk < chunks - 1) part.load(x, held);
    part.for_each([&](int i, int64_t c, auto n) {
      A values[n.value];
      convert(held.at(i, n), values);
#pragma unroll
      for (int j = 0; j < n.value; ++j) values[j] = result.at(values[j]);
      store_pack(y + c, values, /*streams=*/chunks > 1);
    });
  }
}

// Likewise of two tensors. What the output was in the last chunk is on its way while the gradients are added up.
template <class S, class Out>
__global__ void __launch_bounds__(max_row_threads(sizeof(S) == 8), 1)
    log_softmax_backward_by_class(LogSoftmaxBackward p, RowShape shape) {
  using A = opmath_t<S>;
  constexpr int kPacks = kPacksOfTwo * sizeof(S) / sizeof(Out);  // as many bytes of those, which may be wider
  using Part = RowPart<S, kPacks>;
  const Team team(shape);
  const int64_t row = int64_t(blockIdx.x / shape.cluster) * team.count() + team.index();
  if (row >= p.rows) return;
  const Out* grad_y = row_of<const Out>(p, p.grad_output, p.grad_output_rows, row);
  const Out* y = row_of<const Out>(p, p.output, p.output_rows, row);
  S* grad_x = row_of<S>(p, p.grad_input, p.grad_input_rows, row);
  const RowSplit<S> split(grad_x, p.classes);
  const int64_t chunks = chunks_of_row<kPacks, S>(p.classes, team.size());
  typename Part::template Held<Out> held_grads, held_outputs;
  Part(split, team, chunks - 1).load(y, held_outputs);
  const auto sum = team.reduce(sum_row<Sum<A>, kPacks>(team, split, grad_y, held_grads, AddGradients()));
  const LogSoftmaxGradient<A> gradient(team.share(sum).value);
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const Part part(split, team, chunk);
    if (chunk < chunks - 1) {
      part.load(grad_y, held_grads);
      part.load(y, held_outputs);
    }
    part.for_each([&](int i, int64_t c, auto n) {
      A grads[n.value], outputs[n.value];
      convert(held_grads.at(i, n), grads);
      convert(held_outputs.at(i, n), outputs);
#pragma unroll
      for (int j = 0; j < n.value; ++j) grads[j] = gradient.at(grads[j], outputs[j]);
      store_pack(grad_x + c, grads, /*streams=*/chunks > 1);
    });
  }
}

// A thread's rows.
template <class A, int kRows, class Rows, class Outputs>
__device__ __forceinline__ void rows_forward(int64_t classes, const Rows& x, const Outputs& y) {
  SoftmaxSums<A, Gaps::kNone> sums[kRows];
  sum_rows<A>(x, classes, sums, AddLogits());
  LogSoftmax<A> results[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) results[r] = {sums[r].finish()};
  for_each_class<A, kRows>(x, classes, [&](int64_t c, A(&values)[kRows]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) values[r] = results[r].at(values[r]);
    y.store(c, values);
  });
}

template <class A, int kRows, class Grads, class Outputs, class Results>
__device__ __forceinline__ void rows_backward(int64_t classes, const Grads& grad_y, const Outputs& y,
                                              const Results& grad_x) {
  Sum<A> sums[kRows];
  sum_rows<A>(grad_y, classes, sums, AddGradients());
  const RowPairs<Grads, Outputs> pairs{grad_y, y};
  for_each_class<Pair<A>, kRows>(pairs, classes, [&](int64_t c, const Pair<A>(&values)[kRows]) {
    A grads[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const LogSoftmaxGradient<A> gradient(sums[r].value);
      grads[r] = gradient.at(values[r].first, values[r].second);
    }
    grad_x.store(c, grads);
  });
}

// kRows neighbours a thread. The second time, they are read from the cache.
template <class S, class Out, int kRows>
__global__ void __launch_bounds__(kThreadsByRow, resident_blocks(kThreadsByRow, sizeof(S) == 8 ? 96 : 64))
    log_softmax_forward_by_row(LogSoftmaxForward p) {
  const int64_t row = (int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x) * kRows;
  if (row >= p.rows) return;
  const StridedRows<const S, kRows> x{row_of<const S>(p, p.input, p.input_rows, row), p.input_class_stride};
  const StridedRows<Out, kRows> y{row_of<Out>(p, p.output, p.output_rows, row), p.output_class_stride};
  rows_forward<opmath_t<S>, kRows>(p.classes, x, y);
}

template <class S, class Out, int kRows>
__global__ void __launch_bounds__(kThreadsByRow, resident_blocks(kThreadsByRow, sizeof(S) == 8 ? 128 : 96))
    log_softmax_backward_by_row(LogSoftmaxBackward p) {
  const int64_t row = (int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x) * kRows;
  if (row >= p.rows) return;
  const StridedRows<const Out, kRows> grad_y{row_of<const Out>(p, p.grad_output, p.grad_output_rows, row),
                                             p.grad_output_class_stride};
  const StridedRows<const Out, kRows> y{row_of<const Out>(p, p.output, p.output_rows, row), p.output_class_stride};
  const StridedRows<S, kRows> grad_x{row_of<S>(p, p.grad_input, p.grad_input_rows, row), p.grad_input_class_stride};
  rows_backward<opmath_t<S>, kRows>(p.classes, grad_y, y, grad_x);
}

// A thread a row, of those that are in shared memory.
template <class S, class Out>
__global__ void __launch_bounds__(kThreadsByRow, resident_blocks(kThreadsByRow, sizeof(S) == 8 ? 96 : 64))
    log_softmax_forward_in_tiles(LogSoftmaxForward p) {
  const int64_t first = int64_t(blockIdx.x) * kThreadsByRow;
  const Tile<S, Out> tile(row_of<const S>(p, p.input, p.input_rows, first), p.classes, p.rows - first);
  tile.load();
  __syncthreads();
  if (tile.has_row()) rows_forward<opmath_t<S>, 1>(p.classes, tile, tile);
  __syncthreads();
  tile.store(row_of<Out>(p, p.output, p.output_rows, first));
}

template <class S, class Out>
__global__ void __launch_bounds__(kThreadsByTwoTiles<S>,
                                  resident_blocks(kThreadsByTwoTiles<S>, sizeof(S) == 8 ? 96 : 80))
    log_softmax_backward_in_tiles(LogSoftmaxBackward p) {
  constexpr int kThreads = kThreadsByTwoTiles<S>;
  const int64_t first = int64_t(blockIdx.x) * kThreads;
  S* grad_x = row_of<S>(p, p.grad_input, p.grad_input_rows, first);
  const Tile<S, Out> grads(grad_x, p.classes, p.rows - first);
  const Tile<S, Out> outputs(grad_x, p.classes, p.rows - first, Tile<S, Out>::bytes(kThreads, p.classes));
  grads.load(row_of<const Out>(p, p.grad_output, p.grad_output_rows, first));
  outputs.load(row_of<const Out>(p, p.output, p.output_rows, first));
  __syncthreads();
  if (grads.has_row()) rows_backward<opmath_t<S>, 1>(p.classes, grads, outputs, grads);
  __syncthreads();
  grads.store(grad_x);
}

}  // namespace ce_ext::cuda
