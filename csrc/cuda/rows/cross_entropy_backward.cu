#include "cuda/rows/cross_entropy_launch.cuh"
#include "cuda/rows/nll_loss.cuh"

namespace ce_ext::cuda {
namespace {

// Teams of lanes, each with a chunk of a row.
template <class S, class Form>
void launch_by_class(const CrossEntropyBackward& p, const DeviceLoss<opmath_t<S>>& loss, cudaStream_t stream) {
  dispatch_team(row_threads(Pass::kBackward, p.classes * sizeof(S)), BackwardTeams(), [&](auto team) {
    const Divisor chunks(chunks_of_row<S, kPacks>(p.classes, team.kSize));
    LAUNCH((cross_entropy_backward_by_class<S, Form, team.kSize>), divide_up(p.rows * chunks.value, team.kCount),
           team.kThreads, stream, p, loss, chunks);
  });
}

template <class S, class Form, int kRows>
void launch_by_row(const CrossEntropyBackward& p, const DeviceLoss<opmath_t<S>>& loss, cudaStream_t stream) {
  LAUNCH((cross_entropy_backward_by_row<S, Form, kRows>), divide_up(p.rows, kThreadsByRow * kRows), kThreadsByRow,
         stream, p, loss);
}

template <class S, class Form>
void launch_in_tiles(const CrossEntropyBackward& p, const DeviceLoss<opmath_t<S>>& loss, cudaStream_t stream) {
  const TileShape shape = tile_shape<S, Form>(p);
  const Shares shares(p.rows, 1, shape.rows(), kTileBlocks);
  dispatch_word<S, kIsOften<S, Form>>(shape, [&](auto word) {
    LAUNCH_WITH_SHARED((cross_entropy_backward_in_tiles<S, Form, word.value>), shares.count, kTileThreads,
                       2 * CrossEntropyStage<S>::bytes(shape, p.classes, /*has_saved=*/true), stream, p, loss, shape,
                       shares);
  });
}

template <class S, class Form>
void launch_backward(const CrossEntropyBackward& p, const LaunchContext& context) {
  constexpr int kPack = sizeof(S) == 8 ? 1 : kRowsPerThread;
  const auto loss = make_loss<opmath_t<S>>(p, p.loss_scale, context);
  const bool of_pixels = are_pixels<S, Form>(p);
  switch (way_of<S>(
      {{p.input, p.input_rows, p.input_class_stride}, {p.grad_input, p.grad_input_rows, p.grad_input_class_stride}},
      p.row_dims, p.classes, p.rows, of_pixels ? kPixelsOfThread<S> : kPack, kMaxTileClasses<S>)) {
    case RowWay::kInTiles:
      launch_in_tiles<S, Form>(p, loss, context.stream);
      break;
    case RowWay::kByClass:
      launch_by_class<S, Form>(p, loss, context.stream);
      break;
    case RowWay::kByRowPack:
      if (of_pixels) return launch_of_pixels(p, context);
      launch_by_row<S, Form, kPack>(p, loss, context.stream);
      break;
    case RowWay::kByRow:
      launch_by_row<S, Form, 1>(p, loss, context.stream);
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
    dispatch_form(problem, [&](auto form) { launch_backward<S, decltype(form)>(problem, context); });
  });
}

}  // namespace ce_ext::cuda
