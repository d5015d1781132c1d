// The ops that write to an argument, for tensors with the negative bit, of which memory has the negatives. torch does
// this for ops that write to none. Of others it expects that they return what they have written, first of all, and
// where they do not it corrupts its stack.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/resolve_neg.h>
#include <torch/library.h>

namespace ce_ext {
namespace {

void with_resolved_negatives(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const at::Tensor written = torch::jit::peek(*stack, 0, count).toTensor();
  for (size_t i = 0; i < count; ++i) {
    at::IValue& argument = torch::jit::peek(*stack, i, count);
    if (argument.isTensor()) argument = argument.toTensor().resolve_neg();
  }
  const at::Tensor resolved = torch::jit::peek(*stack, 0, count).toTensor();
  op.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, c10::DispatchKey::Negative), stack);
  if (written.is_same(resolved)) return;
  const at::AutoDispatchBelowADInplaceOrView guard;  // what is written is no step of a graph
  written.copy_(resolved);
  written.unsafeGetTensorImpl()->bump_version();
}

}  // namespace

TORCH_LIBRARY_IMPL(ce_ext, Negative, m) {
  for (const char* name : {"cross_entropy_with_grad", "scale_gradient"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<with_resolved_negatives>());
  }
}

}  // namespace ce_ext
