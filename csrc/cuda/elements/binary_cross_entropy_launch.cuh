// What the launches of the passes of binary cross entropy have in common.
#pragma once

#include "cuda/elements/binary_cross_entropy.cuh"
#include "cuda/host/launch.h"

namespace ce_ext::cuda {

// As PlainElements has it.
template <class Problem>
bool is_plain(const Problem& p, const RowStrides& result1, const RowStrides& result2) {
  const auto is_contiguous = [](const RowStrides& strides) { return strides.strides[0] == 1; };
  const auto is_one_number = [](const Operand& operand) { return !operand.data || operand.strides.strides[0] == 0; };
  const auto is_either = [&](const Operand& operand) {
    return is_one_number(operand) || is_contiguous(operand.strides);
  };
  const bool has_integers = p.target.type > NumberType::kUInt8;
  const bool has_more = !is_one_number(p.pos_weight) || p.class_alpha.data || p.has_ignored || p.target_is_class;
  return p.dims.ndim == 1 && !has_integers && !has_more && is_contiguous(p.input.strides) &&
         is_contiguous(p.target.strides) && is_either(p.weight) && is_either(p.grad_output) &&
         is_one_number(p.divisor) && is_contiguous(result1) && is_contiguous(result2);
}

inline bool is_plain(const BinaryCrossEntropyForward& p) { return is_plain(p, p.loss_strides, p.loss_strides); }
inline bool is_plain(const BinaryCrossEntropyBackward& p) {
  return is_plain(p, p.grad_input_strides, p.grad_target_strides);
}

// Elements that a thread takes at a time where the problem is not plain: one where longer runs would seldom be whole.
template <class S>
int run_length(const BinaryCrossEntropyProblem& p) {
  return p.dims.sizes[p.dims.ndim - 1] >= kMinRuns * kPackSize<S> ? kPackSize<S> : 1;
}

template <class S, class Problem>
Shares shares_of(const Problem& p, int64_t groups) {
  constexpr int64_t kTileInPacks = kThreadsByElement * kPacksInFlight * kPackSize<S>;
  return Shares(p.elements, groups, is_plain(p) ? kTileInPacks : kTileInRuns * run_length<S>(p));
}

// Calls f with a constant, the length of runs.
template <class S, class F>
void dispatch_run(const BinaryCrossEntropyProblem& p, const F& f) {
  if (run_length<S>(p) > 1) return f(std::integral_constant<int, kPackSize<S>>());
  f(std::integral_constant<int, 1>());
}

// Calls f with a value of the type of the targets of a plain problem.
template <class S, class F>
void dispatch_target(NumberType type, F f) {
  if (type == NumberType::kUInt8) return f(uint8_t());
  if (type == NumberType::kOpMath) return f(opmath_t<S>());
  f(S());
}

// Calls f with the loss: without powers where gamma needs none.
template <class S, class F>
void dispatch_loss(const BinaryCrossEntropyProblem& p, F f) {
  using A = opmath_t<S>;
  dispatch_input(p, [&](auto input) {
    if constexpr (input.value == BinaryInput::kFocalLogit) {
      if (!has_whole_power(p.options)) return f(BinaryCrossEntropy<A, input.value, true>::template make<A>(p.options));
    }
    f(BinaryCrossEntropy<A, input.value, false>::template make<A>(p.options));
  });
}

}  // namespace ce_ext::cuda
