// The ops of cross entropy with class indices.
#include <ATen/MemoryOverlap.h>
#include <ATen/ops/empty.h>
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

struct CrossEntropySettings : SoftmaxLossSettings {
  int64_t ignore_index;
  bool input_is_log_prob;
};

struct Arguments : SoftmaxLossArguments {
  int64_t ignore_index;
  bool input_is_log_prob;
  at::Tensor target;  // int64, contiguous

  Arguments(const SoftmaxLossTensors& tensors, const CrossEntropySettings& settings, bool needs_logits = false)
      : SoftmaxLossArguments(tensors, settings,
                             settings.input_is_log_prob ? 0 : sizeof(SavedRow<float>) / sizeof(float)),
        ignore_index(settings.ignore_index),
        input_is_log_prob(settings.input_is_log_prob),
        target(tensors.target) {
    const CrossEntropyOptions& options = settings.options;
    needs_logits |= options.label_smoothing > 0 || options.gamma > 0 || options.z_loss > 0 || options.logits.change();
    TORCH_CHECK_VALUE(!input_is_log_prob || !needs_logits,
                      "log-probabilities have no options of logits, no report and no gradient in the forward pass");
    // torch also takes a target of shape (1) for a sample of shape (C).
    if (is_one_row() && target.dim() == input.dim() && target.size(-1) == 1) target = target.squeeze(-1);
    check_class_indices(input, target, row_shape);
    target = convert(target, at::kLong);
  }

  void describe(CrossEntropyProblem& problem) const {
    SoftmaxLossArguments::describe(problem);
    problem.input_is_log_prob = input_is_log_prob;
    problem.target = target.const_data_ptr<int64_t>();
    problem.ignore_index = ignore_index;
  }

  void describe(CrossEntropyForward& problem) const {
    describe(static_cast<CrossEntropyProblem&>(problem));
    problem.row_dims = lay_out_rows({{input, class_dim, problem.input_rows}});
  }

  template <class Problem>
  void run(const Problem& problem) const {
    const int64_t bad_row = ce_ext::run(input, problem);
    if (bad_row != kNoBadRow) throw_bad_target(target, bad_row, classes, ignore_index);
  }
};

void describe_gradient(const Arguments& arguments, const at::Tensor& grad_output, const at::Tensor& denominator,
                       const at::Tensor& grad_input, CrossEntropyBackward& problem) {
  arguments.describe(static_cast<CrossEntropyProblem&>(problem));
  const at::Tensor& input = arguments.input;
  problem.row_dims = lay_out_rows({{input, arguments.class_dim, problem.input_rows},
                                   {grad_input, arguments.class_dim, problem.grad_input_rows},
                                   {grad_output, kNoClassDim, problem.grad_output_rows},
                                   {denominator, kNoClassDim, problem.denominator_rows}});
  problem.denominator = arguments.reduction == Reduction::kMean ? denominator.const_data_ptr() : nullptr;
  problem.grad_input = grad_input.mutable_data_ptr();
  problem.grad_input_class_stride = grad_input.stride(arguments.class_dim);
}

ForwardResults::All cross_entropy_forward(const SoftmaxLossTensors& tensors, const CrossEntropySettings& settings,
                                          bool keep_stats, bool report) {
  CrossEntropyForward problem{};
  const Arguments arguments(tensors, settings, /*needs_logits=*/report);
  arguments.describe(problem);
  ForwardResults results(arguments, keep_stats, report, problem);
  arguments.run(problem);
  return std::move(results).all();
}

at::Tensor cross_entropy_backward(const at::Tensor& grad_output, const SoftmaxLossTensors& tensors,
                                  const at::Tensor& stats, const std::optional<at::Tensor>& denominator,
                                  const CrossEntropySettings& settings) {
  CrossEntropyBackward problem{};
  const Arguments arguments(tensors, settings);
  check_from_forward(arguments, grad_output, stats, denominator);

  const at::Tensor row_stats = stats.defined() ? stats.contiguous() : stats;
  at::Tensor grad_input = at::empty_like(arguments.input);
  const bool mean = arguments.reduction == Reduction::kMean;
  describe_gradient(arguments, grad_output, mean ? *denominator : grad_output, grad_input, problem);
  problem.saved = row_stats.defined() ? row_stats.const_data_ptr() : nullptr;
  problem.grad_output = grad_output.const_data_ptr();
  arguments.run(problem);
  return grad_input;
}

// The loss over `divisor`, and its gradient times `loss_scale` into `grad_input`, which may be the input: loss, report,
// argmax.
std::tuple<at::Tensor, at::Tensor, at::Tensor> cross_entropy_with_grad(const at::Tensor& grad_input,
                                                                       const SoftmaxLossTensors& tensors,
                                                                       const CrossEntropySettings& settings,
                                                                       bool report, double loss_scale, double divisor) {
  CrossEntropyWithGrad problem{};
  const Arguments arguments(tensors, settings, /*needs_logits=*/true);
  const at::Tensor& input = arguments.input;
  check_from_forward("grad_input", grad_input, input.sizes(), input.scalar_type(), input);
  at::assert_no_internal_overlap(grad_input);
  arguments.describe(problem.forward);
  ForwardResults results(arguments, false, report, problem.forward);
  const at::Tensor& of_rows = results.denominator ? *results.denominator : results.loss;
  describe_gradient(arguments, of_rows, of_rows, grad_input, problem.backward);
  problem.backward.loss_scale = loss_scale / divisor;
  arguments.run(problem);
  if (divisor != 1) results.loss.div_(divisor);
  if (!grad_input.is_inference()) grad_input.unsafeGetTensorImpl()->bump_version();
  return {results.loss, results.report.value_or(at::Tensor()), results.argmax.value_or(at::Tensor())};
}

}  // namespace

void register_cross_entropy(torch::Library& m) {
  using at::Tensor;
  using MaybeTensor = std::optional<Tensor>;
  using MaybeDtype = std::optional<at::ScalarType>;

  m.impl("cross_entropy_forward",
         [](const Tensor& input, const Tensor& target, const MaybeTensor& weight, const MaybeTensor& sample_weight,
            int64_t reduction, int64_t ignore_index, double label_smoothing, double gamma, double z_loss,
            double logit_scale, double softcap, bool input_is_log_prob, bool zero_if_empty, MaybeDtype out_dtype,
            int64_t batch_dims, bool keep_stats, bool report) {
           const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
           return cross_entropy_forward(
               {input, target, weight, sample_weight},
               {{reduction, options, zero_if_empty, out_dtype, batch_dims}, ignore_index, input_is_log_prob},
               keep_stats, report);
         });
  m.impl(
      "cross_entropy_backward",
      [](const Tensor& grad_output, const Tensor& input, const Tensor& target, const MaybeTensor& weight,
         const MaybeTensor& sample_weight, const MaybeTensor& stats, const MaybeTensor& denominator, int64_t reduction,
         int64_t ignore_index, double label_smoothing, double gamma, double z_loss, double logit_scale, double softcap,
         bool input_is_log_prob, bool zero_if_empty, MaybeDtype out_dtype, int64_t batch_dims) {
        const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
        return cross_entropy_backward(
            grad_output, {input, target, weight, sample_weight}, stats.value_or(Tensor()), denominator,
            {{reduction, options, zero_if_empty, out_dtype, batch_dims}, ignore_index, input_is_log_prob});
      });
  m.impl("cross_entropy_with_grad",
         [](const Tensor& grad_input, const Tensor& input, const Tensor& target, const MaybeTensor& weight,
            const MaybeTensor& sample_weight, int64_t reduction, int64_t ignore_index, double label_smoothing,
            double gamma, double z_loss, double logit_scale, double softcap, bool input_is_log_prob, bool zero_if_empty,
            MaybeDtype out_dtype, int64_t batch_dims, bool report, double loss_scale, double divisor) {
           const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
           return cross_entropy_with_grad(
               grad_input, {input, target, weight, sample_weight},
               {{reduction, options, zero_if_empty, out_dtype, batch_dims}, ignore_index, input_is_log_prob}, report,
               loss_scale, divisor);
         });
}

}  // namespace ce_ext
