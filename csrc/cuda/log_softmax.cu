#include "cuda/launch.h"
#include "cuda/log_softmax.cuh"

namespace ce_ext::cuda {
namespace {

int64_t blocks_by_row(const LogSoftmaxProblem& p) { return (p.rows + kThreadsByRow - 1) / kThreadsByRow; }

template <class S, class Out>
void launch_forward(const LogSoftmaxForward& p, cudaStream_t stream) {
  if (p.input_class_stride == 1 && p.output_class_stride == 1 && p.classes >= kMinClassesForBlock) {
    LAUNCH((log_softmax_forward_by_class<S, Out>), p.rows, kThreadsByClass, stream, p);
  } else {
    LAUNCH((log_softmax_forward_by_row<S, Out>), blocks_by_row(p), kThreadsByRow, stream, p);
  }
}

template <class S, class Out>
void launch_backward(const LogSoftmaxBackward& p, cudaStream_t stream) {
  const bool contiguous =
      p.grad_output_class_stride == 1 && p.output_class_stride == 1 && p.grad_input_class_stride == 1;
  if (contiguous && p.classes >= kMinClassesForBlock) {
    LAUNCH((log_softmax_backward_by_class<S, Out>), p.rows, kThreadsByClass, stream, p);
  } else {
    LAUNCH((log_softmax_backward_by_row<S, Out>), blocks_by_row(p), kThreadsByRow, stream, p);
  }
}

}  // namespace

int64_t workspace_size(const LogSoftmaxForward&) { return 0; }
int64_t workspace_size(const LogSoftmaxBackward&) { return 0; }

void launch(const LogSoftmaxForward& problem, void*, CUstream_st* stream) {
  if (problem.rows == 0) return;
  dispatch<__half, __nv_bfloat16>(
      problem, [&](auto s, auto out) { launch_forward<decltype(s), decltype(out)>(problem, stream); });
}

void launch(const LogSoftmaxBackward& problem, void*, CUstream_st* stream) {
  if (problem.rows == 0) return;
  dispatch<__half, __nv_bfloat16>(
      problem, [&](auto s, auto out) { launch_backward<decltype(s), decltype(out)>(problem, stream); });
}

}  // namespace ce_ext::cuda
