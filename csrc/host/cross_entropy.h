// The cross entropy ops: they check and allocate, once for all backends, and hand a problem to the backend's driver.
// The schemas, with their arguments, stand in ops.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "host/cross_entropy_problem.h"
#include "host/driver.h"

namespace ce_ext {

// The arguments that all of the ops share, tensors and others.
struct CrossEntropyTensors {
  const at::Tensor& input;
  const at::Tensor& target;
  const std::optional<at::Tensor>& weight;
  const std::optional<at::Tensor>& sample_weight;
};
struct CrossEntropySettings {
  int64_t reduction;
  int64_t ignore_index;
  CrossEntropyOptions options;
  bool input_is_log_prob;
  bool zero_if_empty;
  std::optional<at::ScalarType> out_dtype;
  int64_t batch_dims;
};

// loss, stats, denominator, report, argmax; what is not asked for is empty
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> cross_entropy_forward(
    const CrossEntropyTensors& tensors, const CrossEntropySettings& settings, bool keep_stats, bool report,
    Driver<CrossEntropyForward> run);

at::Tensor cross_entropy_backward(const at::Tensor& grad_output, const CrossEntropyTensors& tensors,
                                  const at::Tensor& stats, const at::Tensor& denominator,
                                  const CrossEntropySettings& settings, Driver<CrossEntropyBackward> run);

// Loss and gradient at once, the latter into `grad_input`, which may be the input: loss, report, argmax.
std::tuple<at::Tensor, at::Tensor, at::Tensor> cross_entropy_with_grad(const at::Tensor& grad_input,
                                                                       const CrossEntropyTensors& tensors,
                                                                       const CrossEntropySettings& settings,
                                                                       bool report, double loss_scale,
                                                                       Driver<CrossEntropyWithGrad> run);

template <class Backend>
void register_cross_entropy(torch::Library& m) {
  using at::Tensor;
  using MaybeTensor = std::optional<Tensor>;
  using MaybeDtype = std::optional<at::ScalarType>;

  m.impl("cross_entropy_forward",
         [](const Tensor& input, const Tensor& target, const MaybeTensor& weight, const MaybeTensor& sample_weight,
            int64_t reduction, int64_t ignore_index, double label_smoothing, double gamma, double z_loss,
            double logit_scale, double softcap, bool input_is_log_prob, bool zero_if_empty, MaybeDtype out_dtype,
            int64_t batch_dims, bool keep_stats, bool report) {
           const typename Backend::DeviceGuard guard(input);
           const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
           return cross_entropy_forward(
               {input, target, weight, sample_weight},
               {reduction, ignore_index, options, input_is_log_prob, zero_if_empty, out_dtype, batch_dims}, keep_stats,
               report, &Backend::run);
         });
  m.impl("cross_entropy_backward",
         [](const Tensor& grad_output, const Tensor& input, const Tensor& target, const MaybeTensor& weight,
            const MaybeTensor& sample_weight, const Tensor& stats, const Tensor& denominator, int64_t reduction,
            int64_t ignore_index, double label_smoothing, double gamma, double z_loss, double logit_scale,
            double softcap, bool input_is_log_prob, bool zero_if_empty, MaybeDtype out_dtype, int64_t batch_dims) {
           const typename Backend::DeviceGuard guard(input);
           const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
           return cross_entropy_backward(
               grad_output, {input, target, weight, sample_weight}, stats, denominator,
               {reduction, ignore_index, options, input_is_log_prob, zero_if_empty, out_dtype, batch_dims},
               &Backend::run);
         });
  m.impl("cross_entropy_with_grad",
         [](const Tensor& grad_input, const Tensor& input, const Tensor& target, const MaybeTensor& weight,
            const MaybeTensor& sample_weight, int64_t reduction, int64_t ignore_index, double label_smoothing,
            double gamma, double z_loss, double logit_scale, double softcap, bool input_is_log_prob, bool zero_if_empty,
            MaybeDtype out_dtype, int64_t batch_dims, bool report, double loss_scale) {
           const typename Backend::DeviceGuard guard(input);
           const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
           return cross_entropy_with_grad(
               grad_input, {input, target, weight, sample_weight},
               {reduction, ignore_index, options, input_is_log_prob, zero_if_empty, out_dtype, batch_dims}, report,
               loss_scale, &Backend::run);
         });
}

}  // namespace ce_ext
