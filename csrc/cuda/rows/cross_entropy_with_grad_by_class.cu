#include "cuda/rows/cross_entropy_launch.cuh"

namespace ce_ext::cuda {
namespace {

template <class S, class Form>
void launch_rows(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  const auto loss = make_loss<opmath_t<S>>(p, context);
  const CrossEntropyForward& forward = p.forward;
  dispatch_team<kIsOften<S, Form>>(
      Pass::kWithGrad, forward.classes * sizeof(S), WithGradTeams(), FewWithGradTeams<S>(), [&](auto team) {
        launch_teams<S>(cross_entropy_with_grad_by_class<S, Form, team.kSize>, team, forward, p, loss, context);
      });
}

}  // namespace

void launch_by_class(const CrossEntropyWithGrad& problem, const LaunchContext& context) {
  dispatch<__half, __nv_bfloat16>(problem.forward.dtype, [&](auto s) {
    dispatch_form(problem.forward, [&](auto form) { launch_rows<decltype(s), decltype(form)>(problem, context); });
  });
}

}  // namespace ce_ext::cuda
