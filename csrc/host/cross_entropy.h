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

std::tuple<at::Tensor, at::Tensor, at::Tensor> cross_entropy_forward(const at::Tensor& input, const at::Tensor& target,
                                                                     const std::optional<at::Tensor>& weight,
                                                                     int64_t reduction, int64_t ignore_index,
                                                                     double label_smoothing, int64_t batch_dims,
                                                                     Driver<CrossEntropyForward> run);

at::Tensor cross_entropy_backward(const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& target,
                                  const std::optional<at::Tensor>& weight, const at::Tensor& stats,
                                  const at::Tensor& denominator, int64_t reduction, int64_t ignore_index,
                                  double label_smoothing, int64_t batch_dims, Driver<CrossEntropyBackward> run);

template <class Backend>
void register_cross_entropy(torch::Library& m) {
  m.impl("cross_entropy_forward",
         [](const at::Tensor& input, const at::Tensor& target, const std::optional<at::Tensor>& weight,
            int64_t reduction, int64_t ignore_index, double label_smoothing, int64_t batch_dims) {
           const typename Backend::DeviceGuard guard(input);
           return cross_entropy_forward(input, target, weight, reduction, ignore_index, label_smoothing, batch_dims,
                                        &Backend::run);
         });
  m.impl("cross_entropy_backward",
         [](const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& target,
            const std::optional<at::Tensor>& weight, const at::Tensor& stats, const at::Tensor& denominator,
            int64_t reduction, int64_t ignore_index, double label_smoothing, int64_t batch_dims) {
           const typename Backend::DeviceGuard guard(input);
           return cross_entropy_backward(grad_output, input, target, weight, stats, denominator, reduction,
                                         ignore_index, label_smoothing, batch_dims, &Backend::run);
         });
}

}  // namespace ce_ext
