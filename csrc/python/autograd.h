// Autograd of every op pair, for the dispatcher, and a quick way to call ops from Python.
#pragma once

#include <pybind11/pybind11.h>

namespace ce_ext {

void bind_autograd(pybind11::module_& m);

}  // namespace ce_ext
