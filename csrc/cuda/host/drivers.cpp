// What this library shows of itself: drivers, and ops of CUDA alone. Host code only: nvcc never sees torch.
#include "host/drivers.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/host/device_state.h"
#include "cuda/host/launch.h"
#include "cuda/rows/policy.cuh"

namespace ce_ext::cuda {
namespace {

struct Backend {
  // On the current stream, without waiting for it: what the kernels find is raised by a later call.
  template <class Problem>
  static int64_t run(const Problem& problem) {
    const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
    BadTarget& bad_target = bad_target_of(stream.device_index());
    check_bad_target(bad_target, stream.device_index());
    at::Tensor workspace = at::empty({workspace_size(problem)}, at::TensorOptions(stream.device()).dtype(at::kByte));
    at::Tensor counters = counters_of(stream);
    launch(problem,
           {stream, workspace.mutable_data_ptr(), static_cast<unsigned*>(counters.mutable_data_ptr()), &bad_target});
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return kNoBadRow;
  }
};

void check_targets(std::optional<at::Device> device) {
  TORCH_CHECK_VALUE(!device || device->is_cuda(), "device must be a CUDA device, but got ", *device);
  const c10::cuda::OptionalCUDAGuard guard(device);
  c10::cuda::device_synchronize();
  const c10::DeviceIndex current = c10::cuda::current_device();
  check_bad_target(bad_target_of(current), current);
}

}  // namespace
}  // namespace ce_ext::cuda

const ce_ext::Drivers* ce_ext_drivers() {
  static constexpr auto kDrivers = ce_ext::Drivers::of<ce_ext::cuda::Backend>();
  return &kDrivers;
}

// Without a tensor, there is no device whose kernel the dispatcher could choose.
TORCH_LIBRARY_IMPL(ce_ext, CompositeExplicitAutograd, m) {
  m.impl("check_targets", &ce_ext::cuda::check_targets);
  m.impl("cuda_policy", &ce_ext::cuda::policy_text);
  m.impl("override_cuda_policy", &ce_ext::cuda::override_policy);
}
