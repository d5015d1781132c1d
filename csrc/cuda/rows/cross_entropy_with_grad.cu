#include "cuda/rows/cross_entropy_launch.cuh"

namespace ce_ext::cuda {
namespace {

// The divisor of the mean, which the gradients need before there is a loss. (That of a row with no loss is 0 here.)
template <class S>
__global__ void __launch_bounds__(kThreadsByRow)
    sum_row_weights(CrossEntropyForward p, Shares shares, Scratch scratch) {
  using A = opmath_t<S>;
  RowTotals totals;
  for (int64_t row = shares.begin(blockIdx.x) + threadIdx.x; row < shares.end(blockIdx.x); row += kThreadsByRow) {
    const auto target = load_target<A>(p, row, [](int64_t) { return A(0); });
    totals.merge({0.0, double(row_weight(p, row, target))});
  }
  finish_share<S>(p, shares, blockIdx.x, totals, scratch);
}

template <class S, class Form, int kRows, int kMost>
void launch_by_row(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  const auto loss = make_loss<opmath_t<S>>(p, context);
  const Shares shares(p.forward.rows, p.forward.groups, kThreadsByRow * kRows);
  LAUNCH((cross_entropy_with_grad_by_row<S, Form, kRows, kMost>), shares.count, kThreadsByRow, context.stream, p, loss,
         shares, Workspace(context).scratch());
}

template <class S, class Form>
void launch_by_row_pack(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  constexpr int kRows = kRowPack<S, Form>;
  if constexpr (kRows > 1 && sizeof(S) == 2 && Form::kGaps == Gaps::kNone) {  // what registers suffice for
    if (p.forward.classes <= kMaxHeldClasses) return launch_by_row<S, Form, kRows, kMaxHeldClasses>(p, context);
  }
  launch_by_row<S, Form, kRows, 0>(p, context);
}

template <class S, class Form>
void launch_in_tiles(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  const CrossEntropyForward& forward = p.forward;
  const auto loss = make_loss<opmath_t<S>>(p, context);
  const Shares shares(forward.rows, forward.groups, kThreadsByRow);
  LAUNCH_WITH_SHARED((cross_entropy_with_grad_in_tiles<S, Form>), shares.count, kThreadsByRow,
                     Tile<S>::bytes(kThreadsByRow, forward.classes), context.stream, p, loss, shares,
                     Workspace(context).scratch());
}

template <class S, class Form>
void launch_with_grad(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  const CrossEntropyForward& forward = p.forward;
  const CrossEntropyBackward& backward = p.backward;
  if (forward.reduction == Reduction::kMean) {
    const Shares shares(forward.rows, forward.groups, kThreadsByRow);
    LAUNCH((sum_row_weights<S>), shares.count, kThreadsByRow, context.stream, forward, shares,
           Workspace(context).scratch());
  }
  switch (way_of<S>({{forward.input, backward.input_rows, forward.input_class_stride},
                     {backward.grad_input, backward.grad_input_rows, backward.grad_input_class_stride}},
                    backward.row_dims, forward.classes, forward.rows / forward.groups, kRowPack<S, Form>)) {
    case RowWay::kInTiles:
      return launch_in_tiles<S, Form>(p, context);
    case RowWay::kByClass:
      return fits_cluster(p) ? launch_by_cluster(p, context) : launch_by_class(p, context);
    case RowWay::kByRowPack:
      return launch_by_row_pack<S, Form>(p, context);
    case RowWay::kByRow:
      return launch_by_row<S, Form, 1, 0>(p, context);
  }
}

}  // namespace

int64_t workspace_size(const CrossEntropyWithGrad& problem) {
  const CrossEntropyForward& forward = problem.forward;
  return Workspace::bytes(forward.reduction, forward.rows, parts_bytes(forward, /*with_grad=*/true));
}

void launch(const CrossEntropyWithGrad& problem, const LaunchContext& context) {
  const CrossEntropyForward& forward = problem.forward;
  if (forward.groups == 0 || (forward.rows == 0 && forward.reduction == Reduction::kNone)) return;
  dispatch<__half, __nv_bfloat16>(forward.dtype, [&](auto s) {
    dispatch_form(forward, [&](auto form) { launch_with_grad<decltype(s), decltype(form)>(problem, context); });
  });
}

}  // namespace ce_ext::cuda
