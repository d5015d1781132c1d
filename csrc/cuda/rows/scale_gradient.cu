#include "cuda/rows/row_chunks.cuh"
#include "cuda/rows/row_launch.cuh"
#include "cuda/rows/thread_rows.cuh"
#include "host/scale_gradient_problem.h"

namespace ce_ext::cuda {
namespace {

template <class S>
__device__ __forceinline__ opmath_t<S> factor_of(const ScaleGradient& p, opmath_t<S> loss_scale, int64_t row) {
  using A = opmath_t<S>;
  const int64_t i = p.grad_output_rows.offset(p.row_dims, row);
  const A grad_output = p.grad_output_is_opmath ? static_cast<const A*>(p.grad_output)[i]
                                                : load(static_cast<const S*>(p.grad_output) + i);
  return grad_output / loss_scale;
}

template <class S>
__device__ __forceinline__ S* row_of(const ScaleGradient& p, int64_t row) {
  return static_cast<S*>(p.grad_input) + p.grad_input_rows.offset(p.row_dims, row);
}

// Teams go over the chunks of rows; a factor of 1, which the device alone knows, costs a look.
template <class S, int kSize>
__global__ void __launch_bounds__(Team<kSize>::kThreads)
    scale_gradient_by_class(ScaleGradient p, opmath_t<S> loss_scale, int64_t chunks_of_row) {
  using A = opmath_t<S>;
  using Chunks = RowChunks<S, kPacks, Team<kSize>>;
  const int64_t all_chunks = p.rows * chunks_of_row, step = int64_t(gridDim.x) * Team<kSize>::kCount;
  for (int64_t i = int64_t(blockIdx.x) * Team<kSize>::kCount + Team<kSize>::index(); i < all_chunks; i += step) {
    const int64_t row = i / chunks_of_row;
    const A factor = factor_of<S>(p, loss_scale, row);
    if (factor == A(1)) continue;
    S* grad = row_of<S>(p, row);
    const Chunks chunks(grad, p.classes);
    typename Chunks::template Held<S> held;
    const int64_t chunk = i - row * chunks_of_row;
    chunks.load(chunk, grad, held, A(0));
    chunks.for_each(chunk, [&](int k, int64_t c, auto n) {
      A values[n.value];
      convert(held.at(k, n), values);
#pragma unroll
      for (int j = 0; j < n.value; ++j) values[j] *= factor;
      store_pack(grad + c, values);
    });
  }
}

template <class S, int kRows>
__global__ void __launch_bounds__(kThreadsByRow, resident_blocks(kThreadsByRow, 80))
    scale_gradient_by_row(ScaleGradient p, opmath_t<S> loss_scale) {
  using A = opmath_t<S>;
  const int64_t step = int64_t(gridDim.x) * kThreadsByRow * kRows;
  for (int64_t row = (int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x) * kRows; row < p.rows; row += step) {
    A factors[kRows];
    bool all_one = true;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      factors[r] = factor_of<S>(p, loss_scale, row + r);
      all_one = all_one && factors[r] == A(1);
    }
    if (all_one) continue;
    const StridedRows<S, kRows> grad{row_of<S>(p, row), p.class_stride};
    for_each_class<A, kRows>(grad, p.classes, [&](int64_t c, A(&values)[kRows]) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) values[r] *= factors[r];
      grad.store(c, values);
    });
  }
}

template <class S, int kRows>
void launch_by_row(const ScaleGradient& p, cudaStream_t stream) {
  const int64_t blocks = std::min(kMaxBlocks, divide_up(p.rows, kThreadsByRow * kRows));
  LAUNCH((scale_gradient_by_row<S, kRows>), blocks, kThreadsByRow, stream, p, opmath_t<S>(p.loss_scale));
}

template <class S>
void launch_scale(const ScaleGradient& p, cudaStream_t stream) {
  switch (way_of<S>({{p.grad_input, p.grad_input_rows, p.class_stride}}, p.row_dims, p.classes, p.rows, kRowsPerThread,
                    /*max_tile_classes=*/0)) {
    case RowWay::kInTiles:
    case RowWay::kByClass:
      dispatch_team(row_threads(Pass::kBackward, p.classes * sizeof(S)), BackwardTeams(), [&](auto team) {
        const int64_t chunks = chunks_of_row<S, kPacks>(p.classes, team.kSize);
        const int64_t blocks = std::min(kMaxBlocks, divide_up(p.rows * chunks, team.kCount));
        LAUNCH((scale_gradient_by_class<S, team.kSize>), blocks, team.kThreads, stream, p, opmath_t<S>(p.loss_scale),
               chunks);
      });
      break;
    case RowWay::kByRowPack:
      launch_by_row<S, kRowsPerThread>(p, stream);
      break;
    case RowWay::kByRow:
      launch_by_row<S, 1>(p, stream);
      break;
  }
}

}  // namespace

int64_t workspace_size(const ScaleGradient&) { return 0; }

void launch(const ScaleGradient& problem, const LaunchContext& context) {
  if (problem.rows == 0 || problem.classes == 0) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) { launch_scale<decltype(s)>(problem, context.stream); });
}

}  // namespace ce_ext::cuda
