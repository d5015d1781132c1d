#include "cuda/host/launch.h"
#include "cuda/rows/soft_cross_entropy.cuh"

namespace ce_ext::cuda {
namespace {

template <class S, class Q, bool kLogitsChange, bool kFocal, int kRows>
void launch_by_row(const SoftCrossEntropyBackward& p, cudaStream_t stream) {
  LAUNCH((soft_cross_entropy_backward_by_row<S, Q, kLogitsChange, kFocal, kRows>),
         divide_up(p.rows, kThreadsByRow * kRows), kThreadsByRow, stream, p, SoftDeviceLoss<opmath_t<S>>(p));
}

template <class S, class Q, bool kLogitsChange, bool kFocal>
void launch_backward(const SoftCrossEntropyBackward& p, cudaStream_t stream) {
  constexpr int kPack = sizeof(S) == 8 ? 1 : kRowsPerThread;
  const SoftDeviceLoss<opmath_t<S>> loss(p);
  switch (way_of<Q>({{p.input, p.input_rows, p.input_class_stride},
                     {p.target, p.target_rows, p.target_class_stride},
                     {p.grad_input, p.grad_input_rows, p.grad_input_class_stride},
                     {p.grad_target, p.grad_target_rows, p.grad_target_class_stride}},
                    p.row_dims, p.classes, p.rows, kPack, kMaxTileClassesOfTwo)) {
    case RowWay::kInTiles: {
      const TileShape shape = tile_shape<S, Q>(p);
      const Shares shares(p.rows, 1, shape.rows(), kTileBlocks);
      LAUNCH_WITH_SHARED((soft_cross_entropy_backward_in_tiles<S, Q, kLogitsChange, kFocal>), shares.count,
                         kTileThreads, (2 * SoftStage<S, Q>::bytes(shape, p.classes)), stream, p, loss, shape, shares);
      break;
    }
    case RowWay::kByClass:
      dispatch_team(row_threads(Pass::kBackward, 2 * p.classes * sizeof(S)), BackwardTeams(), [&](auto team) {
        const Divisor chunks(chunks_of_row<S, kPacks / 2>(p.classes, team.kSize));
        LAUNCH((soft_cross_entropy_backward_by_class<S, Q, kLogitsChange, kFocal, team.kSize>),
               divide_up(p.rows * chunks.value, team.kCount), team.kThreads, stream, p, loss, chunks);
      });
      break;
    case RowWay::kByRowPack:
      launch_by_row<S, Q, kLogitsChange, kFocal, kPack>(p, stream);
      break;
    case RowWay::kByRow:
      launch_by_row<S, Q, kLogitsChange, kFocal, 1>(p, stream);
      break;
  }
}

}  // namespace

void launch(const SoftCrossEntropyBackward& problem, const LaunchContext& context) {
  if (problem.rows == 0 || problem.classes == 0) return;
  dispatch<__half, __nv_bfloat16>(problem, [&](auto s, auto q) {
    dispatch_form(problem, [&](auto logits_change, auto focal) {
      launch_backward<decltype(s), decltype(q), logits_change, focal>(problem, context.stream);
    });
  });
}

}  // namespace ce_ext::cuda
