// Ops for torch.jit.trace, which records none that may return None.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace ce_ext {

// Defines the overload `traceable` of an op, which returns undefined tensors in place of None.
void define_traceable(const c10::OperatorHandle& op);

// That overload, or the op itself if it has none.
c10::OperatorHandle traceable(const c10::OperatorHandle& op);

}  // namespace ce_ext
