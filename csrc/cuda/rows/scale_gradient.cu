#include "cuda/device/packs.cuh"
#include "cuda/rows/row_launch.cuh"
#include "cuda/rows/thread_rows.cuh"
#include "host/scale_gradient_problem.h"

namespace ce_ext::cuda {
namespace {

// As many as a large GPU has at a time: where the factor is 1, more would only come and go.
constexpr int64_t kThreadsToScale = 256 * 1024;

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

// Multiplies what is this thread's of a row, as one of `threads` that share it.
template <class S>
__device__ __forceinline__ void scale_row(S* grad, int64_t classes, opmath_t<S> factor, int thread, int threads) {
  const RowSplit<S> split(grad, classes);
  const auto scale = [&](auto& numbers, S* p) {
    constexpr int kCount = sizeof(numbers) / sizeof(S);
    opmath_t<S> values[kCount];
    convert(numbers, values);
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] *= factor;
    convert(values, numbers);
    copy_out(numbers, /*aligned=*/true, p);
  };
  // Of packs that are all there, all are loaded before one is used.
  const auto scale_packs = [&](S* first, int64_t step, auto count) {
    Numbers<S, kPackSize<S>> packs[count.value];
#pragma unroll
    for (int i = 0; i < count.value; ++i) copy_in(first + i * step, /*aligned=*/true, packs[i]);
#pragma unroll
    for (int i = 0; i < count.value; ++i) scale(packs[i], first + i * step);
  };
  const int64_t step = int64_t(threads) * kPackSize<S>;
  int64_t c = split.head + int64_t(thread) * kPackSize<S>;
  for (; c + (kPacks - 1) * step < split.packs_end; c += kPacks * step) {
    scale_packs(grad + c, step, std::integral_constant<int, kPacks>());
  }
  for (; c < split.packs_end; c += step) scale_packs(grad + c, step, std::integral_constant<int, 1>());

  const auto scale_one = [&](int64_t i) {
    Numbers<S, 1> number{{grad[i]}};
    scale(number, grad + i);
  };
  if (thread < split.head) scale_one(thread);
  if (thread < split.size - split.packs_end) scale_one(split.packs_end + thread);
}

// Teams of `lanes` threads go from row to row, and those of blocks along y share each. A factor of 1, which the device
// alone knows, costs no more than a look.
template <class S>
__global__ void __launch_bounds__(kThreadsByRow)
    scale_gradient_by_class(ScaleGradient p, opmath_t<S> loss_scale, int lanes) {
  using A = opmath_t<S>;
  const int teams = blockDim.x / lanes;
  const int lane = threadIdx.x % lanes;
  if (!p.grad_output_rows.differ && factor_of<S>(p, loss_scale, 0) == A(1)) return;
  for (int64_t row = int64_t(blockIdx.x) * teams + threadIdx.x / lanes; row < p.rows;
       row += int64_t(gridDim.x) * teams) {
    const A factor = factor_of<S>(p, loss_scale, row);
    if (factor == A(1)) continue;
    scale_row(row_of<S>(p, row), p.classes, factor, blockIdx.y * lanes + lane, gridDim.y * lanes);
  }
}

template <class S, int kRows>
__global__ void __launch_bounds__(kThreadsByRow, resident_blocks(kThreadsByRow, 80))
    scale_gradient_by_row(ScaleGradient p, opmath_t<S> loss_scale) {
  using A = opmath_t<S>;
  if (!p.grad_output_rows.differ && factor_of<S>(p, loss_scale, 0) == A(1)) return;
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
  const int64_t blocks = std::min(kThreadsToScale / kThreadsByRow, divide_up(p.rows, kThreadsByRow * kRows));
  LAUNCH((scale_gradient_by_row<S, kRows>), blocks, kThreadsByRow, stream, p, opmath_t<S>(p.loss_scale));
}

template <class S>
void launch_scale(const ScaleGradient& p, cudaStream_t stream) {
  switch (way_of<S>({{p.grad_input, p.grad_input_rows, p.class_stride}}, p.row_dims, p.classes, p.rows, kRowsPerThread,
                    /*max_tile_classes=*/0)) {
    case RowWay::kInTiles:
    case RowWay::kByClass: {
      const int lanes = row_threads(Pass::kBackward, p.classes * sizeof(S));
      const int64_t chunks = chunks_of_row<S, kPacks>(p.classes, lanes);
      const int64_t most = kThreadsToScale / kThreadsByRow;
      const int64_t blocks = std::min(most, divide_up(p.rows, kThreadsByRow / lanes));
      LAUNCH((scale_gradient_by_class<S>), dim3(blocks, std::min(most / blocks, chunks)), kThreadsByRow, stream, p,
             opmath_t<S>(p.loss_scale), lanes);
      break;
    }
    case RowWay::kByRowPack:
      launch_by_row<S, kRowsPerThread>(p, stream);
      break;
    case RowWay::kByRow:
      launch_by_row<S, 1>(p, stream);
      break;
  }
}

}  // namespace

void launch(const ScaleGradient& problem, const LaunchContext& context) {
  if (problem.rows == 0 || problem.classes == 0) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) { launch_scale<decltype(s)>(problem, context.stream); });
}

}  // namespace ce_ext::cuda
