// The ops as the dispatcher finds them for CPU tensors.
#include <torch/library.h>

#include "cpu/backend.h"
#include "host/register_ops.h"

TORCH_LIBRARY_IMPL(ce_ext, CPU, m) { ce_ext::register_ops<ce_ext::cpu::Backend>(m); }
