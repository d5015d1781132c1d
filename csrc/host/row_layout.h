// From the strides of tensors to the RowDims and RowStrides that kernels read.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>

#include "host/rows.h"

namespace ce_ext {

constexpr int64_t kNoClassDim = -1;

// A tensor with one entry for every row, or with `class_dim` one for every class of every row. Trailing dimensions that
// it lacks share its entries.
struct RowOperand {
  const at::Tensor& tensor;
  int64_t class_dim;
  RowStrides& strides;  // where its layout is written
};

// Lays out tensors over the rows of the first of them: neighbouring dimensions merge wherever all tensors can be
// stepped through with one stride. No tensor is copied.
RowDims lay_out_rows(std::initializer_list<RowOperand> operands);

}  // namespace ce_ext
