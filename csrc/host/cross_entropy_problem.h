// A cross entropy problem after every check.
#pragma once

#include "host/softmax_loss_problem.h"

namespace ce_ext {

struct CrossEntropyProblem : SoftmaxLossProblem {
  bool input_is_log_prob;  // log-probabilities, no logits: nll_loss, which keeps nothing and has no options
  const int64_t* target;   // contiguous, one a row
  int64_t ignore_index;
};

struct CrossEntropyForward : CrossEntropyProblem, LossForward {};  // keeps SavedRow
struct CrossEntropyBackward : CrossEntropyProblem, LossBackward {};

// Both at once, of rows that are read from memory only once.
struct CrossEntropyWithGrad {
  CrossEntropyForward forward;
  CrossEntropyBackward backward;  // `saved` and `grad_output` are null
};

HOST_DEVICE const CrossEntropyForward& forward_of(const CrossEntropyForward& p) { return p; }
HOST_DEVICE const CrossEntropyForward& forward_of(const CrossEntropyWithGrad& p) { return p.forward; }

// Calls f with a value of the form that the problem needs.
template <class F>
auto dispatch_form(const CrossEntropyForward& p, F f) {
  const bool plain = p.options.label_smoothing == 0 && !p.report && !p.options.logits.change();
  return plain ? f(PlainForm{}) : dispatch_form<Gaps::kSum>(p, f);
}

}  // namespace ce_ext
