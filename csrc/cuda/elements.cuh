// The elements of a binary cross entropy problem as its kernels load them.
#pragma once

#include <type_traits>

#include "cuda/packs.cuh"
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

// Division of 64 bits costs several times that of 32.
__device__ __forceinline__ int64_t divide(int64_t a, int64_t b) {
  return (a | b) >> 32 ? a / b : int64_t(uint32_t(a) / uint32_t(b));
}

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
                                                             const ElementOffsets& at) {
  using A = opmath_t<S>;
  Element<A> e{load(static_cast<const S*>(p.input.data) + at.input), {}, A(1), false};
  dispatch<S>(p.target.type, [&](auto number) {
    const auto* target = static_cast<const decltype(number)*>(p.target.data) + at.target;
    if constexpr (!std::is_integral_v<decltype(number)>) {
      e.target.value = load(target);
    } else if (p.target_is_class) {
      const int64_t c = *target;
      e.is_ignored = p.has_ignored && c == p.ignore_index;
      e.target.value = c >= 0 && c <= p.classes ? A(c == at.class_number) : A(NAN);
      return;
    } else {
      e.target.value = static_cast<A>(*target);
    }
    e.is_ignored = p.has_ignored && e.target.value == A(p.ignore_index);
  });
  e.target.pos_weight = load_factor<S>(p.pos_weight, at.pos_weight);
  e.target.alpha = p.class_alpha.data ? load_factor<S>(p.class_alpha, at.class_alpha) : A(p.options.alpha);
  e.factor = product(load_factor<S>(p.grad_output, at.grad_output), load_factor<S>(p.weight, at.weight)) /
             load_factor<S>(p.divisor, at.divisor);
  return e;
}

// A result in memory.
template <class S>
__device__ __forceinline__ void share_result(void* result, bool is_opmath, int64_t first, int64_t count,
                                             RowSplit<S>& split) {
  with_floats<S>(result, is_opmath, [&](auto* memory) { split.share(memory + first, count); });
}

template <class S, int kCount>
__device__ __forceinline__ void store_result(void* result, bool is_opmath, int64_t offset,
                                             const opmath_t<S> (&values)[kCount]) {
  with_floats<S>(result, is_opmath, [&](auto* memory) { store_pack(memory + offset, values); });
}

template <class A, int kCount>
struct PlainPack {
  A x[kCount], target[kCount], factor[kCount];
};

// Elements of a plain problem: its tensors are contiguous or have one number for all elements, those that PlainPack
// does not know have one number, targets are floating or bytes, and none is ignored.
template <class S>
class PlainElements {
  using A = opmath_t<S>;

 public:
  __device__ __forceinline__ explicit PlainElements(const BinaryCrossEntropyProblem& p)
      : p_(p), pos_weight_(load_factor<S>(p.pos_weight, 0)), divisor_(load_factor<S>(p.divisor, 0)) {}

  // How a block goes through the `count` elements from `first` on.
  __device__ __forceinline__ RowSplit<S> split(int64_t first, int64_t count) const {
    RowSplit<S> split(static_cast<const S*>(p_.input.data) + first, count);
    for (const Operand* operand : {&p_.target, &p_.weight, &p_.grad_output}) {
      if (is_one_number(*operand) || operand->type == NumberType::kUInt8) continue;
      with_floats<S>(operand->data, operand->type == NumberType::kOpMath,
                     [&](const auto* numbers) { split.share(numbers + first, count); });
    }
    return split;
  }

  template <int kCount>
  __device__ __forceinline__ void load(int64_t i, PlainPack<A, kCount>& pack) const {
    load_pack(static_cast<const S*>(p_.input.data) + i, pack.x);
    if (p_.target.type == NumberType::kUInt8) {
      const auto* bytes = static_cast<const uint8_t*>(p_.target.data) + i;
#pragma unroll
      for (int k = 0; k < kCount; ++k) pack.target[k] = static_cast<A>(bytes[k]);
    } else {
      load_floats(p_.target, i, pack.target);
    }
    A weight[kCount];
    load_factors(p_.grad_output, i, pack.factor);
    load_factors(p_.weight, i, weight);
#pragma unroll
    for (int k = 0; k < kCount; ++k) pack.factor[k] = product(pack.factor[k], weight[k]) / divisor_;
  }

  template <int kCount>
  __device__ __forceinline__ BinaryTarget<A> target(const PlainPack<A, kCount>& pack, int k) const {
    return {pack.target[k], pos_weight_, A(p_.options.alpha)};
  }

 private:
  static __device__ __forceinline__ bool is_one_number(const Operand& operand) {
    return !operand.data || operand.strides.strides[0] == 0;
  }

  template <int kCount>
  static __device__ __forceinline__ void load_factors(const Operand& operand, int64_t i, A (&values)[kCount]) {
    if (is_one_number(operand)) {
      const A value = load_factor<S>(operand, 0);
#pragma unroll
      for (int k = 0; k < kCount; ++k) values[k] = value;
    } else {
      load_floats(operand, i, values);
    }
  }

  template <int kCount>
  static __device__ __forceinline__ void load_floats(const Operand& operand, int64_t i, A (&values)[kCount]) {
    with_floats<S>(operand.data, operand.type == NumberType::kOpMath,
                   [&](const auto* numbers) { load_pack(numbers + i, values); });
  }

  const BinaryCrossEntropyProblem& p_;
  const A pos_weight_, divisor_;
};

}  // namespace ce_ext::cuda
