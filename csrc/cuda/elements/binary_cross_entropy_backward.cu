#include "cuda/elements/binary_cross_entropy_launch.cuh"

namespace ce_ext::cuda {
namespace {

template <class S, class Loss>
void launch_backward(const BinaryCrossEntropyBackward& p, const Loss& loss, const LaunchContext& context) {
  const Shares shares = shares_of<S>(p, 1);
  if (is_plain(p)) {
    dispatch_target<S>(p.target.type, [&](auto number) {
      using N = decltype(number);
      LAUNCH((binary_cross_entropy_backward_in_packs<S, N, Loss>), shares.count, kThreadsByElement, context.stream, p,
             loss, shares);
    });
  } else {
    dispatch_run<S>(p, [&](auto run) {
      LAUNCH((binary_cross_entropy_backward_in_runs<S, Loss, run.value>), shares.count, kThreadsByElement,
             context.stream, p, loss, shares, context.bad_target);
    });
  }
}

}  // namespace

void launch(const BinaryCrossEntropyBackward& problem, const LaunchContext& context) {
  if (problem.elements == 0) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) {
    using S = decltype(s);
    dispatch_loss<S>(problem, [&](const auto& loss) { launch_backward<S>(problem, loss, context); });
  });
}

}  // namespace ce_ext::cuda
