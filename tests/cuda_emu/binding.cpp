// The emulated CUDA kernels as a backend for CPU tensors: the ops check in csrc/host as ever, and their problems go to
// the launchers of csrc/cuda, which come from a library that is loaded first.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>

#include "cuda/host/bad_target.h"
#include "cuda/host/launch.h"
#include "cuda/rows/policy.cuh"
#include "host/drivers.h"

namespace {

unsigned counters[ce_ext::cuda::kCounters];
ce_ext::cuda::BadTarget bad_target;

void check_targets(std::optional<at::Device>) { ce_ext::cuda::check_bad_target(bad_target, 0); }

struct Backend {
  template <class Problem>
  static int64_t run(const Problem& problem) {
    ce_ext::cuda::check_bad_target(bad_target, 0);
    at::Tensor workspace = at::empty({ce_ext::cuda::workspace_size(problem)}, at::kByte);
    ce_ext::cuda::launch(problem, {nullptr, workspace.mutable_data_ptr(), counters, &bad_target});
    return ce_ext::kNoBadRow;
  }
};

// The ops of CUDA alone, which a build without CUDA lacks.
std::optional<torch::Library> ops_of_cuda;

}  // namespace

const ce_ext::Drivers* ce_ext_drivers() {
  static constexpr auto kDrivers = ce_ext::Drivers::of<Backend>();
  return &kDrivers;
}

extern "C" void register_ops_of_cuda() {
  const auto any_device = c10::DispatchKey::CompositeExplicitAutograd;
  ops_of_cuda.emplace(torch::Library::IMPL, "ce_ext", any_device, __FILE__, __LINE__);
  ops_of_cuda->impl("check_targets", &check_targets);
  ops_of_cuda->impl("cuda_policy", &ce_ext::cuda::policy_text);
  ops_of_cuda->impl("override_cuda_policy", &ce_ext::cuda::override_policy);
}

extern "C" void unregister_ops_of_cuda() { ops_of_cuda.reset(); }
