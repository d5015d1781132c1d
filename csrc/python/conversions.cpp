#include "python/conversions.h"

#include <torch/csrc/Dtype.h>
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/autograd/python_variable.h>

#include <string>

namespace ce_ext {

namespace py = pybind11;

at::IValue from_python(const Parameter& parameter, PyObject* object) {
  if (object == Py_None && parameter.optional) return {};
  switch (parameter.kind) {
    case Kind::kTensor:
      if (THPVariable_Check(object)) return THPVariable_Unpack(object);
      break;
    case Kind::kInt:
      if (PyIndex_Check(object)) {
        int overflow = 0;
        const auto value = static_cast<int64_t>(PyLong_AsLongLongAndOverflow(object, &overflow));
        TORCH_CHECK_VALUE(overflow == 0, parameter.name, " must fit into 64 bits, but got ",
                          py::repr(object).cast<std::string>());
        return value;
      }
      break;
    case Kind::kFloat:
      if (PyNumber_Check(object)) {
        const double value = PyFloat_AsDouble(object);
        if (value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
        return value;
      }
      break;
    case Kind::kBool:
      if (PyBool_Check(object)) return object == Py_True;
      break;
    case Kind::kDtype:
      if (THPDtype_Check(object)) return static_cast<int64_t>(reinterpret_cast<THPDtype*>(object)->scalar_type);
      break;
  }
  static constexpr const char* kNames[] = {"a Tensor", "an int", "a float", "a bool", "a torch.dtype"};
  TORCH_CHECK_TYPE(false, parameter.name, " must be ", kNames[static_cast<int>(parameter.kind)], ", but got ",
                   py::repr(object).cast<std::string>());
}

py::object to_python(const Parameter& parameter, const at::IValue& value) {
  if (value.isNone()) return py::none();
  switch (parameter.kind) {
    case Kind::kTensor:
      return py::reinterpret_steal<py::object>(THPVariable_Wrap(value.toTensor()));
    case Kind::kInt:
      return py::int_(value.toInt());
    case Kind::kFloat:
      return py::float_(value.toDouble());
    case Kind::kBool:
      return py::bool_(value.toBool());
    case Kind::kDtype:
      return py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(torch::getTHPDtype(value.toScalarType())));
  }
  TORCH_INTERNAL_ASSERT(false);
}

}  // namespace ce_ext
