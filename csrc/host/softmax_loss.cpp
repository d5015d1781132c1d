#include "host/softmax_loss.h"

#include <ATen/ops/empty.h>

#include "host/checks.h"

namespace ce_ext {

// Without the cost of a call where there is nothing to do, which for small problems counts.
at::Tensor convert(const at::Tensor& tensor, at::ScalarType dtype) {
  if (!has_data(tensor)) return tensor;
  return (tensor.scalar_type() == dtype ? tensor : tensor.to(dtype)).contiguous();
}

SoftmaxLossArguments::SoftmaxLossArguments(const SoftmaxLossTensors& tensors, const SoftmaxLossSettings& settings_,
                                           int64_t saved_numbers_)
    : input(tensors.input), settings(settings_), saved_numbers(saved_numbers_), opmath(opmath_dtype(input)) {
  dtype = check_input_dtype(input);
  check_aligned("input", input);
  class_dim = check_class_dim("input", input, settings.batch_dims);
  reduction = check_reduction(settings.reduction);
  check_options(settings.options);
  loss_dtype = check_out_dtype(settings.out_dtype, input.scalar_type(), opmath);
  row_shape = input.sym_sizes();
  row_shape.erase(row_shape.begin() + class_dim);
  if (tensors.weight && tensors.weight->defined()) {
    check_factors("weight", *tensors.weight, input.sym_sizes().slice(class_dim, 1), "number for each class", input,
                  opmath);
    weight = convert(*tensors.weight, opmath);
  }
  if (tensors.sample_weight && tensors.sample_weight->defined()) {
    check_factors("sample_weight", *tensors.sample_weight, row_shape, "number for each row", input, opmath);
    sample_weight = convert(*tensors.sample_weight, opmath);
  }
}

void SoftmaxLossArguments::describe(SoftmaxLossProblem& problem) const {
  problem.dtype = dtype;
  problem.loss_is_opmath = loss_dtype == opmath;
  problem.rows = c10::multiply_integers(C10_AS_INTARRAYREF_SLOW(row_shape));
  problem.classes = classes();
  problem.input = input.const_data_ptr();
  problem.input_class_stride = input.stride(class_dim);
  problem.weight = weight.defined() ? weight.const_data_ptr() : nullptr;
  problem.sample_weight = sample_weight.defined() ? sample_weight.const_data_ptr() : nullptr;
  problem.options = settings.options;
}

c10::SymDimVector SoftmaxLossArguments::rows_of(int64_t columns) const {
  c10::SymDimVector shape(row_shape);
  shape.push_back(columns);
  return shape;
}

ForwardResults::ForwardResults(const SoftmaxLossArguments& arguments, bool keep_stats, bool with_report) {
  const auto opmath = arguments.input.options().dtype(arguments.opmath);
  loss = at::empty_symint(arguments.loss(), arguments.input.options().dtype(arguments.loss_dtype));
  if (arguments.reduction == Reduction::kMean) denominator = at::empty_symint(arguments.batch(), opmath);
  if (keep_stats && arguments.saved_numbers > 0) stats = at::empty_symint(arguments.stats(), opmath);
  if (with_report) {
    report = at::empty_symint(arguments.rows_of(sizeof(RowReport<float>) / sizeof(float)), opmath);
    argmax = at::empty_symint(arguments.row_shape, opmath.dtype(at::kLong));
  }
}

void ForwardResults::describe(const SoftmaxLossArguments& arguments, LossForward& problem) const {
  const auto data = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr() : nullptr; };
  problem.reduction = arguments.reduction;
  problem.mean_divisor = arguments.settings.mean_divisor;
  problem.groups = problem.reduction == Reduction::kNone ? 1 : loss.numel();
  problem.loss = data(loss);
  problem.denominator = data(denominator);
  problem.saved = data(stats);
  problem.report = data(report);
  problem.argmax = static_cast<int64_t*>(data(argmax));
}

void check_from_forward(const SoftmaxLossArguments& arguments, const at::Tensor& grad_output, const at::Tensor& stats,
                        const at::Tensor& denominator) {
  const at::Tensor& input = arguments.input;
  check_from_forward("grad_output", grad_output, arguments.loss(), arguments.loss_dtype, input);
  if (arguments.saved_numbers > 0) check_from_forward("stats", stats, arguments.stats(), arguments.opmath, input);
  if (arguments.reduction == Reduction::kMean) {
    check_from_forward("denominator", denominator, arguments.batch(), arguments.opmath, input);
  }
}

}  // namespace ce_ext
