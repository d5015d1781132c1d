// The libraries of kernels that have been loaded, one for each kind of device, and the ops for tensors without data.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include <string>

#include "host/drivers.h"

namespace ce_ext {

// Makes the library at `path` the one for this kind of device, and registers the ops for it if none was before.
void load_backend(const std::string& device_type, const std::string& path);

const Drivers& drivers_for(c10::DeviceType device_type);

// Has a problem run where `input` is.
template <class Problem>
int64_t run(const at::Tensor& input, const Problem& problem) {
  c10::OptionalDeviceGuard guard;
  if (!input.is_cpu()) guard.reset_device(input.device());
  return drivers_for(input.device().type()).run(problem);
}

}  // namespace ce_ext
