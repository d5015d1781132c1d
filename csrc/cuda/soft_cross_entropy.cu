#include "cuda/launch.h"
#include "cuda/row_totals.cuh"
#include "cuda/soft_cross_entropy.cuh"

namespace ce_ext::cuda {
namespace {

template <class A>
SoftDeviceLoss<A> make_loss(const SoftCrossEntropyProblem& p) {
  return {SoftCrossEntropy<A>::template make<A>(p.options, p.classes), Logits<A, true>(p.options.logits)};
}

bool by_class(const SoftCrossEntropyProblem& p) {
  return p.input_class_stride == 1 && p.target_class_stride == 1 && p.classes >= kMinClassesForBlock;
}

template <class S, class Q, class Form>
void launch_forward(const SoftCrossEntropyForward& p, void* workspace, cudaStream_t stream) {
  using A = opmath_t<S>;
  A* row_loss = Workspace::at<A>(workspace, Workspace(p).row_loss);
  const auto loss = make_loss<A>(p);
  if (p.rows > 0 && by_class(p)) {
    LAUNCH((soft_cross_entropy_forward_by_class<S, Q, Form>), p.rows, kThreadsByClass, stream, p, loss, row_loss);
  } else if (p.rows > 0) {
    LAUNCH((soft_cross_entropy_forward_by_row<S, Q, Form>), divide_up(p.rows, kThreadsByRow), kThreadsByRow, stream, p,
           loss, row_loss);
  }
  reduce<S>(p, workspace, row_loss, stream);
}

template <class S, class Q, bool kLogitsChange>
void launch_backward(const SoftCrossEntropyBackward& p, cudaStream_t stream) {
  const auto loss = make_loss<opmath_t<S>>(p);
  if (by_class(p) && p.grad_input_class_stride == 1 && p.grad_target_class_stride == 1) {
    LAUNCH((soft_cross_entropy_backward_by_class<S, Q, kLogitsChange>), p.rows, kThreadsByClass, stream, p, loss);
  } else {
    LAUNCH((soft_cross_entropy_backward_by_row<S, Q, kLogitsChange>), divide_up(p.rows, kThreadsByRow), kThreadsByRow,
           stream, p, loss);
  }
}

}  // namespace

int64_t workspace_size(const SoftCrossEntropyForward& problem) { return Workspace(problem).end; }
int64_t workspace_size(const SoftCrossEntropyBackward&) { return 0; }

void launch(const SoftCrossEntropyForward& problem, void* workspace, CUstream_st* stream) {
  dispatch<__half, __nv_bfloat16>(problem, [&](auto s, auto q) {
    dispatch_form(problem, [&](auto form) {
      launch_forward<decltype(s), decltype(q), decltype(form)>(problem, workspace, stream);
    });
  });
}

void launch(const SoftCrossEntropyBackward& problem, void*, CUstream_st* stream) {
  if (problem.rows == 0 || problem.classes == 0) return;
  dispatch<__half, __nv_bfloat16>(problem, [&](auto s, auto q) {
    using S = decltype(s);
    using Q = decltype(q);
    problem.options.logits.change() ? launch_backward<S, Q, true>(problem, stream)
                                    : launch_backward<S, Q, false>(problem, stream);
  });
}

}  // namespace ce_ext::cuda
