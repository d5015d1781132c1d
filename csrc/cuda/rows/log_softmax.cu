#include "cuda/host/launch.h"
#include "cuda/rows/log_softmax.cuh"
#include "cuda/rows/row_launch.cuh"

namespace ce_ext::cuda {
namespace {

template <class Team, class Problem>
void launch_teams(void (*kernel)(Problem), Team, const Problem& p, cudaStream_t stream) {
  LAUNCH(kernel, divide_up(p.rows, Team::kCount), Team::kThreads, stream, p);
}

template <class S, class Out>
constexpr bool kIsOften = std::is_same_v<S, Out> && sizeof(S) < 8;

template <class S, class Out>
void launch_forward(const LogSoftmaxForward& p, cudaStream_t stream) {
  using Stage = LogSoftmaxStage<S, Out>;
  constexpr int kPack = sizeof(S) == 8 ? 1 : kRowsPerThread;
  switch (way_of<Out>({{p.input, p.input_rows, p.input_class_stride}, {p.output, p.output_rows, p.output_class_stride}},
                      p.row_dims, p.classes, p.rows, kPack, kMaxTileRowBytes / Stage::kClassBytes)) {
    case RowWay::kInTiles: {
      const TileShape shape(p.classes * sizeof(S), p.classes * Stage::kClassBytes, sizeof(S), kIsOften<S, Out>,
                            p.input);
      const Shares shares(p.rows, 1, shape.rows(), kTileBlocks);
      dispatch_word<S, kIsOften<S, Out>>(shape, [&](auto word) {
        LAUNCH_WITH_SHARED((log_softmax_forward_in_tiles<S, Out, word.value>), shares.count, kTileThreads,
                           2 * Stage::bytes(shape, p.classes), stream, p, shape, shares);
      });
      break;
    }
    case RowWay::kByClass:
      dispatch_team<kIsOften<S, Out>>(
          Pass::kWithGrad, p.classes * sizeof(S), WithGradTeams(), FewWithGradTeams<S>(),
          [&](auto team) { launch_teams(log_softmax_forward_by_class<S, Out, team.kSize>, team, p, stream); });
      break;
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
  using Stage = LogSoftmaxBackwardStage<S, Out>;
  constexpr int kPack = sizeof(S) == 8 ? 1 : kRowsPerThread;
  switch (way_of<Out>({{p.grad_output, p.grad_output_rows, p.grad_output_class_stride},
                       {p.output, p.output_rows, p.output_class_stride},
                       {p.grad_input, p.grad_input_rows, p.grad_input_class_stride}},
                      p.row_dims, p.classes, p.rows, kPack, kMaxTileRowBytes / Stage::kClassBytes)) {
    case RowWay::kInTiles: {
      const bool wider = kIsOften<S, Out> && is_aligned(p.output);
      const TileShape shape(p.classes * sizeof(Out), p.classes * Stage::kClassBytes, sizeof(Out), wider, p.grad_output);
      const Shares shares(p.rows, 1, shape.rows(), kTileBlocks);
      dispatch_word<Out, kIsOften<S, Out>>(shape, [&](auto word) {
        LAUNCH_WITH_SHARED((log_softmax_backward_in_tiles<S, Out, word.value>), shares.count, kTileThreads,
                           2 * Stage::bytes(shape, p.classes), stream, p, shape, shares);
      });
      break;
    }
    case RowWay::kByClass:
      dispatch_team<kIsOften<S, Out>>(
          Pass::kWithGrad, 2 * p.classes * sizeof(Out), WithGradTeams(), FewWithGradTeams<S>(),
          [&](auto team) { launch_teams(log_softmax_backward_by_class<S, Out, team.kSize>, team, p, stream); });
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
