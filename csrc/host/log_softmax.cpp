// The log-softmax ops.
#include <ATen/ops/empty_like.h>
#include <c10/core/WrapDimMinimal.h>
#include <torch/library.h>

#include <optional>

#include "host/backends.h"
#include "host/checks.h"
#include "host/ops.h"
#include "host/row_layout.h"

namespace ce_ext {
namespace {

// Whether output of `output_dtype` is wider than input of `input_dtype`. Only float32 for a half is.
bool check_widens(const char* name, at::ScalarType input_dtype, at::ScalarType output_dtype) {
  const bool is_half = input_dtype == at::kHalf || input_dtype == at::kBFloat16;
  TORCH_CHECK(output_dtype == input_dtype || (is_half && output_dtype == at::kFloat), name,
              " must be that of input or, for float16 and bfloat16, float32, but got ", output_dtype,
              " for an input of ", input_dtype);
  return output_dtype != input_dtype;
}

void describe(LogSoftmaxProblem& problem, const at::Tensor& tensor, int64_t dim) {
  problem.classes = tensor.size(dim);
  problem.rows = problem.classes > 0 ? tensor.numel() / problem.classes : 0;
}

at::Tensor log_softmax_forward(const at::Tensor& input, int64_t dim, std::optional<at::ScalarType> dtype) {
  LogSoftmaxForward problem{};
  problem.dtype = check_input_dtype(input);
  check_aligned("input", input);
  const at::ScalarType output_dtype = dtype.value_or(input.scalar_type());
  problem.widens = check_widens("dtype", input.scalar_type(), output_dtype);
  dim = c10::maybe_wrap_dim(dim, input.dim());
  if (input.dim() == 0) return log_softmax_forward(input.unsqueeze(0), dim, dtype).squeeze(0);

  at::Tensor output = at::empty_like(input, input.options().dtype(output_dtype));
  if (!has_data(output)) return output;
  describe(problem, input, dim);
  problem.row_dims = lay_out_rows({{input, dim, problem.input_rows}, {output, dim, problem.output_rows}});
  problem.input = input.const_data_ptr();
  problem.input_class_stride = input.stride(dim);
  problem.output = output.mutable_data_ptr();
  problem.output_class_stride = output.stride(dim);
  run(input, problem);
  return output;
}

at::Tensor log_softmax_backward(const at::Tensor& grad_output, const at::Tensor& output, int64_t dim,
                                at::ScalarType input_dtype) {
  check_from_forward("grad_output", grad_output, output.sym_sizes(), output.scalar_type(), output);
  check_aligned("output", output);
  dim = c10::maybe_wrap_dim(dim, output.dim());
  if (output.dim() == 0) {
    return log_softmax_backward(grad_output.unsqueeze(0), output.unsqueeze(0), dim, input_dtype).squeeze(0);
  }

  LogSoftmaxBackward problem{};
  at::Tensor grad_input = at::empty_like(output, output.options().dtype(input_dtype));
  problem.dtype = check_input_dtype(grad_input);
  problem.widens = check_widens("the dtype of output", input_dtype, output.scalar_type());
  if (!has_data(grad_input)) return grad_input;
  describe(problem, output, dim);
  problem.row_dims = lay_out_rows({{output, dim, problem.output_rows},
                                   {grad_output, dim, problem.grad_output_rows},
                                   {grad_input, dim, problem.grad_input_rows}});
  problem.grad_output = grad_output.const_data_ptr();
  problem.grad_output_class_stride = grad_output.stride(dim);
  problem.output = output.const_data_ptr();
  problem.output_class_stride = output.stride(dim);
  problem.grad_input = grad_input.mutable_data_ptr();
  problem.grad_input_class_stride = grad_input.stride(dim);
  run(output, problem);
  return grad_input;
}

}  // namespace

void register_log_softmax(torch::Library& m) {
  m.impl("log_softmax_forward", [](const at::Tensor& input, int64_t dim, std::optional<at::ScalarType> dtype) {
    return log_softmax_forward(input, dim, dtype);
  });
  m.impl("log_softmax_backward",
         [](const at::Tensor& grad_output, const at::Tensor& output, int64_t dim, at::ScalarType input_dtype) {
           return log_softmax_backward(grad_output, output, dim, input_dtype);
         });
}

}  // namespace ce_ext
