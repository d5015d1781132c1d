#include "host/row_layout.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace ce_ext {
namespace {

int64_t stride_of(const RowOperand& operand, int64_t row_dim) {
  const bool after_class = operand.class_dim != kNoClassDim && row_dim >= operand.class_dim;
  const int64_t dim = row_dim + (after_class ? 1 : 0);
  return dim < operand.tensor.dim() ? operand.tensor.stride(dim) : 0;
}

}  // namespace

RowDims lay_out_rows(std::initializer_list<RowOperand> operands) {
  const at::Tensor& first = operands.begin()->tensor;
  const int64_t class_dim = operands.begin()->class_dim;
  RowDims dims;
  for (int64_t row_dim = 0, dim = 0; dim < first.dim(); ++dim) {
    if (dim == class_dim) continue;
    const int64_t size = first.size(dim);
    if (size != 1) {
      const int outer = dims.ndim - 1;
      bool mergeable = outer >= 0;
      for (const RowOperand& operand : operands) {
        mergeable = mergeable && operand.strides.strides[outer] == stride_of(operand, row_dim) * size;
      }
      if (mergeable) {
        dims.sizes[outer] *= size;
      } else {
        TORCH_CHECK_NOT_IMPLEMENTED(dims.ndim < kMaxRowDims, "input of shape ", first.sizes(), " and strides ",
                                    first.strides(), " has more than ", kMaxRowDims,
                                    " dimensions that cannot be merged; make it contiguous");
        dims.sizes[dims.ndim++] = size;
      }
      for (const RowOperand& operand : operands) {
        operand.strides.strides[dims.ndim - 1] = stride_of(operand, row_dim);
      }
    }
    ++row_dim;
  }
  if (dims.ndim == 0) dims.sizes[dims.ndim++] = 1;
  for (const RowOperand& operand : operands) {
    const auto& strides = operand.strides.strides;
    operand.strides.differ = std::any_of(strides, strides + dims.ndim, [](int64_t stride) { return stride != 0; });
  }
  return dims;
}

}  // namespace ce_ext
