// Values between Python and the dispatcher, by the parameters of an op.
#pragma once

#include <ATen/core/ivalue.h>
#include <pybind11/pybind11.h>

#include "python/differentiable_op.h"

namespace ce_ext {

// Raises TypeError or ValueError, which name the parameter and show the value, if the object does not fit.
at::IValue from_python(const Parameter& parameter, PyObject* object);

pybind11::object to_python(const Parameter& parameter, const at::IValue& value);

}  // namespace ce_ext
