// A gradient that is to be multiplied by what comes from upstream, after every check. Torch-free.
#pragma once

#include "host/dtype.h"
#include "host/rows.h"

namespace ce_ext {

struct ScaleGradient {
  DType dtype;
  bool grad_output_is_opmath;  // its dtype: opmath, or that of the gradient
  int64_t rows;
  int64_t classes;
  RowDims row_dims;

  void* grad_input;  // where a row is multiplied by grad_output / loss_scale
  RowStrides grad_input_rows;
  int64_t class_stride;
  const void* grad_output;
  RowStrides grad_output_rows;
  double loss_scale;
};

}  // namespace ce_ext
