#include "cuda/cross_entropy_backward.cuh"
#include "cuda/cross_entropy_forward.cuh"
#include "cuda/launch.h"
#include "cuda/row_totals.cuh"

namespace ce_ext::cuda {
namespace {

template <class A>
DeviceLoss<A> make_loss(const CrossEntropyProblem& p, double loss_scale, void* workspace, cudaStream_t stream) {
  DeviceLoss<A> loss{{p.options, p.classes, A(p.classes)}, Logits<A, true>(p.options.logits), A(loss_scale), nullptr};
  if (p.weight && p.options.label_smoothing > 0) {
    A* weight_sum = static_cast<A*>(workspace);
    LAUNCH((sum_weights<A>), 1, kThreadsToSum, stream, static_cast<const A*>(p.weight), p.classes, weight_sum);
    loss.weight_sum = weight_sum;
  }
  return loss;
}

bool by_class(const CrossEntropyProblem& p) {
  return p.input_class_stride == 1 && p.classes >= kMinClassesForBlock && !p.input_is_log_prob;
}

template <class S, class Form>
void launch_forward(const CrossEntropyForward& p, void* workspace, cudaStream_t stream) {
  using A = opmath_t<S>;
  A* row_loss = Workspace::at<A>(workspace, Workspace(p).row_loss);
  if (p.rows > 0) {
    const DeviceLoss<A> loss = make_loss<A>(p, 1, workspace, stream);
    if (by_class(p)) {
      LAUNCH((cross_entropy_forward_by_class<S, Form>), p.rows, kThreadsByClass, stream, p, loss, row_loss);
    } else {
      LAUNCH((cross_entropy_forward_by_row<S, Form>), divide_up(p.rows, kThreadsByRow), kThreadsByRow, stream, p, loss,
             row_loss);
    }
  }
  reduce<S>(p, workspace, row_loss, stream);
}

template <class S, bool kLogitsChange>
void launch_backward(const CrossEntropyBackward& p, void* workspace, cudaStream_t stream) {
  const auto loss = make_loss<opmath_t<S>>(p, 1, workspace, stream);
  if (by_class(p) && p.grad_input_class_stride == 1) {
    LAUNCH((cross_entropy_backward_by_class<S, kLogitsChange>), p.rows, kThreadsByClass, stream, p, loss);
  } else {
    LAUNCH((cross_entropy_backward_by_row<S, kLogitsChange>), divide_up(p.rows, kThreadsByRow), kThreadsByRow, stream,
           p, loss);
  }
}

// Zeros but at the targets. (The memory of a new gradient is dense, whatever its strides.)
template <class S>
void launch_nll_backward(const CrossEntropyBackward& p, cudaStream_t stream) {
  cudaMemsetAsync(p.grad_input, 0, p.rows * p.classes * sizeof(S), stream);
  LAUNCH((nll_backward<S>), divide_up(p.rows, kThreadsByRow), kThreadsByRow, stream, p);
}

template <class S, class Form>
void launch_with_grad(const CrossEntropyWithGrad& p, void* workspace, cudaStream_t stream) {
  using A = opmath_t<S>;
  const CrossEntropyForward& forward = p.forward;
  A* row_loss = Workspace::at<A>(workspace, Workspace(forward).row_loss);
  if (forward.rows > 0) {
    if (forward.reduction == Reduction::kMean) reduce<S>(forward, workspace, nullptr, stream);  // for the divisor
    const DeviceLoss<A> loss = make_loss<A>(forward, p.backward.loss_scale, workspace, stream);
    if (by_class(forward) && p.backward.grad_input_class_stride == 1) {
      LAUNCH((cross_entropy_with_grad_by_class<S, Form>), forward.rows, kThreadsByClass, stream, p, loss, row_loss);
    } else {
      LAUNCH((cross_entropy_with_grad_by_row<S, Form>), divide_up(forward.rows, kThreadsByRow), kThreadsByRow, stream,
             p, loss, row_loss);
    }
  }
  reduce<S>(forward, workspace, row_loss, stream);
}

}  // namespace

int64_t workspace_size(const CrossEntropyForward& problem) { return Workspace(problem).end; }
int64_t workspace_size(const CrossEntropyBackward&) { return kWeightSumBytes; }
int64_t workspace_size(const CrossEntropyWithGrad& problem) { return Workspace(problem.forward).end; }

void launch(const CrossEntropyForward& problem, void* workspace, CUstream_st* stream) {
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) {
    dispatch_form(problem, [&](auto form) { launch_forward<decltype(s), decltype(form)>(problem, workspace, stream); });
  });
}

void launch(const CrossEntropyBackward& problem, void* workspace, CUstream_st* stream) {
  if (problem.rows == 0 || problem.classes == 0) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) {
    using S = decltype(s);
    if (problem.input_is_log_prob) {
      launch_nll_backward<S>(problem, stream);
    } else if (problem.options.logits.change()) {
      launch_backward<S, true>(problem, workspace, stream);
    } else {
      launch_backward<S, false>(problem, workspace, stream);
    }
  });
}

void launch(const CrossEntropyWithGrad& problem, void* workspace, CUstream_st* stream) {
  dispatch<__half, __nv_bfloat16>(problem.forward.dtype, [&](auto s) {
    dispatch_form(problem.forward,
                  [&](auto form) { launch_with_grad<decltype(s), decltype(form)>(problem, workspace, stream); });
  });
}

}  // namespace ce_ext::cuda
