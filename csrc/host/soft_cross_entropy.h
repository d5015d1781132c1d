// The ops of cross entropy with class probabilities. The schemas, with their arguments, stand in ops.cpp.
#pragma once

#include <torch/library.h>

#include <tuple>

#include "host/driver.h"
#include "host/soft_cross_entropy_problem.h"
#include "host/softmax_loss.h"

namespace ce_ext {

ForwardResults::All soft_cross_entropy_forward(const SoftmaxLossTensors& tensors, const SoftmaxLossSettings& settings,
                                               bool keep_stats, bool report, Driver<SoftCrossEntropyForward> run);

// The gradients in input and target; undefined where they are not needed.
std::tuple<at::Tensor, at::Tensor> soft_cross_entropy_backward(const at::Tensor& grad_output,
                                                               const SoftmaxLossTensors& tensors,
                                                               const at::Tensor& stats, const at::Tensor& denominator,
                                                               const SoftmaxLossSettings& settings, bool needs_input,
                                                               bool needs_target, Driver<SoftCrossEntropyBackward> run);

template <class Backend>
void register_soft_cross_entropy(torch::Library& m) {
  using at::Tensor;
  using MaybeTensor = std::optional<Tensor>;
  using MaybeDtype = std::optional<at::ScalarType>;

  m.impl("soft_cross_entropy_forward",
         [](const Tensor& input, const Tensor& target, const MaybeTensor& weight, const MaybeTensor& sample_weight,
            int64_t reduction, double label_smoothing, double z_loss, double logit_scale, double softcap,
            bool zero_if_empty, MaybeDtype out_dtype, bool, bool, int64_t batch_dims, bool keep_stats, bool report) {
           const typename Backend::DeviceGuard guard(input);
           const CrossEntropyOptions options{label_smoothing, /*gamma=*/0, z_loss, {logit_scale, softcap}};
           return soft_cross_entropy_forward({input, target, weight, sample_weight},
                                             {reduction, options, zero_if_empty, out_dtype, batch_dims}, keep_stats,
                                             report, &Backend::run);
         });
  m.impl("soft_cross_entropy_backward",
         [](const Tensor& grad_output, const Tensor& input, const Tensor& target, const MaybeTensor& weight,
            const MaybeTensor& sample_weight, const Tensor& stats, const Tensor& denominator, int64_t reduction,
            double label_smoothing, double z_loss, double logit_scale, double softcap, bool zero_if_empty,
            MaybeDtype out_dtype, bool needs_input, bool needs_target, int64_t batch_dims) {
           const typename Backend::DeviceGuard guard(input);
           const CrossEntropyOptions options{label_smoothing, /*gamma=*/0, z_loss, {logit_scale, softcap}};
           return soft_cross_entropy_backward(grad_output, {input, target, weight, sample_weight}, stats, denominator,
                                              {reduction, options, zero_if_empty, out_dtype, batch_dims}, needs_input,
                                              needs_target, &Backend::run);
         });
}

}  // namespace ce_ext
