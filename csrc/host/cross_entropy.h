// The cross entropy ops: they check and allocate, once for all backends, and hand a problem to the backend's driver.
// The schemas, with their arguments, stand in ops.cpp.
#pragma once

#include <torch/library.h>

#include <tuple>

#include "host/cross_entropy_problem.h"
#include "host/driver.h"
#include "host/softmax_loss.h"

namespace ce_ext {

struct CrossEntropySettings : SoftmaxLossSettings {
  int64_t ignore_index;
  bool input_is_log_prob;
};

ForwardResults::All cross_entropy_forward(const SoftmaxLossTensors& tensors, const CrossEntropySettings& settings,
                                          bool keep_stats, bool report, Driver<CrossEntropyForward> run);

at::Tensor cross_entropy_backward(const at::Tensor& grad_output, const SoftmaxLossTensors& tensors,
                                  const at::Tensor& stats, const at::Tensor& denominator,
                                  const CrossEntropySettings& settings, Driver<CrossEntropyBackward> run);

// Loss and gradient at once, the latter into `grad_input`, which may be the input: loss, report, argmax.
std::tuple<at::Tensor, at::Tensor, at::Tensor> cross_entropy_with_grad(const at::Tensor& grad_input,
                                                                       const SoftmaxLossTensors& tensors,
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
               {{reduction, options, zero_if_empty, out_dtype, batch_dims}, ignore_index, input_is_log_prob},
               keep_stats, report, &Backend::run);
         });
  m.impl("cross_entropy_backward",
         [](const Tensor& grad_output, const Tensor& input, const Tensor& target, const MaybeTensor& weight,
            const MaybeTensor& sample_weight, const MaybeTensor& stats, const Tensor& denominator, int64_t reduction,
            int64_t ignore_index, double label_smoothing, double gamma, double z_loss, double logit_scale,
            double softcap, bool input_is_log_prob, bool zero_if_empty, MaybeDtype out_dtype, int64_t batch_dims) {
           const typename Backend::DeviceGuard guard(input);
           const CrossEntropyOptions options{label_smoothing, gamma, z_loss, {logit_scale, softcap}};
           return cross_entropy_backward(
               grad_output, {input, target, weight, sample_weight}, stats.value_or(Tensor()), denominator,
               {{reduction, options, zero_if_empty, out_dtype, batch_dims}, ignore_index, input_is_log_prob},
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
               {{reduction, options, zero_if_empty, out_dtype, batch_dims}, ignore_index, input_is_log_prob}, report,
               loss_scale, &Backend::run);
         });
}

}  // namespace ce_ext
