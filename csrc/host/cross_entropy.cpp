#include "host/cross_entropy.h"

#include <ATen/DimVector.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "host/checks.h"
#include "host/row_layout.h"

namespace ce_ext {
namespace {

at::ScalarType opmath_of(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Without the cost of a call where there is nothing to do, which for small problems counts.
at::Tensor convert(const at::Tensor& tensor, at::ScalarType dtype) {
  return (tensor.scalar_type() == dtype ? tensor : tensor.to(dtype)).contiguous();
}

// The arguments that all of the ops share, after every check, in the form that a problem can point into.
struct Arguments {
  const at::Tensor& input;
  const CrossEntropySettings& settings;
  Reduction reduction;
  at::ScalarType opmath;
  at::ScalarType loss_dtype;
  int64_t class_dim;
  int64_t classes;
  at::Tensor target;         // int64, contiguous
  at::Tensor weight;         // opmath, contiguous; undefined for none
  at::Tensor sample_weight;  // likewise

  // A sample is (C), or (N, C, d1, ...).
  Arguments(const CrossEntropyTensors& tensors, const CrossEntropySettings& settings_)
      : input(tensors.input), settings(settings_), opmath(opmath_of(input)), target(tensors.target) {
    const int64_t batch_dims = settings.batch_dims;
    TORCH_CHECK(batch_dims >= 0 && input.dim() > batch_dims, "input must have a dimension of classes",
                batch_dims ? " besides those of the batch" : "", ", but got shape ", input.sizes());
    reduction = check_reduction(settings.reduction);
    check_options(settings.options);
    loss_dtype = check_out_dtype(settings.out_dtype, input.scalar_type(), opmath);
    const bool one_row = input.dim() == batch_dims + 1;
    class_dim = one_row ? batch_dims : batch_dims + 1;
    classes = input.size(class_dim);
    // torch also takes a target of shape (1) for a sample of shape (C).
    if (one_row && target.dim() == input.dim() && target.size(-1) == 1) target = target.squeeze(-1);
    check_class_indices(input, target, class_dim);
    target = convert(target, at::kLong);
    if (tensors.weight && tensors.weight->defined()) {
      check_factors("weight", *tensors.weight, {classes}, "number for each class", input, opmath);
      weight = convert(*tensors.weight, opmath);
    }
    if (tensors.sample_weight && tensors.sample_weight->defined()) {
      check_factors("sample_weight", *tensors.sample_weight, target.sizes(), "number for each target", input, opmath);
      sample_weight = convert(*tensors.sample_weight, opmath);
    }
  }

  void describe(CrossEntropyProblem& problem) const {
    problem.dtype = check_input_dtype(input);
    problem.loss_is_opmath = loss_dtype == opmath;
    problem.input_is_log_prob = settings.input_is_log_prob;
    problem.rows = target.numel();
    problem.classes = classes;
    problem.input = input.const_data_ptr();
    problem.input_class_stride = input.stride(class_dim);
    problem.target = target.const_data_ptr<int64_t>();
    problem.weight = weight.defined() ? weight.const_data_ptr() : nullptr;
    problem.sample_weight = sample_weight.defined() ? sample_weight.const_data_ptr() : nullptr;
    problem.ignore_index = settings.ignore_index;
    problem.options = settings.options;
  }

  // The shapes of the results.
  at::IntArrayRef batch() const { return input.sizes().slice(0, settings.batch_dims); }
  at::IntArrayRef loss() const { return reduction == Reduction::kNone ? target.sizes() : batch(); }
  at::IntArrayRef denominator() const { return reduction == Reduction::kMean ? batch() : at::IntArrayRef(kNothing); }
  at::DimVector stats() const { return rows_of(sizeof(SavedRow<float>) / sizeof(float)); }
  at::DimVector rows_of(int64_t columns) const {
    at::DimVector shape(target.sizes());
    shape.push_back(columns);
    return shape;
  }

  template <class Problem>
  void run(Driver<Problem> driver, const Problem& problem) const {
    const int64_t bad_row = driver(problem);
    if (bad_row >= 0) throw_bad_target(target, bad_row, classes, settings.ignore_index);
  }

  static constexpr int64_t kNothing[] = {0};
};

// What the forward pass gives, allocated, and the problem that points into it.
struct ForwardResults {
  at::Tensor loss;
  at::Tensor stats;
  at::Tensor denominator;
  at::Tensor report;
  at::Tensor argmax;

  ForwardResults(const Arguments& arguments, bool keep_stats, bool with_report, CrossEntropyForward& problem) {
    arguments.describe(problem);
    problem.row_dims = lay_out_rows({{arguments.input, arguments.class_dim, problem.input_rows}});
    const auto opmath = arguments.input.options().dtype(arguments.opmath);
    loss = at::empty(arguments.loss(), arguments.input.options().dtype(arguments.loss_dtype));
    stats = at::empty(keep_stats ? arguments.stats() : at::DimVector({0}), opmath);
    denominator = at::empty(arguments.denominator(), opmath);
    problem.reduction = arguments.reduction;
    problem.zero_if_empty = arguments.settings.zero_if_empty;
    problem.groups = problem.reduction == Reduction::kNone ? 1 : loss.numel();
    problem.loss = loss.mutable_data_ptr();
    problem.saved = keep_stats ? stats.mutable_data_ptr() : nullptr;
    problem.denominator = denominator.mutable_data_ptr();
    const int64_t columns = sizeof(RowReport<float>) / sizeof(float);
    report = at::empty(with_report ? arguments.rows_of(columns) : at::DimVector({0}), opmath);
    argmax = at::empty(with_report ? arguments.target.sizes() : at::IntArrayRef(Arguments::kNothing),
                       arguments.target.options());
    problem.report = with_report ? report.mutable_data_ptr() : nullptr;
    problem.argmax = with_report ? argmax.mutable_data_ptr<int64_t>() : nullptr;
  }
};

void describe_gradient(const Arguments& arguments, const at::Tensor& grad_output, const at::Tensor& denominator,
                       const at::Tensor& grad_input, CrossEntropyBackward& problem) {
  arguments.describe(problem);
  const at::Tensor& input = arguments.input;
  problem.row_dims = lay_out_rows({{input, arguments.class_dim, problem.input_rows},
                                   {grad_input, arguments.class_dim, problem.grad_input_rows},
                                   {grad_output, kNoClassDim, problem.grad_output_rows},
                                   {denominator, kNoClassDim, problem.denominator_rows}});
  problem.denominator = arguments.reduction == Reduction::kMean ? denominator.const_data_ptr() : nullptr;
  problem.grad_input = grad_input.mutable_data_ptr();
  problem.grad_input_class_stride = grad_input.stride(arguments.class_dim);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> cross_entropy_forward(
    const CrossEntropyTensors& tensors, const CrossEntropySettings& settings, bool keep_stats, bool report,
    Driver<CrossEntropyForward> driver) {
  CrossEntropyForward problem{};
  const Arguments arguments(tensors, settings);
  ForwardResults results(arguments, keep_stats, report, problem);
  arguments.run(driver, problem);
  return {results.loss, results.stats, results.denominator, results.report, results.argmax};
}

at::Tensor cross_entropy_backward(const at::Tensor& grad_output, const CrossEntropyTensors& tensors,
                                  const at::Tensor& stats, const at::Tensor& denominator,
                                  const CrossEntropySettings& settings, Driver<CrossEntropyBackward> driver) {
  CrossEntropyBackward problem{};
  const Arguments arguments(tensors, settings);
  const at::Tensor& input = arguments.input;
  check_from_forward("grad_output", grad_output, arguments.loss(), arguments.loss_dtype, input);
  check_from_forward("stats", stats, arguments.stats(), arguments.opmath, input);
  check_from_forward("denominator", denominator, arguments.denominator(), arguments.opmath, input);

  const at::Tensor row_stats = stats.contiguous();
  at::Tensor grad_input = at::empty_like(input);
  const bool mean = arguments.reduction == Reduction::kMean;
  describe_gradient(arguments, grad_output, mean ? denominator : grad_output, grad_input, problem);
  problem.saved = row_stats.const_data_ptr();
  problem.grad_output = grad_output.const_data_ptr();
  arguments.run(driver, problem);
  return grad_input;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> cross_entropy_with_grad(const at::Tensor& grad_input,
                                                                       const CrossEntropyTensors& tensors,
                                                                       const CrossEntropySettings& settings,
                                                                       bool report, double loss_scale,
                                                                       Driver<CrossEntropyWithGrad> driver) {
  CrossEntropyWithGrad problem{};
  const Arguments arguments(tensors, settings);
  const at::Tensor& input = arguments.input;
  check_from_forward("grad_input", grad_input, input.sizes(), input.scalar_type(), input);
  at::assert_no_internal_overlap(grad_input);
  ForwardResults results(arguments, false, report, problem.forward);
  const at::Tensor& of_rows = arguments.reduction == Reduction::kMean ? results.denominator : results.loss;
  describe_gradient(arguments, of_rows, of_rows, grad_input, problem.backward);
  problem.backward.loss_scale = loss_scale;
  arguments.run(driver, problem);
  if (!grad_input.is_inference()) grad_input.unsafeGetTensorImpl()->bump_version();
  return {results.loss, results.report, results.argmax};
}

}  // namespace ce_ext
