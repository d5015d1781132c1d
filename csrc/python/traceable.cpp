#include "python/traceable.h"

#include <torch/library.h>

#include <string>
#include <utility>
#include <vector>

namespace ce_ext {
namespace {

const std::string kOverload = "traceable";

// Calls the op of which this is the overload.
void call_default(const c10::OperatorHandle& overload, torch::jit::Stack* stack) {
  const c10::OperatorHandle op =
      c10::Dispatcher::singleton().findSchemaOrThrow(overload.schema().name().c_str(), /*overload_name=*/"");
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
  for (const c10::Argument& result : schema.returns()) results.emplace_back(result.name(), c10::TensorType::get());
  const std::string& name = schema.name();
  // As long as the process, as the op.
  auto* library =
      new torch::Library(torch::Library::FRAGMENT, name.substr(0, name.find("::")), std::nullopt, __FILE__, __LINE__);
  library->def(schema.cloneWithName(name, kOverload).cloneWithReturns(std::move(results)),
               {at::Tag::pt2_compliant_tag});
  library->impl((name + "." + kOverload).c_str(), c10::DispatchKey::CompositeImplicitAutograd,
                torch::CppFunction::makeFromBoxedFunction<call_default>());
}

c10::OperatorHandle traceable(const c10::OperatorHandle& op) {
  return c10::Dispatcher::singleton().findSchema({op.schema().name(), kOverload}).value_or(op);
}

}  // namespace ce_ext
