// What autograd has to know of an op and of its gradient, read off their schemas.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <vector>

namespace ce_ext {

enum class Kind { kTensor, kInt, kFloat, kBool, kDtype };

struct Parameter {
  Kind kind;
  bool optional;
};

// The ops NAME_forward, whose first result is differentiable, and NAME_backward. Both take their tensors first, then
// options. Names say what belongs together: an argument of backward is `grad_output` or called as an argument or a
// result of forward, and a result of backward is `grad_x` for forward's argument x.
struct OpPair {
  static constexpr int kGradOutput = -1;

  explicit OpPair(const std::string& name);

  c10::OperatorHandle forward;
  c10::OperatorHandle backward;
  std::vector<Parameter> forward_parameters;
  std::vector<Parameter> backward_parameters;
  std::vector<int> sources;         // of backward's arguments: kGradOutput, or a position among forward's arguments
                                    // and, counted on, its results
  std::vector<int> differentiable;  // the argument of forward that each result of backward is the gradient of
};

}  // namespace ce_ext
