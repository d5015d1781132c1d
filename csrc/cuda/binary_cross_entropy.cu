#include "cuda/binary_cross_entropy.cuh"
#include "cuda/launch.h"

namespace ce_ext::cuda {
namespace {

Slices slices_of(int64_t elements, int64_t groups) {
  const int64_t group_elements = groups > 0 ? elements / groups : 0;
  return {group_elements, divide_up(group_elements, kElementsPerSlice)};
}

// As PlainElements has it.
template <class Problem>
bool is_plain(const Problem& p, const RowStrides& result1, const RowStrides& result2) {
  const auto is_contiguous = [](const RowStrides& strides) { return strides.strides[0] == 1; };
  const auto is_one_number = [](const Operand& operand) { return !operand.data || operand.strides.strides[0] == 0; };
  const auto is_either = [&](const Operand& operand) {
    return is_one_number(operand) || is_contiguous(operand.strides);
  };
  const bool has_integers = p.target.type > NumberType::kUInt8;
  const bool has_more = !is_one_number(p.pos_weight) || p.class_alpha.data || p.has_ignored || p.target_is_class;
  return p.dims.ndim == 1 && !has_integers && !has_more && is_contiguous(p.input.strides) &&
         is_contiguous(p.target.strides) && is_either(p.weight) && is_either(p.grad_output) &&
         is_one_number(p.divisor) && is_contiguous(result1) && is_contiguous(result2);
}

template <class S, BinaryInput kInput>
void launch_forward(const BinaryCrossEntropyForward& p, void* workspace, cudaStream_t stream) {
  const auto loss = BinaryCrossEntropy<opmath_t<S>, kInput>::template make<opmath_t<S>>(p.options);
  const Slices slices = slices_of(p.elements, p.groups);
  const int64_t blocks = p.groups * slices.per_group;
  auto* totals = static_cast<RowTotals*>(workspace);
  if (p.elements > 0 && is_plain(p, p.loss_strides, p.loss_strides)) {
    LAUNCH((binary_cross_entropy_forward_in_packs<S, kInput>), blocks, kThreadsByElement, stream, p, loss, slices,
           totals);
  } else if (p.elements > 0) {
    LAUNCH((binary_cross_entropy_forward_by_element<S, kInput>), blocks, kThreadsByElement, stream, p, loss, slices,
           totals);
  }
  if (p.reduction == Reduction::kNone || p.groups == 0) return;
  LAUNCH((finish_groups<S, BinaryCrossEntropyForward>), p.groups, kThreadsToSum, stream, p, slices.per_group, totals);
}

template <class S, BinaryInput kInput>
void launch_backward(const BinaryCrossEntropyBackward& p, cudaStream_t stream) {
  const auto loss = BinaryCrossEntropy<opmath_t<S>, kInput>::template make<opmath_t<S>>(p.options);
  const Slices slices = slices_of(p.elements, 1);
  if (is_plain(p, p.grad_input_strides, p.grad_target_strides)) {
    LAUNCH((binary_cross_entropy_backward_in_packs<S, kInput>), slices.per_group, kThreadsByElement, stream, p, loss,
           slices);
  } else {
    LAUNCH((binary_cross_entropy_backward_by_element<S, kInput>), slices.per_group, kThreadsByElement, stream, p, loss,
           slices);
  }
}

}  // namespace

int64_t workspace_size(const BinaryCrossEntropyForward& problem) {
  const int64_t slices = problem.groups * slices_of(problem.elements, problem.groups).per_group;
  return problem.reduction == Reduction::kNone ? 0 : slices * int64_t(sizeof(RowTotals));
}
int64_t workspace_size(const BinaryCrossEntropyBackward&) { return 0; }

void launch(const BinaryCrossEntropyForward& problem, void* workspace, CUstream_st* stream) {
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) {
    dispatch_input(problem, [&](auto input) { launch_forward<decltype(s), input.value>(problem, workspace, stream); });
  });
}

void launch(const BinaryCrossEntropyBackward& problem, void*, CUstream_st* stream) {
  if (problem.elements == 0) return;
  dispatch<__half, __nv_bfloat16>(problem.dtype, [&](auto s) {
    dispatch_input(problem, [&](auto input) { launch_backward<decltype(s), input.value>(problem, stream); });
  });
}

}  // namespace ce_ext::cuda
