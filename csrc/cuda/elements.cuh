// The elements of a binary cross entropy problem as its kernels load them.
#pragma once

#include <type_traits>

#include "cuda/bad_target.cuh"
#include "cuda/packs.cuh"
#include "cuda/policy.cuh"
#include "cuda/portability.cuh"
#include "host/binary_cross_entropy_problem.h"

namespace ce_ext::cuda {

// Where the numbers of one element are.
struct ElementOffsets {
  int64_t input = 0, target = 0, weight = 0, pos_weight = 0, class_alpha = 0, grad_output = 0, divisor = 0;
  int64_t class_number = 0;
  int64_t results[2] = {};

  __device__ __forceinline__ void step(const BinaryCrossEntropyForward& p, int d, int64_t place) {
    step_operands(p, d, place);
    results[0] += place * p.loss_strides.strides[d];
  }
  __device__ __forceinline__ void step(const BinaryCrossEntropyBackward& p, int d, int64_t place) {
    step_operands(p, d, place);
    results[0] += place * p.grad_input_strides.strides[d];
    results[1] += place * p.grad_target_strides.strides[d];
  }

 private:
  __device__ __forceinline__ void step_operands(const BinaryCrossEntropyProblem& p, int d, int64_t place) {
    input += place * p.input.strides.strides[d];
    target += place * p.target.strides.strides[d];
    weight += place * p.weight.strides.strides[d];
    pos_weight += place * p.pos_weight.strides.strides[d];
    class_alpha += place * p.class_alpha.strides.strides[d];
    grad_output += place * p.grad_output.strides.strides[d];
    divisor += place * p.divisor.strides.strides[d];
    class_number += place * p.class_numbers.strides[d];
  }
};

template <class Problem>
__device__ __forceinline__ ElementOffsets locate(const Problem& p, int64_t element) {
  ElementOffsets offsets;
  for (int d = p.dims.ndim - 1; d > 0; --d) {
    const int64_t outer = divide(element, p.dims.sizes[d]);
    offsets.step(p, d, element - outer * p.dims.sizes[d]);
    element = outer;
  }
  offsets.step(p, 0, element);
  return offsets;
}

// Calls f with a pointer of the type that floating numbers have, S or opmath.
template <class S, class Data, class F>
__device__ __forceinline__ void with_floats(Data* data, bool is_opmath, const F& f) {
  using A = std::conditional_t<std::is_const_v<Data>, const opmath_t<S>, opmath_t<S>>;
  using N = std::conditional_t<std::is_const_v<Data>, const S, S>;
  if (std::is_same_v<A, N> || !is_opmath) {
    f(static_cast<N*>(data));
  } else {
    f(static_cast<A*>(data));
  }
}

// The number of a floating operand; 1 if there is none.
template <class S>
__device__ __forceinline__ opmath_t<S> load_factor(const Operand& operand, int64_t offset) {
  using A = opmath_t<S>;
  if (!operand.data) return A(1);
  A value;
  with_floats<S>(operand.data, operand.type == NumberType::kOpMath,
                 [&](const auto* numbers) { value = load(numbers + offset); });
  return value;
}

template <class A>
struct Element {
  A x;
  BinaryTarget<A> target;
  A factor;
  bool is_ignored;
};

// One element, wherever its numbers are.
template <class S>
__device__ __forceinline__ Element<opmath_t<S>> load_element(const BinaryCrossEntropyProblem& p,
                                                             const ElementOffsets& at, opmath_t<S> alpha,
                                                             BadTarget* bad_target) {
  using A = opmath_t<S>;
  Element<A> e{load(static_cast<const S*>(p.input.data) + at.input), {}, A(1), false};
  dispatch<S>(p.target.type, [&](auto number) {
    const auto* target = static_cast<const decltype(number)*>(p.target.data) + at.target;
    if constexpr (!std::is_integral_v<decltype(number)>) {
      e.target.value = load(target);
    } else if (p.target_is_class) {
      const int64_t c = *target;
      e.is_ignored = p.has_ignored && c == p.ignore_index;
      const bool is_class = c >= 0 && c <= p.classes;
      e.target.value = is_class ? A(c == at.class_number) : A(NAN);
      const bool is_first_of_row = at.class_number == 0;
      if (is_first_of_row && !is_class && !e.is_ignored) report_bad_target(bad_target, at.target, c, p.classes);
      return;
    } else {
      e.target.value = static_cast<A>(*target);
    }
    e.is_ignored = p.has_ignored && e.target.value == A(p.ignore_index);
  });
  e.target.pos_weight = load_factor<S>(p.pos_weight, at.pos_weight);
  e.target.alpha = p.class_alpha.data ? load_factor<S>(p.class_alpha, at.class_alpha) : alpha;
  e.factor = product(load_factor<S>(p.grad_output, at.grad_output), load_factor<S>(p.weight, at.weight)) /
             load_factor<S>(p.divisor, at.divisor);
  return e;
}

// Targets may be integers, too.
template <class A, class N, int kCount>
__device__ __forceinline__ void convert_targets(const Numbers<N, kCount>& numbers, A (&values)[kCount]) {
  if constexpr (std::is_integral_v<N>) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) values[k] = static_cast<A>(numbers.stored[k]);
  } else {
    convert(numbers, values);
  }
}

// Several numbers of a result that is S or opmath.
template <class S, int kCount>
__device__ __forceinline__ void store_result(void* result, bool is_opmath, int64_t offset,
                                             const opmath_t<S> (&values)[kCount]) {
  with_floats<S>(result, is_opmath, [&](auto* memory) { store_pack(memory + offset, values); });
}

// Elements of a plain problem: its tensors are contiguous or have one number for all elements, those that for_each
// does not know have one number, and none is ignored. N is the type of the targets.
template <class S, class N>
class PlainElements {
  using A = opmath_t<S>;
  static constexpr int kPack = kPackSize<S>;

  // As loaded: what is done with them has to wait for memory.
  template <int kCount>
  struct Run {
    Numbers<S, kCount> inputs;
    Numbers<N, kCount> targets;
  };

 public:
  __device__ __forceinline__ PlainElements(const BinaryCrossEntropyProblem& p, A alpha)
      : p_(p),
        weights_vary_(varies(p.weight)),
        grad_outputs_vary_(varies(p.grad_output)),
        pos_weight_(load_factor<S>(p.pos_weight, 0)),
        alpha_(alpha) {
    const A weight = weights_vary_ ? A(1) : load_factor<S>(p.weight, 0);
    const A grad_output = grad_outputs_vary_ ? A(1) : load_factor<S>(p.grad_output, 0);
    factor_ = product(grad_output, weight) / load_factor<S>(p.divisor, 0);
    has_factors_ = factor_ != A(1) || weights_vary_ || grad_outputs_vary_;
  }

  // Calls f(i, inputs, targets) with those of the elements from i on, until the threads of the block have had the
  // `size` from `begin` on.
  template <class F>
  __device__ __forceinline__ void for_each(int64_t begin, int size, const F& f) const {
    constexpr int kStep = kThreadsByElement * kPack;
    const S* const inputs = static_cast<const S*>(p_.input.data) + begin;
    const N* const targets = static_cast<const N*>(p_.target.data) + begin;
    const RowSplit<S> split(inputs, size);
    const int head = int(split.head), packs_end = int(split.packs_end);
    const bool targets_are_aligned = is_aligned(targets + head, Numbers<N, kPack>::kAlignment);
    for (int first = head + threadIdx.x * kPack; first < packs_end; first += kPacksInFlight * kStep) {
      Run<kPack> runs[kPacksInFlight];
      const auto for_each_run = [&](const auto& visit) {
#pragma unroll
        for (int j = 0; j < kPacksInFlight; ++j) {
          const int i = first + j * kStep;
          if (i < packs_end) visit(i, runs[j]);
        }
      };
      // All loads come before the first use.
      for_each_run([&](int i, auto& run) { copy_in(inputs + i, /*aligned=*/true, run.inputs); });
      for_each_run([&](int i, auto& run) { copy_in(targets + i, targets_are_aligned, run.targets); });
      for_each_run([&](int i, const auto& run) { use(begin + i, run, f); });
    }
    const int single = int(threadIdx.x) < head ? threadIdx.x : packs_end + threadIdx.x - head;
    if (single < size) use(begin + single, Run<1>{{inputs[single]}, {targets[single]}}, f);
  }

  __device__ __forceinline__ BinaryTarget<A> with_options(A target) const { return {target, pos_weight_, alpha_}; }

  // Multiplies losses or gradients of the elements from i on by their factors. Those that vary are loaded only now:
  // seldom there are any, and they would take the registers of all.
  template <int kCount>
  __device__ __forceinline__ void scale(int64_t i, A (&values)[kCount]) const {
    if (!has_factors_) return;
#pragma unroll
    for (int k = 0; k < kCount; ++k) values[k] = product(factor_, values[k]);
    if (grad_outputs_vary_) scale(p_.grad_output, i, values);
    if (weights_vary_) scale(p_.weight, i, values);
  }

 private:
  template <int kCount, class F>
  static __device__ __forceinline__ void use(int64_t i, const Run<kCount>& run, const F& f) {
    A inputs[kCount], targets[kCount];
    convert(run.inputs, inputs);
    convert_targets(run.targets, targets);
    f(i, inputs, targets);
  }

  static __device__ __forceinline__ bool varies(const Operand& operand) {
    return operand.data && operand.strides.strides[0] != 0;
  }

  template <int kCount>
  static __device__ __forceinline__ void scale(const Operand& operand, int64_t i, A (&values)[kCount]) {
    with_floats<S>(operand.data, operand.type == NumberType::kOpMath, [&](const auto* numbers) {
      A factors[kCount];
      load_pack(numbers + i, factors);
#pragma unroll
      for (int k = 0; k < kCount; ++k) values[k] = product(factors[k], values[k]);
    });
  }

  const BinaryCrossEntropyProblem& p_;
  const bool weights_vary_, grad_outputs_vary_;
  const A pos_weight_, alpha_;
  A factor_;  // of those that do not vary
  bool has_factors_;
};

}  // namespace ce_ext::cuda
