#include "python/calls.h"

#include <torch/csrc/Dtype.h>
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/csrc/utils/python_symnode.h>

#include <string>
#include <utility>
#include <vector>

#include "python/traceable.h"

namespace ce_ext {

namespace py = pybind11;

at::IValue from_python(const Parameter& parameter, PyObject* object) {
  if (object == Py_None && parameter.optional) return {};
  switch (parameter.kind) {
    case Kind::kTensor:
      if (THPVariable_Check(object)) return THPVariable_Unpack(object);
      break;
    case Kind::kInt:
      if (torch::is_symint(object)) return py::cast<c10::SymInt>(object);
      if (PyIndex_Check(object) && !PyBool_Check(object)) {  // False was size_average, once
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
      return value.isSymInt() ? py::cast(value.toSymInt()) : py::int_(value.toInt());
    case Kind::kFloat:
      return py::float_(value.toDouble());
    case Kind::kBool:
      return py::bool_(value.toBool());
    case Kind::kDtype:
      return py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(torch::getTHPDtype(value.toScalarType())));
  }
  TORCH_INTERNAL_ASSERT(false);
}

namespace {

struct Callee {
  c10::OperatorHandle op;
  c10::OperatorHandle traceable;
  std::vector<Parameter> parameters;
};

// (*tensors, options) -> the first result.
PyObject* call_from_python(PyObject* self, PyObject* const* objects, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  const auto& callee = *static_cast<const Callee*>(PyCapsule_GetPointer(self, nullptr));
  const std::vector<Parameter>& parameters = callee.parameters;
  const Py_ssize_t tensors = count - 1;
  PyObject* options = count ? objects[tensors] : nullptr;
  TORCH_CHECK_TYPE(options && PyTuple_Check(options), "the last argument must be a tuple of options");
  TORCH_CHECK_TYPE(tensors + PyTuple_GET_SIZE(options) == static_cast<Py_ssize_t>(parameters.size()),
                   callee.op.schema().name(), " takes ", parameters.size(), " arguments, but got ",
                   tensors + PyTuple_GET_SIZE(options));
  torch::jit::Stack stack;
  stack.reserve(parameters.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Py_ssize_t option = static_cast<Py_ssize_t>(i) - tensors;
    stack.push_back(from_python(parameters[i], option < 0 ? objects[i] : PyTuple_GET_ITEM(options, option)));
  }
  {
    const py::gil_scoped_release_simple no_gil;  // which looks nothing up
    (torch::jit::tracer::isTracing() ? callee.traceable : callee.op).callBoxed(stack);
  }
  return THPVariable_Wrap(std::move(stack[0]).toTensor());
  END_HANDLE_TH_ERRORS
}

// pybind11's own way of calling takes longer than the rest.
PyMethodDef kCallFromPython = {"quick_call",
                               reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_from_python)),
                               METH_FASTCALL, nullptr};

}  // namespace

void bind_quick_call(py::module_& m) {
  m.def(
      "quick_call",
      [](const std::string& name) {
        const c10::OperatorHandle op = find_op(name);
        const py::capsule callee(new Callee{op, traceable(op), parameters_of(op)});
        return py::reinterpret_steal<py::object>(PyCFunction_New(&kCallFromPython, callee.ptr()));
      },
      py::arg("name"));
}

}  // namespace ce_ext
