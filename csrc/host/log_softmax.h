// The log-softmax ops: they check and allocate, once for all backends, and hand a problem to the backend's driver.
// The schemas, with their arguments, stand in ops.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <optional>

#include "host/driver.h"
#include "host/log_softmax_problem.h"

namespace ce_ext {

at::Tensor log_softmax_forward(const at::Tensor& input, int64_t dim, std::optional<at::ScalarType> dtype,
                               Driver<LogSoftmaxForward> run);

at::Tensor log_softmax_backward(const at::Tensor& grad_output, const at::Tensor& output, int64_t dim,
                                at::ScalarType input_dtype, Driver<LogSoftmaxBackward> run);

template <class Backend>
void register_log_softmax(torch::Library& m) {
  m.impl("log_softmax_forward", [](const at::Tensor& input, int64_t dim, std::optional<at::ScalarType> dtype) {
    const typename Backend::DeviceGuard guard(input);
    return log_softmax_forward(input, dim, dtype, &Backend::run);
  });
  m.impl("log_softmax_backward",
         [](const at::Tensor& grad_output, const at::Tensor& output, int64_t dim, at::ScalarType input_dtype) {
           const typename Backend::DeviceGuard guard(output);
           return log_softmax_backward(grad_output, output, dim, input_dtype, &Backend::run);
         });
}

}  // namespace ce_ext
