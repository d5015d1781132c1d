#include "cuda/clusters.cuh"
#include "cuda/launch.h"
#include "cuda/soft_cross_entropy.cuh"

namespace ce_ext::cuda {
namespace {

template <class S, class Q, class Form, int kRows>
void launch_by_row(const SoftCrossEntropyForward& p, const LaunchContext& context) {
  const Shares shares(p.rows, p.groups, kThreadsByRow * kRows);
  LAUNCH((soft_cross_entropy_forward_by_row<S, Q, Form, kRows>), shares.count, kThreadsByRow, context.stream, p,
         SoftDeviceLoss<opmath_t<S>>(p), shares, Workspace(context).scratch());
}

template <class S, class Q, class Form>
void launch_forward(const SoftCrossEntropyForward& p, const LaunchContext& context) {
  const SoftDeviceLoss<opmath_t<S>> loss(p);
  const Scratch scratch = Workspace(context).scratch();
  switch (way_of<Q>({{p.input, p.input_rows, p.input_class_stride}, {p.target, p.target_rows, p.target_class_stride}},
                    p.row_dims, p.classes, p.rows / p.groups, kRowPack<S, Form>)) {
    case RowWay::kInTiles: {
      constexpr int kThreads = kThreadsByTwoTiles<S>;
      const Shares shares(p.rows, p.groups, kThreads);
      LAUNCH_WITH_SHARED((soft_cross_entropy_forward_in_tiles<S, Q, Form>), shares.count, kThreads,
                         (tiles_bytes<S, Q>(p.classes)), context.stream, p, loss, shares, scratch);
      break;
    }
    case RowWay::kByClass: {
      const auto kernel = soft_cross_entropy_forward_by_class<S, Q, Form>;
      const RowShape shape = with_room(
          kernel, shape_of(Pass::kForward, 2 * p.classes * sizeof(S), max_row_threads(/*many_registers=*/true)));
      const Shares shares(p.rows, p.groups, teams_of(shape));
      launch_teams(kernel, shares.count, shape, context.stream, p, loss, shape, shares, scratch);
      break;
    }
    case RowWay::kByRowPack:
      launch_by_row<S, Q, Form, kRowPack<S, Form>>(p, context);
      break;
    case RowWay::kByRow:
      launch_by_row<S, Q, Form, 1>(p, context);
      break;
  }
}

}  // namespace

int64_t workspace_size(const SoftCrossEntropyForward& problem) {
  return Workspace::bytes(problem.reduction, problem.rows, /*parts_bytes=*/0);
}

void launch(const SoftCrossEntropyForward& problem, const LaunchContext& context) {
  if (problem.groups == 0 || (problem.rows == 0 && problem.reduction == Reduction::kNone)) return;
  dispatch<__half, __nv_bfloat16>(problem, [&](auto s, auto q) {
    dispatch_form(problem,
                  [&](auto form) { launch_forward<decltype(s), decltype(q), decltype(form)>(problem, context); });
  });
}

}  // namespace ce_ext::cuda
