// The ops under torch.autocast: a loss of half logits is float32 if no dtype is asked for, as those of torch are, and
// so is the gradient that reaches it from upstream. The kernels compute in float32 as it is, so that nothing is cast
// for it.
#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

namespace ce_ext {
namespace {

void with_float_result(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const c10::FunctionSchema& schema = op.schema();
  const auto argument = [&](const char* name) -> at::IValue& {
    return torch::jit::peek(*stack, *schema.argumentIndexWithName(name), schema.arguments().size());
  };
  const at::ScalarType input = argument("input").toTensor().scalar_type();
  at::IValue& dtype = argument(schema.argumentIndexWithName("out_dtype") ? "out_dtype" : "dtype");
  if (dtype.isNone() && (input == at::kHalf || input == at::kBFloat16)) dtype = at::kFloat;
  op.callBoxed(stack);
}

void register_autocast(torch::Library& m) {
  for (const char* name : {"cross_entropy_forward", "cross_entropy_with_grad", "soft_cross_entropy_forward",
                           "log_softmax_forward", "binary_cross_entropy_forward"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<with_float_result>());
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(ce_ext, AutocastCPU, m) { register_autocast(m); }
TORCH_LIBRARY_IMPL(ce_ext, AutocastCUDA, m) { register_autocast(m); }

}  // namespace ce_ext
