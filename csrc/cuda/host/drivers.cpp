// What this library shows of itself: drivers, and ops of CUDA alone. Host code only: nvcc never sees torch.
#include "host/drivers.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <vector>

#include "cuda/host/device_state.h"
#include "cuda/host/launch.h"
#include "cuda/rows/policy.cuh"

namespace ce_ext::cuda {
namespace {

// Of the caching allocator, which knows when a stream is done with what is freed before.
class StreamMemory final : public LaunchMemory {
 public:
  explicit StreamMemory(c10::cuda::CUDAStream stream) : stream_(stream) {}

  void* allocate(int64_t bytes) override {
    allocated_.push_back(at::empty({bytes}, at::TensorOptions(stream_.device()).dtype(at::kByte)));
    return allocated_.back().mutable_data_ptr();
  }

  unsigned* counters() override {
    if (!counters_.defined()) counters_ = counters_of(stream_);
    return static_cast<unsigned*>(counters_.mutable_data_ptr());
  }

 private:
  c10::cuda::CUDAStream stream_;
  std::vector<at::Tensor> allocated_;
  at::Tensor counters_;
};

struct Backend {
  // On the current stream, without waiting for it: what the kernels find is raised by a later call.
  template <class Problem>
  static int64_t run(const Problem& problem) {
    const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
    BadTarget& bad_target = bad_target_of(stream.device_index());
    check_bad_target(bad_target, stream.device_index());
    StreamMemory memory(stream);
    launch(problem, {stream, memory, &bad_target});
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
