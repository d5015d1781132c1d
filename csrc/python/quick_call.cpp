#include "python/quick_call.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <string>
#include <utility>
#include <vector>

#include "python/conversions.h"
#include "python/differentiable_op.h"

namespace ce_ext {
namespace {

namespace py = pybind11;

struct Callee {
  c10::OperatorHandle op;
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
    const py::gil_scoped_release no_gil;
    callee.op.callBoxed(stack);
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
        const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), /*overload_name=*/"");
        const py::capsule callee(new Callee{op, parameters_of(op)});
        return py::reinterpret_steal<py::object>(PyCFunction_New(&kCallFromPython, callee.ptr()));
      },
      py::arg("name"));
}

}  // namespace ce_ext
