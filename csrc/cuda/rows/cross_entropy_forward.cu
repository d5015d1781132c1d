#include "cuda/rows/cross_entropy_launch.cuh"
#include "cuda/rows/nll_loss.cuh"

namespace ce_ext::cuda {
namespace {

template <class S, class Form>
void launch_parts(const CrossEntropyForward& p, const DeviceLoss<opmath_t<S>>& loss, const LaunchContext& context) {
  const RowParts parts = parts_of(p);
  const int64_t blocks = p.rows * parts.per_row;
  const Shares shares(p.rows, p.groups, 1);
  auto* part_sums = context.allocate<RowSums<opmath_t<S>, Form>>(blocks);
  launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
    LAUNCH((cross_entropy_parts_by_class<S, Form>), blocks, kThreadsOfPart, context.stream, p, loss, parts, shares,
           of_shares, part_sums, context.memory.counters());
  });
}

template <class S, class Form>
void launch_by_class(const CrossEntropyForward& p, const DeviceLoss<opmath_t<S>>& loss, const LaunchContext& context) {
  if (parts_of(p).per_row > 1) return launch_parts<S, Form>(p, loss, context);
  dispatch_team<kIsOften<S, Form>>(Pass::kForward, p.classes * sizeof(S), ForwardTeams(), FewTeams(), [&](auto team) {
    launch_teams<S>(cross_entropy_forward_by_class<S, Form, team.kSize>, team, p, p, loss, context);
  });
}

template <class S, class Form, int kRows>
void launch_by_row(const CrossEntropyForward& p, const DeviceLoss<opmath_t<S>>& loss, const LaunchContext& context) {
  const Shares shares(p.rows, p.groups, kThreadsByRow * kRows);
  launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
    LAUNCH((cross_entropy_forward_by_row<S, Form, kRows>), shares.count, kThreadsByRow, context.stream, p, loss, shares,
           of_shares);
  });
}

template <class S, class Form>
void launch_in_tiles(const CrossEntropyForward& p, const DeviceLoss<opmath_t<S>>& loss, const LaunchContext& context) {
  const TileShape shape = tile_shape<S, Form>(p);
  const Shares shares(p.rows, p.groups, shape.rows(), kTileBlocks);
  launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
    dispatch_word<S, kIsOften<S, Form>>(shape, [&](auto word) {
      LAUNCH_WITH_SHARED((cross_entropy_forward_in_tiles<S, Form, word.value>), shares.count, kTileThreads,
                         2 * CrossEntropyStage<S>::bytes(shape, p.classes, /*has_saved=*/false), context.stream, p,
                         loss, shape, shares, of_shares);
    });
  });
}

template <class S, class Form>
void launch_forward(const CrossEntropyForward& p, const LaunchContext& context) {
  const auto loss = make_loss<opmath_t<S>>(p, 1, context);
  const bool of_pixels = are_pixels<S, Form>(p);
  switch (way_of<S>({{p.input, p.input_rows, p.input_class_stride}}, p.row_dims, p.classes, p.rows / p.groups,
                    of_pixels ? kPixelsOfThread<S> : kRowPack<S, Form>, kMaxTileClasses<S>)) {
    case RowWay::kInTiles:
      launch_in_tiles<S, Form>(p, loss, context);
      break;
    case RowWay::kByClass:
      launch_by_class<S, Form>(p, loss, context);
      break;
    case RowWay::kByRowPack:
      if (of_pixels) return launch_of_pixels(p, context);
      launch_by_row<S, Form, kRowPack<S, Form>>(p, loss, context);
      break;
    case RowWay::kByRow:
      launch_by_row<S, Form, 1>(p, loss, context);
      break;
  }
}

template <class S>
void launch_nll_forward(const CrossEntropyForward& p, const LaunchContext& context) {
  const Shares shares(p.rows, p.groups, kThreadsByRow);
  launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
    LAUNCH((nll_forward<S>), shares.count, kThreadsByRow, context.stream, p, shares, of_shares, context.bad_target);
  });
}

}  // namespace

void launch(const CrossEntropyForward& problem, const LaunchContext& context) {
  if (problem.groups == 0 || (problem.rows == 0 && problem.reduction == Reduction::kNone)) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) {
    using S = decltype(s);
    if (problem.input_is_log_prob) return launch_nll_forward<S>(problem, context);
    dispatch_form(problem, [&](auto form) { launch_forward<S, decltype(form)>(problem, context); });
  });
}

}  // namespace ce_ext::cuda
