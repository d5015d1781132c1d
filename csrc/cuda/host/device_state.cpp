#include "cuda/host/device_state.h"

#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>
#include <unordered_map>

#include "cuda/host/launch.h"

// Nothing here is ever freed: at exit, CUDA may be gone before static objects are, and kernels may still run.
namespace ce_ext::cuda {
namespace {

BadTarget* make_records() {
  // A graph that is being captured does not depend on it; captures forbid allocations all the same.
  const c10::cuda::CUDAStreamCaptureModeGuard allow(cudaStreamCaptureModeRelaxed);
  const size_t devices = c10::cuda::device_count();
  void* memory = nullptr;  // that has one address for the host and for all devices
  C10_CUDA_CHECK(cudaHostAlloc(&memory, devices * sizeof(BadTarget), cudaHostAllocMapped | cudaHostAllocPortable));
  auto* records = static_cast<BadTarget*>(memory);
  std::uninitialized_value_construct_n(records, devices);
  return records;
}

}  // namespace

BadTarget& bad_target_of(c10::DeviceIndex device) {
  static BadTarget* const records = make_records();
  return records[device];
}

at::Tensor counters_of(c10::cuda::CUDAStream stream) {
  const auto make = [&] { return at::zeros({kCounters}, at::TensorOptions(stream.device()).dtype(at::kInt)); };
  // A graph may be replayed on any stream, while its own does other work.
  if (c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None) return make();
  static auto& mutex = *new std::mutex;
  static auto& counters = *new std::unordered_map<c10::cuda::CUDAStream, at::Tensor>;
  const std::lock_guard lock(mutex);
  at::Tensor& of_stream = counters[stream];
  if (!of_stream.defined()) of_stream = make();
  return of_stream;
}

}  // namespace ce_ext::cuda
