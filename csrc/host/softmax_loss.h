// What the ops of all losses of softmax check and allocate alike.
#pragma once

#include <ATen/DimVector.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <utility>

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
  bool zero_if_empty;
  std::optional<at::ScalarType> out_dtype;
  int64_t batch_dims;
};

// These arguments, but for the target, after every check, in the form that a problem can point into.
struct SoftmaxLossArguments {
  const at::Tensor& input;
  const SoftmaxLossSettings& settings;
  int64_t saved_numbers;  // that the forward pass keeps of a row
  Reduction reduction;
  at::ScalarType opmath;
  at::ScalarType loss_dtype;
  int64_t class_dim;
  int64_t classes;
  at::DimVector row_shape;   // that of what there is one of for each row
  at::Tensor weight;         // opmath, contiguous; undefined for none
  at::Tensor sample_weight;  // likewise

  SoftmaxLossArguments(const SoftmaxLossTensors& tensors, const SoftmaxLossSettings& settings, int64_t saved_numbers);

  bool is_one_row() const { return input.dim() == settings.batch_dims + 1; }

  void describe(SoftmaxLossProblem& problem) const;

  // The shapes of the results.
  at::IntArrayRef batch() const { return input.sizes().slice(0, settings.batch_dims); }
  at::IntArrayRef loss() const { return reduction == Reduction::kNone ? at::IntArrayRef(row_shape) : batch(); }
  at::DimVector stats() const { return rows_of(saved_numbers); }
  at::DimVector rows_of(int64_t columns) const;
};

// What the forward pass gives, allocated, where it is asked for, and the problem that points into it.
struct ForwardResults {
  at::Tensor loss;
  std::optional<at::Tensor> stats;
  std::optional<at::Tensor> denominator;
  std::optional<at::Tensor> report;
  std::optional<at::Tensor> argmax;

  ForwardResults(const SoftmaxLossArguments& arguments, bool keep_stats, bool with_report, LossForward& problem);

  // loss, stats, denominator, report, argmax
  using All = std::tuple<at::Tensor, std::optional<at::Tensor>, std::optional<at::Tensor>, std::optional<at::Tensor>,
                         std::optional<at::Tensor>>;
  All all() && {
    return {std::move(loss), std::move(stats), std::move(denominator), std::move(report), std::move(argmax)};
  }
};

// What backward gets of its forward must have the shapes and dtypes that the forward gave it.
void check_from_forward(const SoftmaxLossArguments& arguments, const at::Tensor& grad_output, const at::Tensor& stats,
                        const std::optional<at::Tensor>& denominator);

// `tensor` in `dtype`, contiguous.
at::Tensor convert(const at::Tensor& tensor, at::ScalarType dtype);

}  // namespace ce_ext
