// The ops as the dispatcher finds them for CPU tensors.
#include <torch/library.h>

#include "cpu/backend.h"
#include "host/cross_entropy.h"

TORCH_LIBRARY_IMPL(ce_ext, CPU, m) { ce_ext::register_cross_entropy<ce_ext::cpu::Backend>(m); }
