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
  c10::SymInt ignore_index;
  bool input_is_log_prob;
};

struct Arguments : SoftmaxLossArguments {
  bool input_is_log_prob;
  at::Tensor target;  // as it is given
  // Where there are data:
  int64_t ignore_index = 0;
  at::Tensor indices;  // int64, contiguous

  Arguments(const SoftmaxLossTensors& tensors, const CrossEntropySettings& settings, bool needs_logits = false)
      : SoftmaxLossArguments(tensors, settings,
                             settings.input_is_log_prob ? 0 : sizeof(SavedRow<float>) / sizeof(float)),
        input_is_log_prob(settings.input_is_log_prob),
        target(tensors.target) {
    const CrossEntropyOptions& options = settings.options;
    needs_logits |= options.label_smoothing > 0 || options.gamma > 0 || options.z_loss > 0 || options.logits.change();
    TORCH_CHECK_VALUE(!input_is_log_prob || !needs_logits,
                      "log-probabilities have no options of logits, no report and no gradient in the forward pass");
    // torch also takes a target of shape (1) for a sample of shape (C).
    if (is_one_row() && target.dim() == input.dim() && target.size(-1) == 1) target = target.squeeze(-1);
    check_class_indices(input, target, row_shape);
    if (!has_data(input)) return;
    ignore_index = settings.ignore_index.guard_int(__FILE__, __LINE__);
    indices = class_indices(target, ignore_index);
  }

  void describe(CrossEntropyProblem& problem) const {
    SoftmaxLossArguments::describe(problem);
    problem.input_is_log_prob = input_is_log_prob;
    problem.target = indices.const_data_ptr<int64_t>();
    problem.ignore_index = ignore_index;
  }

  void describe(CrossEntropyForward& problem) const {
    describe(static_cast<CrossEntropyProblem&>(problem));
    problem.row_dims = lay_out_rows({{input, class_dim, problem.input_rows}});
  }

  template <class Problem>
  void run(const Problem& problem) const {
    const int64_t bad_row = ce_ext::run(input, problem);
    if (bad_row != kNoBadRow) throw_bad_target(target, bad_row, classes(), ignore_index);
  }
};

// `denominator` is undefined for none.
void describe_gradient(const Arguments& arguments, const at::Tensor& grad_output, const at::Tensor& denominator,
                       const at::Tensor& grad_input, CrossEntropyBackward& problem) {
  arguments.describe(static_cast<CrossEntropyProblem&>(problem));
  const at::Tensor& input = arguments.input;
  problem.row_dims =
      lay_out_rows({{input, arguments.class_dim, problem.input_rows},
                    {grad_input, arguments.class_dim, problem.grad_input_rows},
                    {grad_output, kNoClassDim, problem.grad_output_rows},
                    {denominator.defined() ? denominator : grad_output, kNoClassDim, problem.denominator_rows}});
  problem.denominator = denominator.defined() ? denominator.const_data_ptr() : nullptr;
  problem.grad_input = grad_input.mutable_data_ptr();
  problem.grad_input_class_stride = grad_input.stride(arguments.class_dim);
}

ForwardResults::All cross_entropy_forward(const SoftmaxLossTensors& tensors, const CrossEntropySettings& settings,
                                          bool keep_stats, bool report) {
  const Arguments arguments(tensors, settings, /*needs_logits=*/report);
  ForwardResults results(arguments, keep_stats, report);
  if (has_data(arguments.input)) {
    CrossEntropyForward problem{};
    arguments.describe(problem);
    results.describe(arguments, problem);
    arguments.run(problem);
  }
  return std::move(results).all();
}

at::Tensor cross_entropy_backward(const at::Tensor& grad_output, const SoftmaxLossTensors& tensors,
                                  const at::Tensor& stats, const at::Tensor& denominator,
                                  const CrossEntropySettings& settings) {
  const Arguments arguments(tensors, settings);
  check_from_forward(arguments, grad_output, stats, denominator);
  at::Tensor grad_input = at::empty_like(arguments.input);
  if (!has_data(grad_input)) return grad_input;

  CrossEntropyBackward problem{};
  const at::Tensor row_stats = arguments.saved_numbers > 0 ? stats.contiguous() : at::Tensor();
  const bool mean = arguments.reduction == Reduction::kMean;
  describe_gradient(arguments, grad_output, mean ? denominator : at::Tensor(), grad_input, problem);
  problem.saved = row_stats.defined() ? row_stats.const_data_ptr() : nullptr;
  problem.grad_output = grad_output.const_data_ptr();
  arguments.run(problem);
  return grad_input;
}

// The loss, and its gradient times `loss_scale` into `grad_input`, which may be the input: loss, report, argmax.
std::tuple<at::Tensor, at::Tensor, at::Tensor> cross_entropy_with_grad(const at::Tensor& grad_input,
                                                                       const SoftmaxLossTensors& tensors,
                                                                       const CrossEntropySettings& settings,
                                                                       bool report, double loss_scale) {
  const Arguments arguments(tensors, settings, /*needs_logits=*/true);
  const at::Tensor& input = arguments.input;
  check_from_forward("grad_input", grad_input, input.sym_sizes(), input.scalar_type(), input);
  const ForwardResults results(arguments, /*keep_stats=*/false, report);
  if (has_data(input)) {
    at::assert_no_internal_overlap(grad_input);
    at::assert_no_partial_overlap(grad_input, input);
    for (const at::Tensor& other : {arguments.indices, arguments.weight, arguments.sample_weight}) {
      if (other.defined()) at::assert_no_overlap(grad_input, other);
    }
    CrossEntropyWithGrad problem{};
    arguments.describe(problem.forward);
    results.describe(arguments, problem.forward);
    // A divisor that is given is known before any row is.
    const MeanDivisor& divisor = settings.mean_divisor;
    const bool is_counted = arguments.reduction == Reduction::kMean && !divisor.is_given;
    describe_gradient(arguments, results.loss, is_counted ? results.denominator : at::Tensor(), grad_input,
                      problem.backward);
    problem.backward.loss_scale = divisor.is_given ? loss_scale / divisor.of(0) : loss_scale;
    arguments.run(problem);
    grad_input.unsafeGetTensorImpl()->bump_version();
  }
  return {results.loss, results.report, results.argmax};
}

}  // namespace

void register_cross_entropy(torch::Library& m) {
  using at::Tensor;
  using MaybeTensor = std::optional<Tensor>;
  using MaybeDtype = std::optional<at::ScalarType>;
  using MaybeNumber = std::optional<double>;

  m.impl("cross_entropy_forward",
         [](const Tensor& input, const Tensor& target, const MaybeTensor& weight, const MaybeTensor& sample_weight,
            int64_t reduction, c10::SymInt ignore_index, double label_smoothing, double gamma, double z_loss,
            double logit_scale, double softcap, bool input_is_log_prob, bool zero_if_empty, MaybeNumber divisor,
            MaybeDtype out_dtype, int64_t batch_dims, bool keep_stats, bool report) {
           const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
           const MeanDivisor mean_divisor = make_mean_divisor(zero_if_empty, divisor);
           return cross_entropy_forward(
               {input, target, weight, sample_weight},
               {{reduction, options, mean_divisor, out_dtype, batch_dims}, ignore_index, input_is_log_prob}, keep_stats,
               report);
         });
  m.impl("cross_entropy_backward", [](const Tensor& grad_output, const Tensor& input, const Tensor& target,
                                      const MaybeTensor& weight, const MaybeTensor& sample_weight,
                                      const MaybeTensor& stats, const MaybeTensor& denominator, int64_t reduction,
                                      c10::SymInt ignore_index, double label_smoothing, double gamma, double z_loss,
                                      double logit_scale, double softcap, bool input_is_log_prob, bool zero_if_empty,
                                      MaybeNumber divisor, MaybeDtype out_dtype, int64_t batch_dims) {
    const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
    const MeanDivisor mean_divisor = make_mean_divisor(zero_if_empty, divisor);
    return cross_entropy_backward(
        grad_output, {input, target, weight, sample_weight}, stats.value_or(Tensor()), denominator.value_or(Tensor()),
        {{reduction, options, mean_divisor, out_dtype, batch_dims}, ignore_index, input_is_log_prob});
  });
  m.impl("cross_entropy_with_grad",
         [](const Tensor& grad_input, const Tensor& input, const Tensor& target, const MaybeTensor& weight,
            const MaybeTensor& sample_weight, int64_t reduction, c10::SymInt ignore_index, double label_smoothing,
            double gamma, double z_loss, double logit_scale, double softcap, bool input_is_log_prob, bool zero_if_empty,
            MaybeNumber divisor, MaybeDtype out_dtype, int64_t batch_dims, bool report, double loss_scale) {
           const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
           const MeanDivisor mean_divisor = make_mean_divisor(zero_if_empty, divisor);
           return cross_entropy_with_grad(
               grad_input, {input, target, weight, sample_weight},
               {{reduction, options, mean_divisor, out_dtype, batch_dims}, ignore_index, input_is_log_prob}, report,
               loss_scale);
         });
}

}  // namespace ce_ext
