#include "cuda/elements/binary_cross_entropy_launch.cuh"

namespace ce_ext::cuda {
namespace {

template <class S>
void launch_backward(const BinaryCrossEntropyBackward& p, const LaunchContext& context) {
  const Shares shares = shares_of<S>(p, 1);
  if (is_plain<S>(p)) {
    dispatch_plain<S>(p, [&](auto number, const auto& loss) {
      using N = decltype(number);
      using Loss = std::decay_t<decltype(loss)>;
      LAUNCH((binary_cross_entropy_backward_in_packs<S, N, Loss>), shares.count, kThreadsByElement, context.stream, p,
             loss, shares);
    });
  } else {
    dispatch_any<S>(p, [&](auto run, const auto& loss) {
      using Loss = std::decay_t<decltype(loss)>;
      LAUNCH((binary_cross_entropy_backward_in_runs<S, Loss, run.value>), shares.count, kThreadsByElement,
             context.stream, p, loss, shares, context.bad_target);
    });
  }
}

}  // namespace

void launch(const BinaryCrossEntropyBackward& problem, const LaunchContext& context) {
  if (problem.elements == 0) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) { launch_backward<decltype(s)>(problem, context); });
}

}  // namespace ce_ext::cuda
