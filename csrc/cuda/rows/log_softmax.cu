#include "cuda/host/launch.h"
#include "cuda/rows/clusters.cuh"
#include "cuda/rows/log_softmax.cuh"
#include "cuda/rows/row_launch.cuh"

namespace ce_ext::cuda {
namespace {

template <class Problem>
void launch_by_class(void (*kernel)(Problem, RowShape), const Problem& p, const RowShape& wanted, cudaStream_t stream) {
  const RowShape shape = with_room(kernel, wanted);
  launch_teams(kernel, divide_up(p.rows, teams_of(shape)), shape, stream, p, shape);
}

template <class S, class Out>
void launch_forward(const LogSoftmaxForward& p, cudaStream_t stream) {
  constexpr bool kMany = sizeof(S) == 8;
  constexpr int kPack = kMany ? 1 : kRowsPerThread;
  switch (way_of<Out>({{p.input, p.input_rows, p.input_class_stride}, {p.output, p.output_rows, p.output_class_stride}},
                      p.row_dims, p.classes, p.rows, kPack)) {
    case RowWay::kInTiles:
      LAUNCH_WITH_SHARED((log_softmax_forward_in_tiles<S, Out>), divide_up(p.rows, kThreadsByRow), kThreadsByRow,
                         (Tile<S, Out>::bytes(kThreadsByRow, p.classes)), stream, p);
      break;
    case RowWay::kByClass: {
      const RowShape shape = shape_of(Pass::kWithGrad, p.classes * sizeof(S), max_row_threads(kMany));
      dispatch_packs<kMany>(shape, [&](auto packs) {
        launch_by_class(log_softmax_forward_by_class<S, Out, packs.value>, p, shape, stream);
      });
      break;
    }
    case RowWay::kByRowPack:
      LAUNCH((log_softmax_forward_by_row<S, Out, kPack>), divide_up(p.rows, kThreadsByRow * kPack), kThreadsByRow,
             stream, p);
      break;
    case RowWay::kByRow:
      LAUNCH((log_softmax_forward_by_row<S, Out, 1>), divide_up(p.rows, kThreadsByRow), kThreadsByRow, stream, p);
      break;
  }
}

template <class S, class Out>
void launch_backward(const LogSoftmaxBackward& p, cudaStream_t stream) {
  constexpr int kPack = sizeof(S) == 8 ? 1 : kRowsPerThread;
  switch (way_of<Out>({{p.grad_output, p.grad_output_rows, p.grad_output_class_stride},
                       {p.output, p.output_rows, p.output_class_stride},
                       {p.grad_input, p.grad_input_rows, p.grad_input_class_stride}},
                      p.row_dims, p.classes, p.rows, kPack)) {
    case RowWay::kInTiles: {
      constexpr int kThreads = kThreadsByTwoTiles<S>;
      LAUNCH_WITH_SHARED((log_softmax_backward_in_tiles<S, Out>), divide_up(p.rows, kThreads), kThreads,
                         (2 * Tile<S, Out>::bytes(kThreads, p.classes)), stream, p);
      break;
    }
    case RowWay::kByClass:
      launch_by_class(log_softmax_backward_by_class<S, Out>, p,
                      shape_of(Pass::kWithGrad, 2 * p.classes * sizeof(Out), max_row_threads(sizeof(S) == 8)), stream);
      break;
    case RowWay::kByRowPack:
      LAUNCH((log_softmax_backward_by_row<S, Out, kPack>), divide_up(p.rows, kThreadsByRow * kPack), kThreadsByRow,
             stream, p);
      break;
    case RowWay::kByRow:
      LAUNCH((log_softmax_backward_by_row<S, Out, 1>), divide_up(p.rows, kThreadsByRow), kThreadsByRow, stream, p);
      break;
  }
}

}  // namespace

void launch(const LogSoftmaxForward& problem, const LaunchContext& context) {
  if (problem.rows == 0 || problem.classes == 0) return;
  dispatch<__half, __nv_bfloat16>(
      problem, [&](auto s, auto out) { launch_forward<decltype(s), decltype(out)>(problem, context.stream); });
}

void launch(const LogSoftmaxBackward& problem, const LaunchContext& context) {
  if (problem.rows == 0 || problem.classes == 0) return;
  dispatch<__half, __nv_bfloat16>(
      problem, [&](auto s, auto out) { launch_backward<decltype(s), decltype(out)>(problem, context.stream); });
}

}  // namespace ce_ext::cuda
