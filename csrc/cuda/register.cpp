// The ops as the dispatcher finds them for CUDA tensors. Host code only: nvcc never sees torch.
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/launch.h"
#include "host/register_ops.h"

namespace ce_ext::cuda {
namespace {

struct Backend {
  // A tensor of another device is left for the checks to find.
  struct DeviceGuard : c10::cuda::OptionalCUDAGuard {
    explicit DeviceGuard(const at::Tensor& tensor) {
      if (tensor.is_cuda()) set_device(tensor.device());
    }
  };

  // On the current stream, without waiting for it: what the kernels find is not known here.
  template <class Problem>
  static int64_t run(const Problem& problem) {
    const at::Device device(at::kCUDA, c10::cuda::current_device());
    at::Tensor workspace = at::empty({workspace_size(problem)}, at::TensorOptions(device).dtype(at::kByte));
    launch(problem, workspace.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return -1;
  }
};

}  // namespace
}  // namespace ce_ext::cuda

TORCH_LIBRARY_IMPL(ce_ext, CUDA, m) { ce_ext::register_ops<ce_ext::cuda::Backend>(m); }
