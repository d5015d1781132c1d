// What kernels use that outlives their launch: of a device, and of a stream.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/host/bad_target.h"

namespace ce_ext::cuda {

BadTarget& bad_target_of(c10::DeviceIndex device);

// The counters of a LaunchMemory, in a tensor that must live until the launch. `stream` is the current one.
at::Tensor counters_of(c10::cuda::CUDAStream stream);

}  // namespace ce_ext::cuda
