// What autograd has to know of an op, read off the schemas of a pair.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <vector>

namespace ce_ext {

enum class Kind { kTensor, kInt, kFloat, kBool, kDtype };

struct Parameter {
  std::string name;
  Kind kind;
  bool optional;

  // The value itself, or the dtype of a tensor where a dtype is asked for.
  at::IValue of(const at::IValue& value) const;
};

c10::OperatorHandle find_op(const std::string& name);

std::vector<Parameter> parameters_of(const c10::OperatorHandle& op);

// The position of an argument needs_x, true where a gradient of x may be asked for, and that of x.
struct Need {
  int argument;
  int tensor;
};

// An op and the function that computes its gradient, another op or not.
struct DifferentiableOp {
  explicit DifferentiableOp(c10::OperatorHandle op_) : op(op_) {}

  c10::OperatorHandle op;
  size_t results = 0;               // how many of the op's results are differentiable; they come first
  std::vector<int> differentiable;  // the positions of the arguments that have a gradient
  std::vector<int> keeps;           // those of the arguments keep_..., true where a gradient may be asked for
  std::vector<Need> needs;
  std::vector<Parameter> gradient_takes;  // the parameters of the gradient function
  // Where its arguments come from: ~i is the gradient of result i; other numbers are positions among the op's arguments
  // and, counted on, its results. A dtype comes from a tensor.
  std::vector<int> sources;
  // The position of the argument in which the op leaves its gradient, or -1. The gradient function takes it first, and
  // changes it instead of returning another, so that it serves once.
  int ready_gradient = -1;

  // How many of them are tensors that wait for the gradient: those of the op's arguments and results.
  size_t saved_tensors() const;
};

// The ops NAME_forward, whose first result is differentiable, and NAME_backward, which is its gradient function. Both
// take their tensors first, backward grad_output before all, then options. Names say what belongs together: an argument
// of backward is `grad_output` or called as an argument or a result of forward, and a result of backward is `grad_x`
// for forward's argument x. `x_dtype` is the dtype of forward's tensor x. Arguments keep_... of forward say that
// something is to be kept for backward, and needs_x of both that backward needs to give a gradient of x, or else no
// tensor.
struct OpPair {
  explicit OpPair(const std::string& name);

  DifferentiableOp forward;
  DifferentiableOp backward;  // Its gradient function takes gradients of all its results, and then its arguments.
};

// The op of this name, whose first result is differentiable, and which leaves the gradient of x in its argument grad_x.
// Its gradient function is the op `gradient`, which takes that first; names say what else it takes, as in a pair.
DifferentiableOp op_with_ready_gradient(const std::string& name, const c10::OperatorHandle& gradient);

}  // namespace ce_ext
