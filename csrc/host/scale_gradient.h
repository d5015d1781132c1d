// The op that multiplies a gradient of the forward pass by the one from upstream.
#pragma once

#include <torch/library.h>

#include "host/driver.h"
#include "host/scale_gradient_problem.h"

namespace ce_ext {

void scale_gradient(const at::Tensor& grad_input, const at::Tensor& grad_output, double loss_scale, int64_t class_dim,
                    Driver<ScaleGradient> run);

template <class Backend>
void register_scale_gradient(torch::Library& m) {
  m.impl("scale_gradient",
         [](const at::Tensor& grad_input, const at::Tensor& grad_output, double loss_scale, int64_t class_dim) {
           const typename Backend::DeviceGuard guard(grad_input);
           scale_gradient(grad_input, grad_output, loss_scale, class_dim, &Backend::run);
         });
}

}  // namespace ce_ext
