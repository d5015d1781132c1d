// Ops for torch.jit.trace, which records none that may return None.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace ce_ext {

// Defines NAME_traced for an op NAME that may return None, in place of which that returns undefined tensors. (No
// overload: of those that take the same arguments, TorchScript finds the first.)
void define_traceable(const c10::OperatorHandle& op);

// That op, or the op itself if it has none.
c10::OperatorHandle traceable(const c10::OperatorHandle& op);

}  // namespace ce_ext
