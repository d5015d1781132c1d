// What the ops of all losses of softmax check and allocate alike.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <optional>
#include <tuple>
#include <utility>

#include "host/checks.h"
#include "host/softmax_loss_problem.h"

namespace ce_ext {

// The arguments that all of the ops share, tensors and others.
struct SoftmaxLossTensors {
  const at::Tensor& input;
  const at::Tensor& target;
  const std::optional<at::Tensor>& weight;
  const std::optional<at::Tensor>& sample_weight;
};
struct SoftmaxLossSettings {
  int64_t reduction;
  CrossEntropyOptions options;
  MeanDivisor mean_divisor;
  std::optional<at::ScalarType> out_dtype;
  int64_t batch_dims;
};

// These arguments, but for the target, after every check, and if they have data in the form that a problem can point
// into.
struct SoftmaxLossArguments {
  const at::Tensor& input;
  const SoftmaxLossSettings& settings;
  int64_t saved_numbers;  // that the forward pass keeps of a row
  DType dtype;            // of the input
  Reduction reduction;
  at::ScalarType opmath;
  at::ScalarType loss_dtype;
  int64_t class_dim;
  c10::SymDimVector row_shape;  // that of what there is one of for each row
  at::Tensor weight;            // opmath, contiguous; undefined for none
  at::Tensor sample_weight;     // likewise

  SoftmaxLossArguments(const SoftmaxLossTensors& tensors, const SoftmaxLossSettings& settings, int64_t saved_numbers);

  bool is_one_row() const { return input.dim() == settings.batch_dims + 1; }
  int64_t classes() const { return input.size(class_dim); }

  void describe(SoftmaxLossProblem& problem) const;

  // The shapes of the results.
  c10::SymIntArrayRef batch() const { return input.sym_sizes().slice(0, settings.batch_dims); }
  c10::SymIntArrayRef loss() const { return reduction == Reduction::kNone ? c10::SymIntArrayRef(row_shape) : batch(); }
  c10::SymDimVector stats() const { return rows_of(saved_numbers); }
  c10::SymDimVector rows_of(int64_t columns) const;
};

// What the forward pass gives, allocated; undefined where it is not asked for.
struct ForwardResults {
  at::Tensor loss;
  at::Tensor stats;
  at::Tensor denominator;
  at::Tensor report;
  at::Tensor argmax;

  ForwardResults(const SoftmaxLossArguments& arguments, bool keep_stats, bool with_report);

  void describe(const SoftmaxLossArguments& arguments, LossForward& problem) const;

  // loss, stats, denominator, report, argmax
  using All = std::tuple<at::Tensor, std::optional<at::Tensor>, std::optional<at::Tensor>, std::optional<at::Tensor>,
                         std::optional<at::Tensor>>;
  All all() && {
    return {std::move(loss), if_defined(stats), if_defined(denominator), if_defined(report), if_defined(argmax)};
  }
};

// What backward gets of its forward must have the shapes and dtypes that the forward gave it.
void check_from_forward(const SoftmaxLossArguments& arguments, const at::Tensor& grad_output, const at::Tensor& stats,
                        const at::Tensor& denominator);

// `tensor` in `dtype`, contiguous, if it has data.
at::Tensor convert(const at::Tensor& tensor, at::ScalarType dtype);

}  // namespace ce_ext
