// `ce_ext._C.quick_call`: an op as a function of Python that costs half of what `torch.ops` does.
#pragma once

#include <pybind11/pybind11.h>

namespace ce_ext {

void bind_quick_call(pybind11::module_& m);

}  // namespace ce_ext
