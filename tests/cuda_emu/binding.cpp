// Puts the emulated CUDA kernels in the place of the CPU's: the ops then take CPU tensors, check them in csrc/host as
// ever, and hand their problems to the launchers of csrc/cuda, which come from a library that is loaded first.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>

#include "cpu/backend.h"
#include "cuda/launch.h"
#include "host/register_ops.h"

namespace {

struct Backend {
  using DeviceGuard = ce_ext::cpu::Backend::DeviceGuard;  // the tensors are the CPU's

  template <class Problem>
  static int64_t run(const Problem& problem) {
    at::Tensor workspace = at::empty({ce_ext::cuda::workspace_size(problem)}, at::kByte);
    ce_ext::cuda::launch(problem, workspace.mutable_data_ptr(), nullptr);
    return -1;
  }
};

// That this overrides the CPU's kernels is meant, and worth no warning.
struct Quiet : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

std::optional<torch::Library> emulation;

}  // namespace

extern "C" void start_emulation() {
  Quiet quiet;
  const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
  emulation.emplace(torch::Library::IMPL, "ce_ext", c10::DispatchKey::CPU, __FILE__, __LINE__);
  ce_ext::register_ops<Backend>(*emulation);
}

extern "C" void stop_emulation() { emulation.reset(); }
