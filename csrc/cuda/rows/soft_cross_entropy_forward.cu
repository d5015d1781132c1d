#include "cuda/host/launch.h"
#include "cuda/rows/soft_cross_entropy.cuh"

namespace ce_ext::cuda {
namespace {

template <class S, class Q, class Form>
void launch_by_class(const SoftCrossEntropyForward& p, const LaunchContext& context) {
  const SoftDeviceLoss<opmath_t<S>> loss(p);
  if constexpr (!kIsFocal<Form>) {
    const RowParts parts(p.rows, p.classes, 2 * size_of(p.dtype));
    if (parts.per_row > 1 && !p.report) {  // a report takes two passes over the row, as the focal loss does
      const int64_t blocks = p.rows * parts.per_row;
      const Shares shares(p.rows, p.groups, 1);
      auto* part_sums = context.allocate<RowSums<opmath_t<S>, Form>>(blocks);
      return launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
        LAUNCH((soft_cross_entropy_parts_by_class<S, Q, Form>), blocks, kThreadsOfPart, context.stream, p, loss, parts,
               shares, of_shares, part_sums, context.memory.counters());
      });
    }
  }
  dispatch_team<false>(Pass::kForward, 2 * p.classes * sizeof(S), ForwardTeams(), FewTeams(), [&](auto team) {
    launch_teams<S>(soft_cross_entropy_forward_by_class<S, Q, Form, team.kSize>, team, p, p, loss, context);
  });
}

template <class S, class Q, class Form, int kRows>
void launch_by_row(const SoftCrossEntropyForward& p, const LaunchContext& context) {
  const Shares shares(p.rows, p.groups, kThreadsByRow * kRows);
  launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
    LAUNCH((soft_cross_entropy_forward_by_row<S, Q, Form, kRows>), shares.count, kThreadsByRow, context.stream, p,
           SoftDeviceLoss<opmath_t<S>>(p), shares, of_shares);
  });
}

template <class S, class Q, class Form>
void launch_forward(const SoftCrossEntropyForward& p, const LaunchContext& context) {
  const SoftDeviceLoss<opmath_t<S>> loss(p);
  switch (way_of<Q>({{p.input, p.input_rows, p.input_class_stride}, {p.target, p.target_rows, p.target_class_stride}},
                    p.row_dims, p.classes, p.rows / p.groups, kRowPack<S, Form>, kMaxTileClassesOfTwo)) {
    case RowWay::kInTiles: {
      const TileShape shape = tile_shape<S, Q>(p);
      const Shares shares(p.rows, p.groups, shape.rows(), kTileBlocks);
      launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
        LAUNCH_WITH_SHARED((soft_cross_entropy_forward_in_tiles<S, Q, Form>), shares.count, kTileThreads,
                           (2 * SoftStage<S, Q>::bytes(shape, p.classes)), context.stream, p, loss, shape, shares,
                           of_shares);
      });
      break;
    }
    case RowWay::kByClass:
      launch_by_class<S, Q, Form>(p, context);
      break;
    case RowWay::kByRowPack:
      launch_by_row<S, Q, Form, kRowPack<S, Form>>(p, context);
      break;
    case RowWay::kByRow:
      launch_by_row<S, Q, Form, 1>(p, context);
      break;
  }
}

}  // namespace

void launch(const SoftCrossEntropyForward& problem, const LaunchContext& context) {
  if (problem.groups == 0 || (problem.rows == 0 && problem.reduction == Reduction::kNone)) return;
  dispatch<__half, __nv_bfloat16>(problem, [&](auto s, auto q) {
    dispatch_form(problem,
                  [&](auto form) { launch_forward<decltype(s), decltype(q), decltype(form)>(problem, context); });
  });
}

}  // namespace ce_ext::cuda
