#include "cuda/cross_entropy.cuh"
#include "cuda/launch.h"

namespace ce_ext::cuda {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How the forward pass shares out its workspace; every part is aligned for float64. In both directions it begins with
// the sum of the class weights.
constexpr int64_t kWeightSumBytes = sizeof(double);

struct Workspace {
  int64_t group_rows;
  int64_t slices;  // of a group
  int64_t totals = kWeightSumBytes;
  int64_t row_loss;
  int64_t end;

  explicit Workspace(const CrossEntropyForward& p)
      : group_rows(p.groups > 0 ? p.rows / p.groups : 0), slices(divide_up(group_rows, kRowsPerSlice)) {
    const bool reduced = p.reduction != Reduction::kNone;
    row_loss = totals + (reduced ? p.groups * slices * int64_t(sizeof(RowTotals)) : 0);
    end = row_loss + (reduced ? p.rows * int64_t(p.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float)) : 0);
  }

  template <class T>
  static T* at(void* workspace, int64_t offset) {
    return reinterpret_cast<T*>(static_cast<char*>(workspace) + offset);
  }
};

template <class A>
DeviceLoss<A> make_loss(const CrossEntropyProblem& p, void* workspace, cudaStream_t stream) {
  const CrossEntropy<A> loss(p.label_smoothing, p.classes, A(p.classes));
  if (!p.weight || p.label_smoothing == 0) return {loss, nullptr};
  A* weight_sum = static_cast<A*>(workspace);
  LAUNCH((sum_weights<A>), 1, kThreadsToSum, stream, static_cast<const A*>(p.weight), p.classes, weight_sum);
  return {loss, weight_sum};
}

template <class S, bool kGaps>
void launch_rows(const CrossEntropyForward& p, const DeviceLoss<opmath_t<S>>& loss, opmath_t<S>* row_loss,
                 cudaStream_t stream) {
  if (p.input_class_stride == 1 && p.classes >= kMinClassesForBlock) {
    LAUNCH((cross_entropy_forward_by_class<S, kGaps>), p.rows, kThreadsByClass, stream, p, loss, row_loss);
  } else {
    LAUNCH((cross_entropy_forward_by_row<S, kGaps>), divide_up(p.rows, kThreadsByRow), kThreadsByRow, stream, p, loss,
           row_loss);
  }
}

template <class S>
void launch_forward(const CrossEntropyForward& p, void* workspace, cudaStream_t stream) {
  using A = opmath_t<S>;
  const Workspace parts(p);
  A* row_loss = Workspace::at<A>(workspace, parts.row_loss);
  if (p.rows > 0) {
    const DeviceLoss<A> loss = make_loss<A>(p, workspace, stream);
    if (p.label_smoothing > 0) {
      launch_rows<S, true>(p, loss, row_loss, stream);
    } else {
      launch_rows<S, false>(p, loss, row_loss, stream);
    }
  }
  if (p.reduction == Reduction::kNone || p.groups == 0) return;
  RowTotals* totals = Workspace::at<RowTotals>(workspace, parts.totals);
  if (p.rows > 0) {
    LAUNCH((cross_entropy_sum_slices<S>), p.groups * parts.slices, kThreadsToSum, stream, p, parts.group_rows,
           parts.slices, row_loss, totals);
  }
  LAUNCH((cross_entropy_finish_groups<S>), p.groups, kThreadsToSum, stream, p, parts.slices, totals);
}

template <class S>
void launch_backward(const CrossEntropyBackward& p, void* workspace, cudaStream_t stream) {
  if (p.rows == 0 || p.classes == 0) return;
  const auto loss = make_loss<opmath_t<S>>(p, workspace, stream);
  if (p.input_class_stride == 1 && p.grad_input_class_stride == 1 && p.classes >= kMinClassesForBlock) {
    LAUNCH((cross_entropy_backward_by_class<S>), p.rows, kThreadsByClass, stream, p, loss);
  } else {
    LAUNCH((cross_entropy_backward_by_row<S>), divide_up(p.rows, kThreadsByRow), kThreadsByRow, stream, p, loss);
  }
}

}  // namespace

int64_t workspace_size(const CrossEntropyForward& problem) { return Workspace(problem).end; }
int64_t workspace_size(const CrossEntropyBackward&) { return kWeightSumBytes; }

void launch(const CrossEntropyForward& problem, void* workspace, CUstream_st* stream) {
  dispatch<__half, __nv_bfloat16>(problem.dtype,
                                  [&](auto s) { launch_forward<decltype(s)>(problem, workspace, stream); });
}

void launch(const CrossEntropyBackward& problem, void* workspace, CUstream_st* stream) {
  dispatch<__half, __nv_bfloat16>(problem.dtype,
                                  [&](auto s) { launch_backward<decltype(s)>(problem, workspace, stream); });
}

}  // namespace ce_ext::cuda
