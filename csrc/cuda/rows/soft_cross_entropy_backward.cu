#include "cuda/host/launch.h"
#include "cuda/rows/soft_cross_entropy.cuh"

namespace ce_ext::cuda {
namespace {

template <class S, class Q, bool kLogitsChange, int kRows>
void launch_by_row(const SoftCrossEntropyBackward& p, cudaStream_t stream) {
  LAUNCH((soft_cross_entropy_backward_by_row<S, Q, kLogitsChange, kRows>), divide_up(p.rows, kThreadsByRow * kRows),
         kThreadsByRow, stream, p, SoftDeviceLoss<opmath_t<S>>(p));
}

template <class S, class Q, bool kLogitsChange>
void launch_backward(const SoftCrossEntropyBackward& p, cudaStream_t stream) {
  constexpr int kPack = sizeof(S) == 8 ? 1 : kRowsPerThread;
  const SoftDeviceLoss<opmath_t<S>> loss(p);
  switch (way_of<Q>({{p.input, p.input_rows, p.input_class_stride},
                     {p.target, p.target_rows, p.target_class_stride},
                     {p.grad_input, p.grad_input_rows, p.grad_input_class_stride},
                     {p.grad_target, p.grad_target_rows, p.grad_target_class_stride}},
                    p.row_dims, p.classes, p.rows, kPack)) {
    case RowWay::kInTiles: {
      constexpr int kThreads = kThreadsByTwoTiles<S>;
      LAUNCH_WITH_SHARED((soft_cross_entropy_backward_in_tiles<S, Q, kLogitsChange>), divide_up(p.rows, kThreads),
                         kThreads, (tiles_bytes<S, Q>(p.classes)), stream, p, loss);
      break;
    }
    case RowWay::kByClass: {
      const RowShape shape = shape_of(Pass::kBackward, 2 * p.classes * sizeof(S), kMaxBackwardThreads);
      const unsigned chunks = chunks_of_row<kBackwardPacksOfTwo, S>(p.classes, shape.lanes);
      LAUNCH((soft_cross_entropy_backward_by_class<S, Q, kLogitsChange>), divide_up(p.rows, teams_of(shape)) * chunks,
             shape.threads, stream, p, loss, shape, chunks);
      break;
    }
    case RowWay::kByRowPack:
      launch_by_row<S, Q, kLogitsChange, kPack>(p, stream);
      break;
    case RowWay::kByRow:
      launch_by_row<S, Q, kLogitsChange, 1>(p, stream);
      break;
  }
}

}  // namespace

void launch(const SoftCrossEntropyBackward& problem, const LaunchContext& context) {
  if (problem.rows == 0 || problem.classes == 0) return;
  dispatch<__half, __nv_bfloat16>(problem, [&](auto s, auto q) {
    using S = decltype(s);
    using Q = decltype(q);
    problem.options.logits.change() ? launch_backward<S, Q, true>(problem, context.stream)
                                    : launch_backward<S, Q, false>(problem, context.stream);
  });
}

}  // namespace ce_ext::cuda
