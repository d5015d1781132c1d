#include "python/op_pair.h"

#include <ATen/core/jit_type.h>
#include <c10/util/Exception.h>

#include <algorithm>

namespace ce_ext {
namespace {

c10::OperatorHandle find_op(const std::string& name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), /*overload_name=*/"");
}

Kind kind_of(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return Kind::kTensor;
    case c10::TypeKind::IntType:
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

std::vector<Parameter> parameters_of(const c10::OperatorHandle& op) {
  std::vector<Parameter> parameters;
  for (const c10::Argument& argument : op.schema().arguments()) {
    const auto optional = argument.real_type()->cast<c10::OptionalType>();
    parameters.push_back(
        {kind_of(optional ? *optional->getElementType() : *argument.real_type()), optional != nullptr});
  }
  const auto is_tensor = [](Parameter parameter) { return parameter.kind == Kind::kTensor; };
  TORCH_CHECK(std::is_partitioned(parameters.begin(), parameters.end(), is_tensor), op.schema().name(),
              " must take its tensors before its options");
  return parameters;
}

int position_of(const std::string& name, const std::vector<c10::Argument>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].name() == name) return static_cast<int>(i);
  }
  return -1;
}

int source_of(const std::string& name, const c10::FunctionSchema& forward) {
  if (name == "grad_output") return OpPair::kGradOutput;
  const int argument = position_of(name, forward.arguments());
  if (argument >= 0) return argument;
  const int result = position_of(name, forward.returns());
  TORCH_CHECK(result >= 0, forward.name(), " has no argument and no result of the name ", name);
  return static_cast<int>(forward.arguments().size()) + result;
}

int differentiated(const std::string& gradient, const c10::FunctionSchema& forward) {
  static const std::string kPrefix = "grad_";
  const bool is_gradient = gradient.compare(0, kPrefix.size(), kPrefix) == 0;
  const int argument = is_gradient ? position_of(gradient.substr(kPrefix.size()), forward.arguments()) : -1;
  TORCH_CHECK(argument >= 0, gradient, " is no gradient of an argument of ", forward.name());
  return argument;
}

}  // namespace

OpPair::OpPair(const std::string& name)
    : forward(find_op(name + "_forward")),
      backward(find_op(name + "_backward")),
      forward_parameters(parameters_of(forward)),
      backward_parameters(parameters_of(backward)) {
  for (const auto& argument : backward.schema().arguments()) {
    sources.push_back(source_of(argument.name(), forward.schema()));
  }
  for (const auto& result : backward.schema().returns()) {
    differentiable.push_back(differentiated(result.name(), forward.schema()));
  }
}

}  // namespace ce_ext
