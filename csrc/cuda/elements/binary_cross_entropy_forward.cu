#include "cuda/elements/binary_cross_entropy_launch.cuh"

namespace ce_ext::cuda {
namespace {

template <class S>
void launch_forward(const BinaryCrossEntropyForward& p, const LaunchContext& context) {
  const Shares shares = shares_of<S>(p, p.groups);
  if (p.elements > 0 && is_plain<S>(p)) {  // of no elements, not even what is one number for all is there
    dispatch_plain<S>(p, [&](auto number, const auto& loss) {
      using N = decltype(number);
      using Loss = std::decay_t<decltype(loss)>;
      launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
        LAUNCH((binary_cross_entropy_forward_in_packs<S, N, Loss>), shares.count, kThreadsByElement, context.stream, p,
               loss, shares, of_shares);
      });
    });
  } else {
    dispatch_any<S>(p, [&](auto run, const auto& loss) {
      using Loss = std::decay_t<decltype(loss)>;
      launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
        LAUNCH((binary_cross_entropy_forward_in_runs<S, Loss, run.value>), shares.count, kThreadsByElement,
               context.stream, p, loss, shares, of_shares, context.bad_target);
      });
    });
  }
}

}  // namespace

void launch(const BinaryCrossEntropyForward& problem, const LaunchContext& context) {
  const bool has_losses = problem.reduction == Reduction::kNone ? problem.elements > 0 : problem.groups > 0;
  if (!has_losses) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) { launch_forward<decltype(s)>(problem, context); });
}

}  // namespace ce_ext::cuda
