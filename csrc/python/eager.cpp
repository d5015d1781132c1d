#include "python/eager.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>

#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "python/op_pair.h"

namespace ce_ext {
namespace {

namespace py = pybind11;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;
using torch::jit::Stack;

// An op pair, and the Python function that is its backward op with derivatives of its own: (*tensors, options) ->
// gradients. It lives as long as the process, because graphs may outlive the module that made them.
struct EagerOp {
  OpPair ops;
  PyObject* differentiable_backward;
};

// Autograd is what the code here does itself; all other keys, those of modes and subclasses too, see the op.
void call_below_autograd(const c10::OperatorHandle& op, Stack& stack) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  op.callBoxed(stack);
}

// Conversions between Python and the dispatcher

// False for what only Python knows how to handle: a tensor that is a subclass or has a tangent, a symbolic number, a
// wrong type.
bool from_python(Parameter parameter, PyObject* object, at::IValue& value) {
  if (object == Py_None) return parameter.optional;
  switch (parameter.kind) {
    case Kind::kTensor: {
      if (!THPVariable_CheckExact(object)) return false;
      const at::Tensor& tensor = THPVariable_Unpack(object);
      if (torch::autograd::isFwGradDefined(tensor)) return false;
      value = tensor;
      return true;
    }
    case Kind::kInt: {
      if (!PyLong_CheckExact(object)) return false;
      int overflow = 0;
      value = static_cast<int64_t>(PyLong_AsLongLongAndOverflow(object, &overflow));
      return overflow == 0;
    }
    case Kind::kFloat:
      if (!PyFloat_CheckExact(object)) return false;
      value = PyFloat_AS_DOUBLE(object);
      return true;
    case Kind::kBool:
      if (!PyBool_Check(object)) return false;
      value = object == Py_True;
      return true;
    case Kind::kDtype:
      if (!THPDtype_Check(object)) return false;
      value = static_cast<int64_t>(reinterpret_cast<THPDtype*>(object)->scalar_type);
      return true;
  }
  return false;
}

py::object to_python(Parameter parameter, const at::IValue& value) {
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
  return py::none();
}

// The node

Stack backward_arguments(const OpPair& ops, const at::Tensor& grad_output, const variable_list& tensors, Stack values) {
  auto tensor = tensors.begin();
  for (size_t i = 0; i < values.size(); ++i) {
    if (ops.sources[i] == OpPair::kGradOutput) {
      values[i] = grad_output;
    } else if (ops.backward_parameters[i].kind == Kind::kTensor) {
      if (tensor->defined()) values[i] = *tensor;
      ++tensor;
    }
  }
  return values;
}

variable_list call_backward(const OpPair& ops, Stack stack) {
  call_below_autograd(ops.backward, stack);
  variable_list gradients;
  gradients.reserve(stack.size());
  for (at::IValue& gradient : stack) gradients.push_back(std::move(gradient).toTensor());
  return gradients;
}

variable_list call_differentiable_backward(const EagerOp& op, const Stack& stack) {
  const py::gil_scoped_acquire gil;
  py::list tensors, options;
  for (size_t i = 0; i < stack.size(); ++i) {
    const Parameter parameter = op.ops.backward_parameters[i];
    (parameter.kind == Kind::kTensor ? tensors : options).append(to_python(parameter, stack[i]));
  }
  tensors.append(py::tuple(options));
  auto result =
      py::reinterpret_steal<py::object>(PyObject_CallObject(op.differentiable_backward, py::tuple(tensors).ptr()));
  if (!result) {
    python_error error;
    error.persist();
    throw error;
  }
  variable_list gradients;
  for (const py::handle gradient : THPVariable_Check(result.ptr()) ? py::make_tuple(result) : py::tuple(result)) {
    gradients.push_back(THPVariable_Unpack(gradient.ptr()));
  }
  return gradients;
}

class EagerNode final : public Node {
 public:
  EagerNode(const EagerOp& op, torch::autograd::edge_list&& edges) : Node(std::move(edges)), op_(op) {}

  // After the result has this node for its grad_fn: a result that is saved must not own the node that owns it.
  void save(const Stack& arguments, const Stack& results) {
    const OpPair& ops = op_.ops;
    values_.resize(ops.sources.size());
    tensors_.reserve(ops.sources.size());
    for (size_t i = 0; i < ops.sources.size(); ++i) {
      if (ops.sources[i] == OpPair::kGradOutput) continue;
      const size_t source = ops.sources[i];
      const at::IValue& value = source < arguments.size() ? arguments[source] : results[source - arguments.size()];
      if (ops.backward_parameters[i].kind != Kind::kTensor) {
        values_[i] = value;
      } else if (value.isNone()) {
        tensors_.emplace_back();
      } else {
        tensors_.emplace_back(value.toTensor(), /*is_output=*/source == arguments.size());
      }
    }
  }

  std::string name() const override { return op_.ops.backward.schema().name(); }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (SavedVariable& tensor : tensors_) tensor.reset_data();
  }

  // Compiled autograd calls backward with tensors of its own. Values are constants of the graph.
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override {
    args.collect(name());
    args.collect(tensors_, /*is_output=*/true);
    for (const at::IValue& value : values_) args.collect(value, /*nested=*/true);
  }

  variable_list apply_with_saved(const variable_list& grads,
                                 torch::dynamo::autograd::SwapSavedVariables& saved) override {
    using namespace torch::dynamo::autograd;
    saved.before(tensors_);
    PackedArgs args;
    args.pack(unpack());
    saved.after(tensors_);
    const auto backward = [&ops = op_.ops, values = values_](const variable_list& grads,
                                                             const std::vector<at::IValue>& args) {
      return call_backward(ops, backward_arguments(ops, grads[0], PackedArgs(args).unpack<variable_list>(), values));
    };
    const auto& compiler = getPyCompilerInterface();
    const auto function =
        compiler->bind_function(saved.get_py_compiler(), name(), backward, {c10::ListType::ofTensors()},
                                /*is_custom_function=*/true, /*is_traceable=*/true);
    const auto metadata = IValuePacker<std::vector<std::optional<torch::autograd::InputMetadata>>>::pack(
        get_input_metadata(next_edges()));
    return compiler->call_function(saved.get_py_compiler(), "apply_functional", function, grads, std::move(args).vec(),
                                   metadata);
  }

 protected:
  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return variable_list(num_outputs());
    Stack stack = backward_arguments(op_.ops, grads[0], unpack(), values_);
    return at::GradMode::is_enabled() ? call_differentiable_backward(op_, stack)
                                      : call_backward(op_.ops, std::move(stack));
  }

 private:
  variable_list unpack() {
    const std::lock_guard<std::mutex> lock(mutex_);  // against release_variables in another thread
    variable_list tensors;
    tensors.reserve(tensors_.size());
    for (const SavedVariable& tensor : tensors_) tensors.push_back(tensor.unpack(getptr()));
    return tensors;
  }

  const EagerOp& op_;
  std::vector<SavedVariable> tensors_;  // those that backward takes, in the order of its arguments
  Stack values_;                        // its other arguments; None where it takes a tensor
};

// Nodes are owned by a shared_ptr before torch 2.13, and by an intrusive_ptr since.
template <class Pointer>
Pointer own(Node* node) {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<Node>>) {
    return Pointer(node, [](auto* unowned) { deleteNode(unowned); });  // torch's, by the type of the argument
  } else {
    return Pointer::unsafe_steal_from_new(node);
  }
}

// Calls

at::Tensor call_forward(const EagerOp& op, Stack arguments) {
  const OpPair& ops = op.ops;
  bool requires_grad = false;
  if (at::GradMode::is_enabled()) {
    for (const int i : ops.differentiable) {
      requires_grad = requires_grad || (arguments[i].isTensor() && arguments[i].toTensor().requires_grad());
    }
  }
  if (!requires_grad) {
    call_below_autograd(ops.forward, arguments);
    return std::move(arguments[0]).toTensor();
  }
  Stack results = arguments;
  call_below_autograd(ops.forward, results);
  torch::autograd::edge_list edges;
  for (const int i : ops.differentiable) {
    edges.push_back(arguments[i].isTensor() ? torch::autograd::impl::gradient_edge(arguments[i].toTensor())
                                            : torch::autograd::Edge());
  }
  auto* node = new EagerNode(op, std::move(edges));
  const auto owner = own<decltype(torch::autograd::Edge::function)>(node);
  at::Tensor result = results[0].toTensor();
  torch::autograd::set_history(result, owner);
  node->save(arguments, results);
  return result;
}

// Under a transform of torch.func or a mode, Python's Functions take over.
bool is_plain_eager_mode() {
  return !at::impl::torch_function_mode_enabled() &&
         !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

// (*tensors, options) -> the first result of forward, or NotImplemented where only Python's Functions will do.
PyObject* call_from_python(PyObject* self, PyObject* const* objects, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  const auto& op = *static_cast<const EagerOp*>(PyCapsule_GetPointer(self, nullptr));
  const std::vector<Parameter>& parameters = op.ops.forward_parameters;
  const Py_ssize_t tensors = count - 1;
  PyObject* options = count ? objects[tensors] : nullptr;
  TORCH_CHECK_TYPE(options && PyTuple_Check(options), "the last argument must be a tuple of options");
  TORCH_CHECK_TYPE(tensors + PyTuple_GET_SIZE(options) == static_cast<Py_ssize_t>(parameters.size()),
                   op.ops.forward.schema().name(), " takes ", parameters.size(), " arguments, but got ",
                   tensors + PyTuple_GET_SIZE(options));
  if (!is_plain_eager_mode()) Py_RETURN_NOTIMPLEMENTED;
  Stack arguments(parameters.size());
  for (size_t i = 0; i < arguments.size(); ++i) {
    const Py_ssize_t option = static_cast<Py_ssize_t>(i) - tensors;
    PyObject* object = option < 0 ? objects[i] : PyTuple_GET_ITEM(options, option);
    if (!from_python(parameters[i], object, arguments[i])) Py_RETURN_NOTIMPLEMENTED;
  }
  at::Tensor result;
  {
    const py::gil_scoped_release no_gil;
    result = call_forward(op, std::move(arguments));
  }
  return THPVariable_Wrap(std::move(result));
  END_HANDLE_TH_ERRORS
}

// pybind11's own way of calling takes longer than the rest.
PyMethodDef kCallFromPython = {"eager", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_from_python)),
                               METH_FASTCALL, nullptr};

}  // namespace

void bind_eager(py::module_& m) {
  m.def(
      "eager",
      [](const std::string& name, const py::function& differentiable_backward) {
        const py::capsule op(new EagerOp{OpPair(name), py::function(differentiable_backward).release().ptr()});
        return py::reinterpret_steal<py::object>(PyCFunction_New(&kCallFromPython, op.ptr()));
      },
      py::arg("name"), py::arg("differentiable_backward"));
}

}  // namespace ce_ext
