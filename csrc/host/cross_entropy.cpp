#include "host/cross_entropy.h"

#include <ATen/DimVector.h>
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

// The arguments that both directions share, after every check, in the form that a problem can point into.
struct Arguments {
  const at::Tensor& input;
  at::Tensor target;  // int64, contiguous
  at::Tensor weight;  // opmath, contiguous; undefined for none
  int64_t batch_dims;
  int64_t class_dim;
  int64_t classes;
  double label_smoothing;

  // A sample is (C), or (N, C, d1, ...).
  Arguments(const at::Tensor& input_, const at::Tensor& target_, const std::optional<at::Tensor>& weight_,
            double label_smoothing_, int64_t batch_dims_)
      : input(input_), target(target_), batch_dims(batch_dims_), label_smoothing(label_smoothing_) {
    TORCH_CHECK(batch_dims >= 0 && input.dim() > batch_dims, "input must have a dimension of classes",
                batch_dims ? " besides those of the batch" : "", ", but got shape ", input.sizes());
    check_label_smoothing(label_smoothing);
    const bool one_row = input.dim() == batch_dims + 1;
    class_dim = one_row ? batch_dims : batch_dims + 1;
    classes = input.size(class_dim);
    // torch also takes a target of shape (1) for a sample of shape (C).
    if (one_row && target.dim() == input.dim() && target.size(-1) == 1) target = target.squeeze(-1);
    check_class_indices(input, target, class_dim);
    target = convert(target, at::kLong);
    if (weight_ && weight_->defined()) {
      check_class_weight(input, *weight_, classes);
      weight = convert(*weight_, opmath_of(input));
    }
  }

  void describe(CrossEntropyProblem& problem, int64_t ignore_index) const {
    problem.dtype = check_input_dtype(input);
    problem.rows = target.numel();
    problem.classes = classes;
    problem.input = input.const_data_ptr();
    problem.input_class_stride = input.stride(class_dim);
    problem.target = target.const_data_ptr<int64_t>();
    problem.weight = weight.defined() ? weight.const_data_ptr() : nullptr;
    problem.ignore_index = ignore_index;
    problem.label_smoothing = label_smoothing;
  }

  // The shapes of the results.
  at::IntArrayRef batch() const { return input.sizes().slice(0, batch_dims); }
  at::IntArrayRef loss(Reduction reduction) const { return reduction == Reduction::kNone ? target.sizes() : batch(); }
  at::IntArrayRef denominator(Reduction reduction) const {
    static constexpr int64_t kNothing[] = {0};
    return reduction == Reduction::kMean ? batch() : at::IntArrayRef(kNothing);
  }
  at::DimVector stats() const {
    at::DimVector shape(target.sizes());
    shape.push_back(2);
    return shape;
  }

  template <class Problem>
  void run(Driver<Problem> driver, const Problem& problem) const {
    const int64_t bad_row = driver(problem);
    if (bad_row >= 0) throw_bad_target(target, bad_row, classes, problem.ignore_index);
  }
};

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> cross_entropy_forward(const at::Tensor& input, const at::Tensor& target,
                                                                     const std::optional<at::Tensor>& weight,
                                                                     int64_t reduction, int64_t ignore_index,
                                                                     double label_smoothing, int64_t batch_dims,
                                                                     Driver<CrossEntropyForward> driver) {
  CrossEntropyForward problem{};
  problem.reduction = check_reduction(reduction);
  const Arguments arguments(input, target, weight, label_smoothing, batch_dims);
  arguments.describe(problem, ignore_index);
  problem.row_dims = lay_out_rows({{input, arguments.class_dim, problem.input_rows}});

  const auto opmath = input.options().dtype(opmath_of(input));
  at::Tensor loss = at::empty(arguments.loss(problem.reduction), input.options());
  at::Tensor stats = at::empty(arguments.stats(), opmath);
  at::Tensor denominator = at::empty(arguments.denominator(problem.reduction), opmath);
  problem.groups = problem.reduction == Reduction::kNone ? 1 : loss.numel();
  problem.loss = loss.mutable_data_ptr();
  problem.stats = stats.mutable_data_ptr();
  problem.denominator = denominator.mutable_data_ptr();

  arguments.run(driver, problem);
  return {loss, stats, denominator};
}

at::Tensor cross_entropy_backward(const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& target,
                                  const std::optional<at::Tensor>& weight, const at::Tensor& stats,
                                  const at::Tensor& denominator, int64_t reduction, int64_t ignore_index,
                                  double label_smoothing, int64_t batch_dims, Driver<CrossEntropyBackward> driver) {
  CrossEntropyBackward problem{};
  const Arguments arguments(input, target, weight, label_smoothing, batch_dims);
  arguments.describe(problem, ignore_index);

  const Reduction kind = check_reduction(reduction);
  const at::ScalarType opmath = opmath_of(input);
  check_from_forward("grad_output", grad_output, arguments.loss(kind), input.scalar_type(), input);
  check_from_forward("stats", stats, arguments.stats(), opmath, input);
  check_from_forward("denominator", denominator, arguments.denominator(kind), opmath, input);

  const bool mean = kind == Reduction::kMean;
  const at::Tensor row_stats = stats.contiguous();
  at::Tensor grad_input = at::empty_like(input);
  const at::Tensor& row_denominator = mean ? denominator : grad_output;
  problem.row_dims = lay_out_rows({{input, arguments.class_dim, problem.input_rows},
                                   {grad_input, arguments.class_dim, problem.grad_input_rows},
                                   {grad_output, kNoClassDim, problem.grad_output_rows},
                                   {row_denominator, kNoClassDim, problem.denominator_rows}});
  problem.stats = row_stats.const_data_ptr();
  problem.grad_output = grad_output.const_data_ptr();
  problem.denominator = mean ? denominator.const_data_ptr() : nullptr;
  problem.grad_input = grad_input.mutable_data_ptr();
  problem.grad_input_class_stride = grad_input.stride(arguments.class_dim);

  arguments.run(driver, problem);
  return grad_input;
}

}  // namespace ce_ext
