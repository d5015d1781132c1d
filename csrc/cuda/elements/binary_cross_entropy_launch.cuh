// What the launches of the passes of binary cross entropy have in common.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "cuda/elements/binary_cross_entropy.cuh"
#include "cuda/host/launch.h"
#include "losses/asymmetric_loss.h"

namespace ce_ext::cuda {

// Calls f with a value of the type of numbers of a plain problem.
template <class S, class F>
auto dispatch_number(NumberType type, F f) {
  if (type == NumberType::kUInt8) return f(uint8_t());
  if (type == NumberType::kOpMath) return f(opmath_t<S>());
  return f(S());
}

// In float64 the asymmetric loss is too long for a compiler to have it in the loops over packs.
template <class Loss>
constexpr bool kFitsPacks = true;
template <bool kPower>
constexpr bool kFitsPacks<AsymmetricLoss<double, kPower>> = false;

// As PlainElements has it, losses or gradients being `results`.
template <class S>
bool is_plain(const BinaryCrossEntropyProblem& p, std::initializer_list<Operand> results) {
  const auto is_one_number = [&](const Operand& operand) { return operand.is_one_number(p.dims); };
  const auto place_in_pack = [](const Operand& operand) {
    const auto bytes = dispatch_number<S>(operand.type, [](auto number) { return sizeof(number); });
    return reinterpret_cast<uintptr_t>(operand.data) / bytes % kPackSize<S>;
  };
  const auto is_like_input = [&](const Operand& operand) {
    return operand.strides.strides[0] == 1 && place_in_pack(operand) == place_in_pack(p.input);
  };
  const auto is_either = [&](const Operand& operand) { return is_one_number(operand) || is_like_input(operand); };
  const bool has_integers = p.target.type > NumberType::kUInt8;
  if (sizeof(S) == sizeof(double) && p.options.input == BinaryInput::kAsymmetricLogit) return false;
  const bool has_ignored = p.has_ignored || p.ignores_nan;
  const bool has_more = !is_one_number(p.pos_weight) || p.class_alpha.data || has_ignored || p.target_is_class;
  return p.dims.ndim == 1 && !has_integers && !has_more && is_like_input(p.input) && is_like_input(p.target) &&
         is_either(p.weight) && is_either(p.grad_output) && is_one_number(p.divisor) &&
         std::all_of(results.begin(), results.end(), is_either);
}

template <class S>
bool is_plain(const BinaryCrossEntropyForward& p) {
  if (p.reduction != Reduction::kNone) return is_plain<S>(p, {});
  return is_plain<S>(p, {{p.loss, p.loss_is_opmath ? NumberType::kOpMath : NumberType::kInput, p.loss_strides}});
}
template <class S>
bool is_plain(const BinaryCrossEntropyBackward& p) {
  const NumberType type = p.grad_target_is_opmath ? NumberType::kOpMath : NumberType::kInput;
  return is_plain<S>(
      p, {{p.grad_input, NumberType::kInput, p.grad_input_strides}, {p.grad_target, type, p.grad_target_strides}});
}

// Elements that a thread takes at a time where the problem is not plain: one where longer runs would seldom be whole.
template <class S>
int run_length(const BinaryCrossEntropyProblem& p) {
  return p.dims.sizes[p.dims.ndim - 1] >= kMinRuns * kPackSize<S> ? kPackSize<S> : 1;
}

// Few, which prepare a loop once for many elements.
constexpr int64_t kElementBlocks = 8192;

template <class S, class Problem>
Shares shares_of(const Problem& p, int64_t groups) {
  constexpr int64_t kTileInPacks = kThreadsByElement * kPacksInFlight * kPackSize<S>;
  return Shares(p.elements, groups, is_plain<S>(p) ? kTileInPacks : kTileInRuns * run_length<S>(p), kElementBlocks);
}

// Calls f with the loss, without powers where gamma needs none.
template <class S, bool kBare, class F>
void dispatch_loss(const BinaryCrossEntropyProblem& p, F f) {
  using A = opmath_t<S>;
  dispatch_input(p, [&](auto input) {
    constexpr bool kIsAsymmetric = input.value == BinaryInput::kAsymmetricLogit;
    if constexpr (kIsAsymmetric || input.value == BinaryInput::kFocalLogit) {
      if (!(kIsAsymmetric ? has_whole_powers(p.options) : has_whole_power(p.options))) {
        return f(BinaryLoss<A, input.value, true>::template make<A>(p.options));
      }
    }
    f(BinaryLoss<A, input.value, false, kBare>::template make<A>(p.options));
  });
}

// Calls f with what a plain problem is launched with: a value of the type of the targets, and the loss.
template <class S, class F>
void dispatch_plain(const BinaryCrossEntropyProblem& p, F f) {
  const BinaryCrossEntropyOptions& options = p.options;
  const bool is_bare = !p.pos_weight.data && options.neg_weight == 1 && options.label_smoothing == 0 &&
                       (options.input != BinaryInput::kFocalLogit || options.gamma == 2);
  dispatch_number<S>(p.target.type, [&](auto number) {
    const auto launch = [&](const auto& loss) {
      if constexpr (kFitsPacks<std::decay_t<decltype(loss)>>) f(number, loss);
    };
    if constexpr (sizeof(S) < sizeof(double)) {
      if (is_bare) return dispatch_loss<S, true>(p, launch);
    }
    dispatch_loss<S, false>(p, launch);
  });
}

// Calls f with what any other problem is launched with: the length of runs, a constant, and the loss.
template <class S, class F>
void dispatch_any(const BinaryCrossEntropyProblem& p, F f) {
  dispatch_loss<S, false>(p, [&](const auto& loss) {
    if (run_length<S>(p) > 1) return f(std::integral_constant<int, kPackSize<S>>(), loss);
    f(std::integral_constant<int, 1>(), loss);
  });
}

}  // namespace ce_ext::cuda
