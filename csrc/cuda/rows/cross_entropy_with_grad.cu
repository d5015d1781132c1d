#include "cuda/rows/cross_entropy_launch.cuh"

namespace ce_ext::cuda {
namespace {

// The divisor of the mean, which the gradients need before there is a loss. (That of a row with no loss is 0 here.)
template <class S>
__global__ void __launch_bounds__(kThreadsToSum)
    sum_row_weights(CrossEntropyForward p, Shares shares, RowTotals* of_shares) {
  using A = opmath_t<S>;
  RowTotals totals;
  for_each_in_flight(
      shares.begin(blockIdx.x) + threadIdx.x, shares.end(blockIdx.x), kThreadsToSum,
      [&](int64_t row) { return p.target[row]; },
      [&](int64_t row, int64_t index) {
        const auto target = look_up_target<A>(p, index, [](int64_t) { return A(0); });
        totals.merge({0.0, double(row_weight(p, row, target))});
      });
  finish_share<S>(p, shares, blockIdx.x, totals, of_shares);
}

template <class S, class Form, int kRows>
void launch_by_row(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  const auto loss = make_loss<opmath_t<S>>(p, context);
  const Shares shares(p.forward.rows, p.forward.groups, kThreadsByRow * kRows);
  launch_shares<S>(p.forward, shares, context, [&](RowTotals* of_shares) {
    LAUNCH((cross_entropy_with_grad_by_row<S, Form, kRows>), shares.count, kThreadsByRow, context.stream, p, loss,
           shares, of_shares);
  });
}

template <class S, class Form>
void launch_in_tiles(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  const CrossEntropyForward& forward = p.forward;
  const auto loss = make_loss<opmath_t<S>>(p, context);
  const TileShape shape = tile_shape<S, Form>(forward);
  const Shares shares(forward.rows, forward.groups, shape.rows(), kTileBlocks);
  launch_shares<S>(forward, shares, context, [&](RowTotals* of_shares) {
    dispatch_word<S, kIsOften<S, Form>>(shape, [&](auto word) {
      LAUNCH_WITH_SHARED((cross_entropy_with_grad_in_tiles<S, Form, word.value>), shares.count, kTileThreads,
                         2 * CrossEntropyStage<S>::bytes(shape, forward.classes, /*has_saved=*/false), context.stream,
                         p, loss, shape, shares, of_shares);
    });
  });
}

// Rows that are so few and long that blocks which have one would leave most of a GPU idle are shared by many, in two
// passes. A gradient that overwrites the logits must not do so as long as other blocks ask for the target's, as those
// of the focal loss do.
bool has_parts(const CrossEntropyWithGrad& p) {
  constexpr unsigned kFew = 8;
  const bool overwrites = p.backward.grad_input == p.forward.input;
  return parts_of(p.forward).per_row >= kFew && !(overwrites && p.forward.options.gamma > 0);
}

void launch_parts(CrossEntropyWithGrad p, const LaunchContext& context) {
  if (!p.forward.saved) p.forward.saved = context.allocate<SavedRow<double>>(p.forward.rows);
  p.backward.saved = p.forward.saved;
  launch(p.forward, context);
  launch(p.backward, context);
}

template <class S, class Form>
void launch_with_grad(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  const CrossEntropyForward& forward = p.forward;
  const CrossEntropyBackward& backward = p.backward;
  const bool of_pixels = are_pixels<S, Form>(forward);
  const RowWay way = way_of<S>({{forward.input, backward.input_rows, forward.input_class_stride},
                                {backward.grad_input, backward.grad_input_rows, backward.grad_input_class_stride}},
                               backward.row_dims, forward.classes, forward.rows / forward.groups,
                               of_pixels ? kPixelsOfThread<S> : kRowPack<S, Form>, kMaxTileClasses<S>);
  if (way == RowWay::kByClass && has_parts(p)) return launch_parts(p, context);
  if (backward.denominator) {
    const Shares shares(forward.rows, forward.groups, kThreadsToSum * kLoadsInFlight);
    launch_shares<S>(forward, shares, context, [&](RowTotals* of_shares) {
      LAUNCH((sum_row_weights<S>), shares.count, kThreadsToSum, context.stream, forward, shares, of_shares);
    });
  }
  switch (way) {
    case RowWay::kInTiles:
      return launch_in_tiles<S, Form>(p, context);
    case RowWay::kByClass:
      return fits_cluster(p) ? launch_by_cluster(p, context) : launch_by_class(p, context);
    case RowWay::kByRowPack:
      if (of_pixels) return launch_of_pixels(p, context);
      return launch_by_row<S, Form, kRowPack<S, Form>>(p, context);
    case RowWay::kByRow:
      return launch_by_row<S, Form, 1>(p, context);
  }
}

}  // namespace

void launch(const CrossEntropyWithGrad& problem, const LaunchContext& context) {
  const CrossEntropyForward& forward = problem.forward;
  if (forward.groups == 0 || (forward.rows == 0 && forward.reduction == Reduction::kNone)) return;
  if (forward.classes == 0) return launch(forward, context);  // a loss, and no gradient
  dispatch<__half, __nv_bfloat16>(forward.dtype, [&](auto s) {
    dispatch_form(forward, [&](auto form) { launch_with_grad<decltype(s), decltype(form)>(problem, context); });
  });
}

}  // namespace ce_ext::cuda
