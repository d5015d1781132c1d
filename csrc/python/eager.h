// `ce_ext._C.eager`: calls of ops with their autograd in eager mode, where Python would take longer than the kernels.
#pragma once

#include <pybind11/pybind11.h>

namespace ce_ext {

void bind_eager(pybind11::module_& m);

}  // namespace ce_ext
