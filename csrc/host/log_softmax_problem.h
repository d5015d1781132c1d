// A log-softmax problem after every check: raw pointers, sizes and strides. Torch-free: what the drivers of both
// backends get.
#pragma once

#include "host/dtype.h"
#include "host/rows.h"

namespace ce_ext {

struct LogSoftmaxProblem {
  DType dtype;  // of input and grad_input
  bool widens;  // output and grad_output are in the opmath of dtype, else in dtype itself
  int64_t rows;
  int64_t classes;
  RowDims row_dims;
};

struct LogSoftmaxForward : LogSoftmaxProblem {
  const void* input;
  RowStrides input_rows;
  int64_t input_class_stride;
  void* output;
  RowStrides output_rows;
  int64_t output_class_stride;
};

struct LogSoftmaxBackward : LogSoftmaxProblem {
  const void* grad_output;
  RowStrides grad_output_rows;
  int64_t grad_output_class_stride;
  const void* output;
  RowStrides output_rows;
  int64_t output_class_stride;
  void* grad_input;
  RowStrides grad_input_rows;
  int64_t grad_input_class_stride;
};

// Calls f with a value of the element type of input and one of that of output.
template <class Half, class BFloat16, class F>
auto dispatch(const LogSoftmaxProblem& problem, F f) {
  return dispatch<Half, BFloat16>(problem.dtype, [&](auto s) {
    using S = decltype(s);
    using A = opmath_t<S>;
    return problem.widens ? f(s, A()) : f(s, S());
  });
}

}  // namespace ce_ext
