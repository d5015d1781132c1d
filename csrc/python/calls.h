// Values between Python and the dispatcher, by the parameters of an op, and calls from one to the other.
#pragma once

#include <ATen/core/ivalue.h>
#include <pybind11/pybind11.h>

#include "python/differentiable_op.h"

namespace ce_ext {

// Raises TypeError or ValueError, which name the parameter and show the value, if the object does not fit.
at::IValue from_python(const Parameter& parameter, PyObject* object);

pybind11::object to_python(const Parameter& parameter, const at::IValue& value);

// `ce_ext._C.quick_call`: an op as a function of Python that costs half of what `torch.ops` does.
void bind_quick_call(pybind11::module_& m);

}  // namespace ce_ext
