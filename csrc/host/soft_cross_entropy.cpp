// The ops of cross entropy with class probabilities.
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <tuple>

#include "host/backends.h"
#include "host/checks.h"
#include "host/ops.h"
#include "host/row_layout.h"
#include "host/softmax_loss.h"

namespace ce_ext {
namespace {

struct Arguments : SoftmaxLossArguments {
  const at::Tensor& target;

  Arguments(const SoftmaxLossTensors& tensors, const SoftmaxLossSettings& settings)
      : SoftmaxLossArguments(tensors, settings, sizeof(SavedSoftRow<float>) / sizeof(float)), target(tensors.target) {
    check_class_probabilities(input, target, opmath);
  }

  void describe(SoftCrossEntropyProblem& problem) const {
    SoftmaxLossArguments::describe(problem);
    problem.target_is_opmath = target.scalar_type() == opmath;
    problem.target = target.const_data_ptr();
    problem.target_class_stride = target.stride(class_dim);
  }
};

// One of the gradients, if it is needed. What it is the gradient of stands in for its layout otherwise.
struct Gradient {
  const at::Tensor& of;
  at::Tensor result;

  Gradient(const at::Tensor& of_, bool is_needed) : of(of_), result(is_needed ? at::empty_like(of_) : at::Tensor()) {}

  const at::Tensor& layout() const { return result.defined() ? result : of; }
  void* data() const { return result.defined() ? result.mutable_data_ptr() : nullptr; }
};

ForwardResults::All soft_cross_entropy_forward(const SoftmaxLossTensors& tensors, const SoftmaxLossSettings& settings,
                                               bool keep_stats, bool report) {
  const Arguments arguments(tensors, settings);
  ForwardResults results(arguments, keep_stats, report);
  if (has_data(arguments.input)) {
    SoftCrossEntropyForward problem{};
    arguments.describe(problem);
    problem.row_dims = lay_out_rows({{arguments.input, arguments.class_dim, problem.input_rows},
                                     {arguments.target, arguments.class_dim, problem.target_rows}});
    results.describe(arguments, problem);
    run(arguments.input, problem);
  }
  return std::move(results).all();
}

// The gradients in input and target; undefined where they are not needed.
std::tuple<at::Tensor, at::Tensor> soft_cross_entropy_backward(const at::Tensor& grad_output,
                                                               const SoftmaxLossTensors& tensors,
                                                               const at::Tensor& stats, const at::Tensor& denominator,
                                                               const SoftmaxLossSettings& settings, bool needs_input,
                                                               bool needs_target) {
  const Arguments arguments(tensors, settings);
  check_from_forward(arguments, grad_output, stats, denominator);
  const Gradient grad_input(arguments.input, needs_input), grad_target(arguments.target, needs_target);
  if (!has_data(arguments.input)) return {grad_input.result, grad_target.result};

  SoftCrossEntropyBackward problem{};
  const at::Tensor row_stats = stats.contiguous();
  const bool mean = arguments.reduction == Reduction::kMean;
  const int64_t class_dim = arguments.class_dim;
  arguments.describe(problem);
  problem.row_dims = lay_out_rows({{arguments.input, class_dim, problem.input_rows},
                                   {arguments.target, class_dim, problem.target_rows},
                                   {grad_input.layout(), class_dim, problem.grad_input_rows},
                                   {grad_target.layout(), class_dim, problem.grad_target_rows},
                                   {grad_output, kNoClassDim, problem.grad_output_rows},
                                   {mean ? denominator : grad_output, kNoClassDim, problem.denominator_rows}});
  problem.saved = row_stats.const_data_ptr();
  problem.grad_output = grad_output.const_data_ptr();
  problem.denominator = mean ? denominator.const_data_ptr() : nullptr;
  problem.grad_input = grad_input.data();
  problem.grad_input_class_stride = grad_input.layout().stride(class_dim);
  problem.grad_target = grad_target.data();
  problem.grad_target_class_stride = grad_target.layout().stride(class_dim);
  run(arguments.input, problem);
  return {grad_input.result, grad_target.result};
}

}  // namespace

void register_soft_cross_entropy(torch::Library& m) {
  using at::Tensor;
  using MaybeTensor = std::optional<Tensor>;
  using MaybeDtype = std::optional<at::ScalarType>;
  using MaybeNumber = std::optional<double>;

  m.impl("soft_cross_entropy_forward", [](const Tensor& input, const Tensor& target, const MaybeTensor& weight,
                                          const MaybeTensor& sample_weight, int64_t reduction, double label_smoothing,
                                          double gamma, double z_loss, double logit_scale, double softcap,
                                          bool zero_if_empty, MaybeNumber divisor, MaybeDtype out_dtype, bool, bool,
                                          int64_t batch_dims, bool keep_stats, bool report) {
    const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
    const MeanDivisor mean_divisor = make_mean_divisor(zero_if_empty, divisor);
    return soft_cross_entropy_forward({input, target, weight, sample_weight},
                                      {reduction, options, mean_divisor, out_dtype, batch_dims}, keep_stats, report);
  });
  m.impl("soft_cross_entropy_backward",
         [](const Tensor& grad_output, const Tensor& input, const Tensor& target, const MaybeTensor& weight,
            const MaybeTensor& sample_weight, const Tensor& stats, const MaybeTensor& denominator, int64_t reduction,
            double label_smoothing, double gamma, double z_loss, double logit_scale, double softcap, bool zero_if_empty,
            MaybeNumber divisor, MaybeDtype out_dtype, bool needs_input, bool needs_target, int64_t batch_dims) {
           const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
           const MeanDivisor mean_divisor = make_mean_divisor(zero_if_empty, divisor);
           return soft_cross_entropy_backward(
               grad_output, {input, target, weight, sample_weight}, stats, denominator.value_or(Tensor()),
               {reduction, options, mean_divisor, out_dtype, batch_dims}, needs_input, needs_target);
         });
}

}  // namespace ce_ext
