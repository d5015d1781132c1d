#include "host/row_layout.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <vector>

namespace ce_ext {
namespace {

std::vector<int64_t> without_class(at::IntArrayRef values, int64_t class_dim) {
  auto result = values.vec();
  if (class_dim != kNoClassDim) result.erase(result.begin() + class_dim);
  return result;
}

}  // namespace

RowDims lay_out_rows(std::initializer_list<RowOperand> operands) {
  const RowOperand& first = *operands.begin();
  const auto sizes = without_class(first.tensor.sizes(), first.class_dim);
  std::vector<std::vector<int64_t>> strides;
  for (const RowOperand& operand : operands) {
    strides.push_back(without_class(operand.tensor.strides(), operand.class_dim));
    operand.strides = RowStrides{};
  }

  RowDims dims;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 1) continue;
    const int outer = dims.ndim - 1;
    bool mergeable = outer >= 0;
    for (size_t i = 0; i < strides.size() && mergeable; ++i) {
      mergeable = operands.begin()[i].strides.strides[outer] == strides[i][d] * sizes[d];
    }
    if (mergeable) {
      dims.sizes[outer] *= sizes[d];
    } else {
      TORCH_CHECK_NOT_IMPLEMENTED(dims.ndim < kMaxRowDims, "input of shape ", first.tensor.sizes(), " and strides ",
                                  first.tensor.strides(), " has more than ", kMaxRowDims,
                                  " dimensions that cannot be merged; make it contiguous");
      dims.sizes[dims.ndim++] = sizes[d];
    }
    for (size_t i = 0; i < strides.size(); ++i) {
      operands.begin()[i].strides.strides[dims.ndim - 1] = strides[i][d];
    }
  }
  if (dims.ndim == 0) dims.sizes[dims.ndim++] = 1;
  return dims;
}

}  // namespace ce_ext
