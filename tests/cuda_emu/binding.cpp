// The emulated CUDA kernels as a backend for CPU tensors: the ops check in csrc/host as ever, and their problems go to
// the launchers of csrc/cuda, which come from a library that is loaded first.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>
#include <vector>

#include "cuda/host/bad_target.h"
#include "cuda/host/launch.h"
#include "cuda/rows/policy.cuh"
#include "host/drivers.h"

extern "C" int take_last_error();  // of the emulator

namespace {

unsigned counters[ce_ext::cuda::kCounters];
ce_ext::cuda::BadTarget bad_target;

// What the last launch asked for.
int64_t allocated_bytes;
bool has_counters;

class Memory final : public ce_ext::cuda::LaunchMemory {
 public:
  Memory() {
    allocated_bytes = 0;
    has_counters = false;
  }

  void* allocate(int64_t bytes) override {
    allocated_bytes += bytes;
    allocated_.push_back(at::empty({bytes}, at::kByte));
    return allocated_.back().mutable_data_ptr();
  }

  unsigned* counters() override {
    has_counters = true;
    return ::counters;
  }

 private:
  std::vector<at::Tensor> allocated_;
};

void check_targets(std::optional<at::Device>) { ce_ext::cuda::check_bad_target(bad_target, 0); }

struct Backend {
  template <class Problem>
  static int64_t run(const Problem& problem) {
    ce_ext::cuda::check_bad_target(bad_target, 0);
    Memory memory;
    ce_ext::cuda::launch(problem, {nullptr, memory, &bad_target});
    TORCH_CHECK(take_last_error() == 0, "a call of CUDA has left an error behind");
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

extern "C" int64_t last_allocated_bytes() { return allocated_bytes; }
extern "C" bool last_had_counters() { return has_counters; }

extern "C" void register_ops_of_cuda() {
  const auto any_device = c10::DispatchKey::CompositeExplicitAutograd;
  ops_of_cuda.emplace(torch::Library::IMPL, "ce_ext", any_device, __FILE__, __LINE__);
  ops_of_cuda->impl("check_targets", &check_targets);
  ops_of_cuda->impl("cuda_policy", &ce_ext::cuda::policy_text);
  ops_of_cuda->impl("override_cuda_policy", &ce_ext::cuda::override_policy);
}

extern "C" void unregister_ops_of_cuda() { ops_of_cuda.reset(); }
