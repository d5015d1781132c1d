#include "cuda/rows/cross_entropy_launch.cuh"
#include "cuda/rows/nll_loss.cuh"

namespace ce_ext::cuda {
namespace {

template <class S, bool kLogitsChange, int kRows>
void launch_by_row(const CrossEntropyBackward& p, const DeviceLoss<opmath_t<S>>& loss, cudaStream_t stream) {
  LAUNCH((cross_entropy_backward_by_row<S, kLogitsChange, kRows>), divide_up(p.rows, kThreadsByRow * kRows),
         kThreadsByRow, stream, p, loss);
}

template <class S, bool kLogitsChange>
void launch_backward(const CrossEntropyBackward& p, const LaunchContext& context) {
  constexpr int kPack = sizeof(S) == 8 ? 1 : kRowsPerThread;
  const auto loss = make_loss<opmath_t<S>>(p, 1, context);
  switch (way_of<S>(
      {{p.input, p.input_rows, p.input_class_stride}, {p.grad_input, p.grad_input_rows, p.grad_input_class_stride}},
      p.row_dims, p.classes, p.rows, kPack)) {
    case RowWay::kInTiles:
      LAUNCH_WITH_SHARED((cross_entropy_backward_in_tiles<S, kLogitsChange>), divide_up(p.rows, kThreadsByRow),
                         kThreadsByRow, Tile<S>::bytes(kThreadsByRow, p.classes), context.stream, p, loss);
      break;
    case RowWay::kByClass:
      launch_backward_by_class<S, kLogitsChange>(p, loss, /*gradients=*/nullptr, context.stream);
      break;
    case RowWay::kByRowPack:
      launch_by_row<S, kLogitsChange, kPack>(p, loss, context.stream);
      break;
    case RowWay::kByRow:
      launch_by_row<S, kLogitsChange, 1>(p, loss, context.stream);
      break;
  }
}

// Zeros but at the targets. (The memory of a new gradient is dense, whatever its strides.)
template <class S>
void launch_nll_backward(const CrossEntropyBackward& p, const LaunchContext& context) {
  cudaMemsetAsync(p.grad_input, 0, p.rows * p.classes * sizeof(S), context.stream);
  LAUNCH((nll_backward<S>), divide_up(p.rows, kThreadsByRow), kThreadsByRow, context.stream, p, context.bad_target);
}

}  // namespace

void launch(const CrossEntropyBackward& problem, const LaunchContext& context) {
  if (problem.rows == 0 || problem.classes == 0) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) {
    using S = decltype(s);
    if (problem.input_is_log_prob) return launch_nll_backward<S>(problem, context);
    problem.options.logits.change() ? launch_backward<S, true>(problem, context)
                                    : launch_backward<S, false>(problem, context);
  });
}

}  // namespace ce_ext::cuda
