#include "python/differentiable_op.h"

#include <ATen/core/jit_type.h>
#include <c10/util/Exception.h>

#include <algorithm>

namespace ce_ext {
namespace {

Kind kind_of(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return Kind::kTensor;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return Kind::kInt;
    case c10::TypeKind::FloatType:
      return Kind::kFloat;
    case c10::TypeKind::BoolType:
      return Kind::kBool;
    case c10::TypeKind::ScalarTypeType:
      return Kind::kDtype;
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, "arguments of type ", type.str(), " are not supported");
  }
}

int position_of(const std::string& name, const std::vector<c10::Argument>& arguments) {
  const auto is_it = [&](const c10::Argument& argument) { return argument.name() == name; };
  const auto found = std::find_if(arguments.begin(), arguments.end(), is_it);
  return found == arguments.end() ? -1 : static_cast<int>(found - arguments.begin());
}

int source_of(const std::string& name, const c10::FunctionSchema& forward) {
  static const std::string kDtypeOf = "_dtype";
  if (name == "grad_output") return ~0;
  if (name.size() > kDtypeOf.size() && name.compare(name.size() - kDtypeOf.size(), std::string::npos, kDtypeOf) == 0) {
    const int tensor = position_of(name.substr(0, name.size() - kDtypeOf.size()), forward.arguments());
    if (tensor >= 0) return tensor;
  }
  const int argument = position_of(name, forward.arguments());
  if (argument >= 0) return argument;
  const int result = position_of(name, forward.returns());
  TORCH_CHECK(result >= 0, forward.name(), " has no argument and no result of the name ", name);
  return static_cast<int>(forward.arguments().size()) + result;
}

bool starts_with(const std::string& name, const std::string& prefix) {
  return name.compare(0, prefix.size(), prefix) == 0;
}

// The position of the argument that this is the gradient of.
int differentiated(const std::string& gradient, const c10::FunctionSchema& forward) {
  static const std::string kPrefix = "grad_";
  TORCH_CHECK(starts_with(gradient, kPrefix), gradient, " must be called grad_ and an argument");
  const std::string name = gradient.substr(kPrefix.size());
  const int argument = position_of(name, forward.arguments());
  TORCH_CHECK(argument >= 0, forward.name(), " has no argument ", name);
  return argument;
}

}  // namespace

c10::OperatorHandle find_op(const std::string& name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), /*overload_name=*/"");
}

at::IValue Parameter::of(const at::IValue& value) const {
  if (kind == Kind::kDtype && value.isTensor()) return static_cast<int64_t>(value.toTensor().scalar_type());
  return value;
}

size_t DifferentiableOp::saved_tensors() const {
  size_t count = 0;
  for (size_t i = 0; i < sources.size(); ++i) count += sources[i] >= 0 && gradient_takes[i].kind == Kind::kTensor;
  return count;
}

std::vector<Parameter> parameters_of(const c10::OperatorHandle& op) {
  std::vector<Parameter> parameters;
  for (const c10::Argument& argument : op.schema().arguments()) {
    const auto optional = argument.real_type()->cast<c10::OptionalType>();
    const c10::Type& type = optional ? *optional->getElementType() : *argument.real_type();
    parameters.push_back({argument.name(), kind_of(type), optional != nullptr});
  }
  const auto is_tensor = [](const Parameter& parameter) { return parameter.kind == Kind::kTensor; };
  TORCH_CHECK(std::is_partitioned(parameters.begin(), parameters.end(), is_tensor), op.schema().name(),
              " must take its tensors before its options");
  return parameters;
}

OpPair::OpPair(const std::string& name) : forward(find_op(name + "_forward")), backward(find_op(name + "_backward")) {
  const c10::FunctionSchema& forward_schema = forward.op.schema();
  const c10::FunctionSchema& backward_schema = backward.op.schema();
  const std::vector<Parameter> backward_takes = parameters_of(backward.op);

  TORCH_CHECK(!backward_takes.empty() && backward_takes[0].name == "grad_output", backward_schema.name(),
              " must take grad_output first");
  forward.results = 1;
  forward.gradient_takes = backward_takes;
  for (const Parameter& parameter : backward_takes)
    forward.sources.push_back(source_of(parameter.name, forward_schema));

  backward.results = backward_schema.returns().size();
  for (size_t i = 0; i < backward.results; ++i) {
    const int argument = differentiated(backward_schema.returns()[i].name(), forward_schema);
    forward.differentiable.push_back(argument);
    backward.gradient_takes.push_back({forward_schema.arguments()[argument].name(), Kind::kTensor, /*optional=*/true});
    backward.sources.push_back(~static_cast<int>(i));
  }
  static const std::string kNeeds = "needs_";
  for (size_t i = 0; i < forward_schema.arguments().size(); ++i) {
    const std::string& argument = forward_schema.arguments()[i].name();
    if (starts_with(argument, "keep_")) forward.keeps.push_back(static_cast<int>(i));
    if (!starts_with(argument, kNeeds)) continue;
    const int tensor = position_of(argument.substr(kNeeds.size()), forward_schema.arguments());
    TORCH_CHECK(tensor >= 0, forward_schema.name(), " lacks an argument for its ", argument);
    forward.needs.push_back({static_cast<int>(i), tensor});
  }
  std::vector<int> depend_on_input = forward.differentiable;
  depend_on_input.push_back(~0);
  depend_on_input.push_back(static_cast<int>(forward_schema.arguments().size()));
  for (size_t i = 0; i < backward_takes.size(); ++i) {
    backward.gradient_takes.push_back(backward_takes[i]);
    backward.sources.push_back(static_cast<int>(i));
    const auto found = std::find(depend_on_input.begin(), depend_on_input.end(), forward.sources[i]);
    if (found != depend_on_input.end() && backward_takes[i].kind == Kind::kTensor) {
      backward.differentiable.push_back(static_cast<int>(i));
    }
  }
}

DifferentiableOp op_with_ready_gradient(const std::string& name, const c10::OperatorHandle& gradient) {
  DifferentiableOp result(find_op(name));
  const c10::FunctionSchema& schema = result.op.schema();
  result.results = 1;
  result.gradient_takes = parameters_of(gradient);
  for (const Parameter& parameter : result.gradient_takes) {
    result.sources.push_back(source_of(parameter.name, schema));
  }
  result.ready_gradient = result.sources.at(0);
  result.differentiable = {differentiated(result.gradient_takes[0].name, schema)};
  return result;
}

}  // namespace ce_ext
