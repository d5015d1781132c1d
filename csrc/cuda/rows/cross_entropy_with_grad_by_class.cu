#include "cuda/rows/clusters.cuh"
#include "cuda/rows/cross_entropy_launch.cuh"

namespace ce_ext::cuda {
namespace {

template <class S, class Form>
void launch_rows(const CrossEntropyWithGrad& p, const LaunchContext& context) {
  constexpr bool kMany = kManyRegisters<S, Form>;
  const auto loss = make_loss<opmath_t<S>>(p, context);
  const CrossEntropyForward& forward = p.forward;
  const RowParts parts(forward.rows, forward.classes, sizeof(S));
  if (parts.per_row > 1) {
    auto* gradients = context.allocate<RowGradient<opmath_t<S>, Form::kLogitsChange>>(forward.rows);
    launch_parts<S, Form>(p, parts, loss, context, gradients);
    return launch_backward_by_class<S, Form::kLogitsChange>(p.backward, loss, gradients, context.stream);
  }
  const RowShape shape = shape_of(Pass::kWithGrad, forward.classes * sizeof(S), max_row_threads(kMany));
  dispatch_packs<kMany>(shape, [&](auto packs) {
    launch_shares(cross_entropy_with_grad_by_class<S, Form, packs.value>, shape, forward.rows, forward, p, loss,
                  context);
  });
}

}  // namespace

void launch_by_class(const CrossEntropyWithGrad& problem, const LaunchContext& context) {
  dispatch<__half, __nv_bfloat16>(problem.forward.dtype, [&](auto s) {
    dispatch_form(problem.forward, [&](auto form) { launch_rows<decltype(s), decltype(form)>(problem, context); });
  });
}

}  // namespace ce_ext::cuda
