#include "python/autograd.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "python/calls.h"
#include "python/differentiable_op.h"
#include "python/traceable.h"

namespace ce_ext {
namespace {

namespace py = pybind11;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;
using torch::jit::Stack;
using Values = c10::ArrayRef<at::IValue>;

Values last(const Stack& stack, size_t count) { return Values(stack).slice(stack.size() - count); }

at::IValue or_none(at::Tensor tensor) { return tensor.defined() ? at::IValue(std::move(tensor)) : at::IValue(); }

// function(*first, *tensors, options) -> a tensor, or a tuple of tensors and Nones. Tensors and options are those of
// the stack, but for the first `skip` of it.
variable_list call_python(PyObject* function, const variable_list& first, const std::vector<Parameter>& parameters,
                          const Stack& stack, size_t skip) {
  const py::gil_scoped_acquire gil;
  py::list tensors, options;
  for (const at::Tensor& tensor : first) tensors.append(to_python({}, or_none(tensor)));
  for (size_t i = skip; i < stack.size(); ++i) {
    (parameters[i].kind == Kind::kTensor ? tensors : options).append(to_python(parameters[i], stack[i]));
  }
  tensors.append(py::tuple(options));
  auto result = py::reinterpret_steal<py::object>(PyObject_CallObject(function, py::tuple(tensors).ptr()));
  if (!result) {
    python_error error;
    error.persist();
    throw error;
  }
  variable_list results;
  for (const py::handle item : PyTuple_Check(result.ptr()) ? py::tuple(result) : py::make_tuple(result)) {
    TORCH_CHECK_TYPE(item.is_none() || THPVariable_Check(item.ptr()), "a derivative must be a Tensor or None, but got ",
                     py::repr(item).cast<std::string>());
    results.push_back(item.is_none() ? at::Tensor() : THPVariable_Unpack(item.ptr()));
  }
  return results;
}

// The node of the graph

// A differentiable op and what computes its derivatives. The functions of Python are never freed.
struct Derivatives {
  DifferentiableOp op;
  std::optional<c10::OperatorHandle> gradient_op;  // none where the gradient is a function of Python
  PyObject* gradient;                              // that function: (*gradients, *tensors, options) -> gradients
  PyObject* tangent;                               // (*tangents, *tensors, options) -> tangents, or null for none
  size_t saved_tensors = op.saved_tensors();

  std::string gradient_name() const {
    return gradient_op ? gradient_op->schema().name() : op.op.schema().name() + "_backward";
  }

  variable_list call_gradient(Stack stack) const {
    if (!gradient_op) return call_python(gradient, {}, op.gradient_takes, stack, 0);
    if (op.ready_gradient >= 0) {
      const at::Tensor ready = stack[0].toTensor();
      gradient_op->callBoxed(stack);
      return {ready};
    }
    gradient_op->callBoxed(stack);
    variable_list gradients;
    gradients.reserve(stack.size());
    for (at::IValue& value : stack) gradients.push_back(std::move(value).toTensor());
    return gradients;
  }

  Stack gradient_arguments(variable_list&& grads, variable_list&& tensors, Stack values) const {
    auto tensor = tensors.begin();
    for (size_t i = 0; i < values.size(); ++i) {
      if (op.sources[i] < 0) {
        values[i] = or_none(std::move(grads[~op.sources[i]]));
      } else if (op.gradient_takes[i].kind == Kind::kTensor) {
        values[i] = or_none(std::move(*tensor++));
      }
    }
    return values;
  }
};

bool any_defined(const variable_list& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) { return tensor.defined(); });
}

class OpNode final : public Node {
 public:
  OpNode(const Derivatives& derivatives, torch::autograd::edge_list&& edges)
      : Node(std::move(edges)),
        derivatives_(derivatives),
        tensors_(derivatives.saved_tensors),
        values_(derivatives.op.sources.size()) {}

  void save_arguments(Values arguments) { save(arguments, 0, /*differentiable=*/0); }

  // After the op has written it, of which autograd would else be told as of a change of what is saved.
  void save_ready_gradient(const at::Tensor& gradient) {
    tensors_.front() = SavedVariable(gradient, /*is_output=*/false);
  }

  // After the results have this node for their grad_fn: one that is saved must not own the node that owns it.
  void save_results(Values results) {
    const DifferentiableOp& op = derivatives_.op;
    save(results, op.op.schema().arguments().size(), op.results);
  }

  std::string name() const override { return derivatives_.gradient_name(); }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (SavedVariable& tensor : tensors_) tensor.reset_data();
  }

  // Compiled autograd calls the gradient with tensors of its own. Values are constants of its graph.
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
    const auto gradient = [&derivatives = derivatives_, values = values_](const variable_list& grads,
                                                                          const std::vector<at::IValue>& args) {
      return derivatives.call_gradient(
          derivatives.gradient_arguments(variable_list(grads), PackedArgs(args).unpack<variable_list>(), values));
    };
    const auto& compiler = getPyCompilerInterface();
    const auto function =
        compiler->bind_function(saved.get_py_compiler(), name(), gradient, {c10::ListType::ofTensors()},
                                /*is_custom_function=*/true, /*is_traceable=*/true);
    const auto metadata = IValuePacker<std::vector<std::optional<torch::autograd::InputMetadata>>>::pack(
        get_input_metadata(next_edges()));
    return compiler->call_function(saved.get_py_compiler(), "apply_functional", function, grads, std::move(args).vec(),
                                   metadata);
  }

 protected:
  variable_list apply(variable_list&& grads) override {
    if (!any_defined(grads)) return variable_list(num_outputs());
    const bool is_ready = derivatives_.op.ready_gradient >= 0;
    if (is_ready) claim_ready_gradient();
    Stack arguments = derivatives_.gradient_arguments(std::move(grads), unpack(), values_);
    if (is_ready) release_variables();  // for whoever gets it to keep it
    return derivatives_.call_gradient(std::move(arguments));
  }

 private:
  // What the gradient takes of these values, the first of which is source number `first`, and the first of which are
  // differentiable results.
  void save(Values values, size_t first, size_t differentiable) {
    const DifferentiableOp& op = derivatives_.op;
    auto tensor = tensors_.begin();
    for (size_t i = 0; i < op.sources.size(); ++i) {
      if (op.sources[i] < 0) continue;
      const bool is_tensor = op.gradient_takes[i].kind == Kind::kTensor;
      const size_t place = op.sources[i] - first;
      if (place < values.size()) {
        const at::IValue& value = values[place];
        if (!is_tensor) {
          values_[i] = op.gradient_takes[i].of(value);
        } else if (value.isTensor() && op.sources[i] != op.ready_gradient) {
          *tensor = SavedVariable(value.toTensor(), place < differentiable);
        }
      }
      if (is_tensor) ++tensor;
    }
  }

  variable_list unpack() {
    const std::lock_guard<std::mutex> lock(mutex_);  // against release_variables in another thread
    const auto self = getptr();
    variable_list tensors;
    tensors.reserve(tensors_.size());
    for (const SavedVariable& tensor : tensors_) tensors.push_back(tensor.unpack(self));
    return tensors;
  }

  void claim_ready_gradient() {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "a gradient of the forward pass has no derivative: create_graph needs grad_in_forward=False");
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!std::exchange(is_claimed_, true),
                "a gradient of the forward pass serves one backward pass, and this is the second: "
                "retain_graph needs grad_in_forward=False");
  }

  const Derivatives& derivatives_;
  std::vector<SavedVariable> tensors_;  // those that the gradient takes, in the order of its arguments
  Stack values_;                        // its other arguments; None where it takes a tensor
  bool is_claimed_ = false;             // the ready gradient, by a backward pass
};

// Nodes are owned by a shared_ptr before torch 2.13, and by an intrusive_ptr since.
using Owner = decltype(torch::autograd::Edge::function);

template <class Pointer>
Pointer own(Node* node) {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<Node>>) {
    return Pointer(node, [](auto* unowned) { deleteNode(unowned); });  // torch's, by the type of the argument
  } else {
    return Pointer::unsafe_steal_from_new(node);
  }
}

// The kernel

// What torch generates for its own ops: it computes the results below autograd, records a node if a gradient may be
// asked for, and gives the results their tangents if an argument has one.
class AutogradKernel final : public c10::OperatorKernel {
 public:
  explicit AutogradKernel(const Derivatives& derivatives) : derivatives_(derivatives) {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) const {
    const DifferentiableOp& differentiable = derivatives_.op;
    const size_t count = op.schema().arguments().size();
    bool requires_grad = false, has_tangent = false;
    for (const int i : differentiable.differentiable) {
      const at::IValue& argument = torch::jit::peek(*stack, i, count);
      if (!argument.isTensor()) continue;
      requires_grad = requires_grad || argument.toTensor().requires_grad();
      has_tangent = has_tangent || torch::autograd::isFwGradDefined(argument.toTensor());
    }
    requires_grad = requires_grad && at::GradMode::is_enabled();
    if (!requires_grad && !has_tangent) return call_below(op, keys, stack);
    TORCH_CHECK_NOT_IMPLEMENTED(!has_tangent || derivatives_.tangent, op.schema().name(), " has no forward mode");

    for (const int i : differentiable.keeps) {
      if (requires_grad) torch::jit::peek(*stack, i, count) = true;
    }
    for (const Need& need : differentiable.needs) {  // or what a transform outside of this one needs
      at::IValue& is_needed = torch::jit::peek(*stack, need.argument, count);
      const at::IValue& tensor = torch::jit::peek(*stack, need.tensor, count);
      const bool needs_grad = requires_grad && tensor.isTensor() && tensor.toTensor().requires_grad();
      is_needed = is_needed.toBool() || needs_grad;
    }
    const Owner node = requires_grad ? record(last(*stack, count)) : Owner();
    const int ready = differentiable.ready_gradient;
    const at::Tensor ready_gradient = ready < 0 ? at::Tensor() : torch::jit::peek(*stack, ready, count).toTensor();
    const Stack arguments(has_tangent ? stack->end() - count : stack->end(), stack->end());
    call_below(op, keys, stack);
    const Values results = last(*stack, op.schema().returns().size());
    for (size_t i = 0; node && i < differentiable.results; ++i) {
      torch::autograd::set_history(results[i].toTensor(), node);
    }
    if (has_tangent) set_tangents(arguments, results);
    if (node) static_cast<OpNode&>(*node).save_results(results);  // with their tangents
    if (node && ready_gradient.defined()) static_cast<OpNode&>(*node).save_ready_gradient(ready_gradient);
  }

 private:
  static void call_below(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    op.redispatchBoxed(keys & c10::after_ADInplaceOrView_keyset, stack);
  }

  Owner record(Values arguments) const {
    torch::autograd::edge_list edges;
    edges.reserve(derivatives_.op.differentiable.size());
    for (const int i : derivatives_.op.differentiable) {
      edges.push_back(arguments[i].isTensor() ? torch::autograd::impl::gradient_edge(arguments[i].toTensor())
                                              : torch::autograd::Edge());
    }
    auto* node = new OpNode(derivatives_, std::move(edges));
    Owner owner = own<Owner>(node);
    node->save_arguments(arguments);
    return owner;
  }

  void set_tangents(Values arguments, Values results) const {
    const DifferentiableOp& op = derivatives_.op;
    const auto primal = [](const at::IValue& value) {
      return value.isTensor() ? at::IValue(value.toTensor()._fw_primal(/*level=*/0)) : value;
    };
    variable_list tangents;
    for (const int i : op.differentiable) {
      tangents.push_back(arguments[i].isTensor() ? arguments[i].toTensor()._fw_grad(/*level=*/0) : at::Tensor());
    }
    Stack stack;
    for (const int source : op.sources) {
      const int count = static_cast<int>(arguments.size());
      const Parameter& parameter = op.gradient_takes[stack.size()];
      stack.push_back(source < 0 ? at::IValue()
                                 : parameter.of(primal(source < count ? arguments[source] : results[source - count])));
    }
    const auto tangents_of_results = call_python(derivatives_.tangent, tangents, op.gradient_takes, stack, op.results);
    TORCH_CHECK(tangents_of_results.size() == op.results, op.op.schema().name(), " needs ", op.results,
                " tangents, but got ", tangents_of_results.size());
    for (size_t i = 0; i < op.results; ++i) {
      const at::Tensor& tangent = tangents_of_results[i];
      if (tangent.defined()) results[i].toTensor()._set_fw_grad(tangent, /*level=*/0, /*is_inplace_op=*/false);
    }
  }

  const Derivatives& derivatives_;
};

// All of this lives as long as the process: graphs may outlive the module that made them.
void register_kernel(const Derivatives* derivatives) {
  const std::string& name = derivatives->op.op.schema().name();
  auto* library = new torch::Library(torch::Library::IMPL, name.substr(0, name.find("::")), c10::DispatchKey::Autograd,
                                     __FILE__, __LINE__);
  library->impl(name.c_str(), torch::CppFunction::makeFromBoxedFunctor(std::make_unique<AutogradKernel>(*derivatives)));
}

void register_autograd(const std::string& name, const py::function& tangent, const py::function& backward_gradient,
                       const py::function& backward_tangent) {
  const auto forever = [](const py::function& function) { return py::function(function).release().ptr(); };
  const OpPair ops(name);
  define_traceable(ops.forward.op);
  register_kernel(new Derivatives{ops.forward, ops.backward.op, nullptr, forever(tangent)});
  register_kernel(new Derivatives{ops.backward, std::nullopt, forever(backward_gradient), forever(backward_tangent)});
}

void register_ready_gradient(const std::string& name, const std::string& gradient) {
  const c10::OperatorHandle gradient_op = find_op(gradient);
  register_kernel(new Derivatives{op_with_ready_gradient(name, gradient_op), gradient_op, nullptr, nullptr});
}

}  // namespace

void bind_autograd(py::module_& m) {
  m.def("register_autograd", &register_autograd, py::arg("name"), py::arg("tangent"), py::arg("backward_gradient"),
        py::arg("backward_tangent"));
  m.def("register_ready_gradient", &register_ready_gradient, py::arg("name"), py::arg("gradient"));
}

}  // namespace ce_ext
