// A cross entropy problem after every check: raw pointers, sizes and strides. Torch-free: what the drivers of
// both backends get.
#pragma once

#include "host/dtype.h"
#include "host/rows.h"

namespace ce_ext {

enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

struct CrossEntropyProblem {
  DType dtype;  // of input, loss and gradients
  int64_t rows;
  int64_t classes;
  RowDims row_dims;

  const void* input;
  RowStrides input_rows;
  int64_t input_class_stride;
  const int64_t* target;  // contiguous, one a row
  const void* weight;     // one a class, in opmath, or null for ones
  int64_t ignore_index;
  double label_smoothing;
};

struct CrossEntropyForward : CrossEntropyProblem {
  Reduction reduction;
  int64_t groups;     // the rows are this many equal runs, and each is reduced to a loss of its own
  void* loss;         // one a row for kNone, else one a group
  void* stats;        // RowStats in opmath, one a row
  void* denominator;  // in opmath, one a group; kMean only
};

struct CrossEntropyBackward : CrossEntropyProblem {
  const void* stats;
  const void* grad_output;  // dtype; addressed by row, stride 0 where rows share it
  RowStrides grad_output_rows;
  const void* denominator;  // opmath; addressed by row likewise; null unless the forward was kMean
  RowStrides denominator_rows;
  void* grad_input;
  RowStrides grad_input_rows;
  int64_t grad_input_class_stride;
};

}  // namespace ce_ext
