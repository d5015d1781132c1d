// Puts the emulated CUDA kernels in the place of the CPU's: the ops then take CPU tensors, check them in csrc/host as
// ever, and hand their problems to the launchers of csrc/cuda, which come from a library that is loaded first.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>

#include "cpu/backend.h"
#include "cuda/bad_target.h"
#include "cuda/launch.h"
#include "cuda/policy.cuh"
#include "host/register_ops.h"

namespace {

unsigned counters[ce_ext::cuda::kCounters];
ce_ext::cuda::BadTarget bad_target;

void check_targets(std::optional<at::Device>) { ce_ext::cuda::check_bad_target(bad_target, 0); }

struct Backend {
  using DeviceGuard = ce_ext::cpu::Backend::DeviceGuard;  // the tensors are the CPU's

  template <class Problem>
  static int64_t run(const Problem& problem) {
    ce_ext::cuda::check_bad_target(bad_target, 0);
    at::Tensor workspace = at::empty({ce_ext::cuda::workspace_size(problem)}, at::kByte);
    ce_ext::cuda::launch(problem, {nullptr, workspace.mutable_data_ptr(), counters, &bad_target});
    return -1;
  }
};

// That this overrides the CPU's kernels is meant, and worth no warning.
struct Quiet : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

std::optional<torch::Library> emulation, emulation_without_tensors;

}  // namespace

extern "C" void start_emulation() {
  Quiet quiet;
  const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
  emulation.emplace(torch::Library::IMPL, "ce_ext", c10::DispatchKey::CPU, __FILE__, __LINE__);
  ce_ext::register_ops<Backend>(*emulation);
  const auto any_device = c10::DispatchKey::CompositeExplicitAutograd;
  emulation_without_tensors.emplace(torch::Library::IMPL, "ce_ext", any_device, __FILE__, __LINE__);
  emulation_without_tensors->impl("check_targets", &check_targets);
  emulation_without_tensors->impl("cuda_policy", &ce_ext::cuda::policy_text);
  emulation_without_tensors->impl("override_cuda_policy", &ce_ext::cuda::override_policy);
}

extern "C" void stop_emulation() {
  emulation.reset();
  emulation_without_tensors.reset();
}
