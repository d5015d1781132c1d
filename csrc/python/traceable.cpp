#include "python/traceable.h"

#include <torch/library.h>

#include <string>
#include <utility>
#include <vector>

#include "python/differentiable_op.h"

namespace ce_ext {
namespace {

const std::string kSuffix = "_traced";

// Calls the op that this one is defined for.
void call_original(const c10::OperatorHandle& traced, torch::jit::Stack* stack) {
  const std::string& name = traced.schema().name();
  const c10::OperatorHandle op = find_op(name.substr(0, name.size() - kSuffix.size()));
  op.callBoxed(stack);
  for (size_t i = 0, count = op.schema().returns().size(); i < count; ++i) {
    at::IValue& result = torch::jit::peek(*stack, i, count);
    if (result.isNone()) result = at::Tensor();
  }
}

}  // namespace

void define_traceable(const c10::OperatorHandle& op) {
  const c10::FunctionSchema& schema = op.schema();
  std::vector<c10::Argument> results;
  bool may_be_none = false;
  for (const c10::Argument& result : schema.returns()) {
    may_be_none = may_be_none || result.type()->kind() == c10::TypeKind::OptionalType;
    results.emplace_back(result.name(), c10::TensorType::get());
  }
  if (!may_be_none) return;
  const std::string& name = schema.name();
  // As long as the process, as the op.
  auto* library =
      new torch::Library(torch::Library::FRAGMENT, name.substr(0, name.find("::")), std::nullopt, __FILE__, __LINE__);
  library->def(schema.cloneWithName(name + kSuffix, /*overload_name=*/"").cloneWithReturns(std::move(results)),
               {at::Tag::pt2_compliant_tag});
  library->impl((name + kSuffix).c_str(), c10::DispatchKey::CompositeImplicitAutograd,
                torch::CppFunction::makeFromBoxedFunction<call_original>());
}

c10::OperatorHandle traceable(const c10::OperatorHandle& op) {
  return c10::Dispatcher::singleton().findSchema({op.schema().name() + kSuffix, ""}).value_or(op);
}

}  // namespace ce_ext
