// The elements of a binary cross entropy problem of any layout, as its kernels load them: in runs, which are neighbours
// in the innermost dimension.
#pragma once

#include <type_traits>

#include "cuda/device/bad_target.cuh"
#include "cuda/device/limits.cuh"
#include "cuda/device/packs.cuh"
#include "cuda/device/portability.cuh"
#include "host/binary_cross_entropy_problem.h"

namespace ce_ext::cuda {

// The kernels of elements. With 2 packs of each operand a thread has some 64 bytes in flight, and a multiprocessor that
// holds 768 threads twice as much as it takes: while some wait for memory, others compute.
constexpr int kThreadsByElement = 256;
constexpr int kPacksInFlight = 2;

// Where elements are taken in runs: how many of them the innermost dimension has room for, at least, and how many a
// block takes at a time.
constexpr int64_t kMinRuns = 4;
constexpr int64_t kTileInRuns = 4 * kThreadsByElement;

// Where the numbers of an element are.
struct ElementOffsets {
  int64_t input = 0, target = 0, weight = 0, pos_weight = 0, class_alpha = 0, grad_output = 0, divisor = 0;
  int64_t class_number = 0;
  int64_t results[2] = {};
  int64_t neighbors = 0;  // from it to the end of the innermost dimension

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
  const int innermost = p.dims.ndim - 1;
  for (int d = innermost; d >= 0; --d) {
    const int64_t outer = d > 0 ? divide(element, p.dims.sizes[d]) : 0;
    const int64_t place = element - outer * p.dims.sizes[d];
    if (d == innermost) offsets.neighbors = p.dims.sizes[d] - place;
    offsets.step(p, d, place);
    element = outer;
  }
  return offsets;
}

// Numbers as they are computed with. Targets may be integers.
template <class T, class N, int kCount>
__device__ __forceinline__ void convert_numbers(const Numbers<N, kCount>& numbers, T (&values)[kCount]) {
  if constexpr (std::is_integral_v<N>) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) values[k] = static_cast<T>(numbers.stored[k]);
  } else {
    convert(numbers, values);
  }
}

// The numbers of a run in one operand, which are `stride` apart.
template <class N, int kCount>
__device__ __forceinline__ void copy_run(const N* first, int64_t stride, Numbers<N, kCount>& numbers) {
  copy_in(first, stride == 1 && is_aligned(first, numbers.kAlignment), numbers, stride);
}
template <class T, class N, int kCount>
__device__ __forceinline__ void load_run(const N* first, int64_t stride, T (&values)[kCount]) {
  Numbers<N, kCount> numbers;
  copy_run(first, stride, numbers);
  convert_numbers(numbers, values);
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

// Those of a floating operand; 1 if there is none.
template <class S, int kCount>
__device__ __forceinline__ void load_factors(const Operand& operand, int64_t offset, int64_t stride,
                                             opmath_t<S> (&values)[kCount]) {
  if (!operand.data) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) values[k] = opmath_t<S>(1);
    return;
  }
  with_floats<S>(operand.data, operand.type == NumberType::kOpMath,
                 [&](const auto* numbers) { load_run(numbers + offset, stride, values); });
}

// The only one of an operand.
template <class S>
__device__ __forceinline__ opmath_t<S> load_factor(const Operand& operand) {
  opmath_t<S> value[1];
  load_factors<S>(operand, 0, 0, value);
  return value[0];
}

// Where losses or gradients go.
struct Result {
  int number;  // of those of ElementOffsets
  void* data;
  bool is_opmath;  // or of the type of the inputs
  const RowStrides& strides;
};

// A run of kRun elements.
template <class S, int kRun>
class ElementRun {
  using A = opmath_t<S>;

 public:
  static constexpr int kCount = kRun;

  // `alphas` are those of all elements that have none of their own.
  __device__ __forceinline__ ElementRun(const BinaryCrossEntropyProblem& p, const ElementOffsets& at,
                                        const Sides<A>& alphas, BadTarget* bad_target)
      : p_(p), at_(at) {
    // What is done with the inputs waits for memory: the targets are under way before.
    Numbers<S, kCount> inputs;
    copy_run(static_cast<const S*>(p.input.data) + at.input, stride(p.input.strides), inputs);
    A targets[kCount], pos_weights[kCount], own_alphas[kCount];
    dispatch<S>(p.target.type, [&](auto number) { load_targets<decltype(number)>(targets, bad_target); });
    load_factors<S>(p.pos_weight, at.pos_weight, stride(p.pos_weight.strides), pos_weights);
    load_factors<S>(p.class_alpha, at.class_alpha, stride(p.class_alpha.strides), own_alphas);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      target[k] = {targets[k], pos_weights[k], p.class_alpha.data ? alphas_of(own_alphas[k]) : alphas};
    }
    convert(inputs, x);
  }

  __device__ __forceinline__ int count() const { return kCount - __popc(ignored_); }

  // Multiplies losses or gradients by their factors; those of ignored elements are 0.
  __device__ __forceinline__ void scale(A (&values)[kCount]) const {
    A factors[kCount], others[kCount];
    load_factors<S>(p_.grad_output, at_.grad_output, stride(p_.grad_output.strides), factors);
    if (p_.weight.data) {
      load_factors<S>(p_.weight, at_.weight, stride(p_.weight.strides), others);
#pragma unroll
      for (int k = 0; k < kCount; ++k) factors[k] = product(factors[k], others[k]);
    }
    if (p_.divisor.data) {
      load_factors<S>(p_.divisor, at_.divisor, stride(p_.divisor.strides), others);
#pragma unroll
      for (int k = 0; k < kCount; ++k) factors[k] /= others[k];
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) values[k] = ignored_ >> k & 1 ? A(0) : product(factors[k], values[k]);
  }

  __device__ __forceinline__ void store(const Result& result, const A (&values)[kCount]) const {
    with_floats<S>(result.data, result.is_opmath, [&](auto* memory) {
      memory += at_.results[result.number];
      const int64_t apart = stride(result.strides);
      if (kCount == 1 || apart == 1) {
        store_pack(memory, values);
      } else {
#pragma unroll
        for (int k = 0; k < kCount; ++k) cuda::store(memory + k * apart, values[k]);
      }
    });
  }

  A x[kCount];
  BinaryTarget<A> target[kCount];

 private:
  __device__ __forceinline__ int64_t stride(const RowStrides& strides) const {
    return strides.strides[p_.dims.ndim - 1];
  }

  template <class N>
  __device__ __forceinline__ void load_targets(A (&targets)[kCount], BadTarget* bad_target) {
    const N* numbers = static_cast<const N*>(p_.target.data) + at_.target;
    if constexpr (std::is_integral_v<N>) {
      if (p_.target_is_class) return load_classes(numbers, targets, bad_target);
    }
    Numbers<N, kCount> loaded;
    copy_run(numbers, stride(p_.target.strides), loaded);
    convert_numbers(loaded, targets);
    if (p_.has_ignored) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) ignored_ |= unsigned(is_ignored_index(loaded, targets, k)) << k;
    }
    if (!std::is_integral_v<N> && p_.ignores_nan) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) ignored_ |= unsigned(targets[k] != targets[k]) << k;
    }
  }

  // Of targets as they are stored, and as they are computed with: integers may be rounded by that.
  template <class N>
  __device__ __forceinline__ bool is_ignored_index(const Numbers<N, kCount>& loaded, const A (&targets)[kCount],
                                                   int k) const {
    if constexpr (std::is_integral_v<N>) {
      return loaded.stored[k] == p_.ignore_index;
    } else {
      return targets[k] == A(p_.ignore_index);
    }
  }

  // Of every element whether it is that of its row's class.
  template <class N>
  __device__ __forceinline__ void load_classes(const N* numbers, A (&targets)[kCount], BadTarget* bad_target) {
    int64_t classes[kCount];
    load_run(numbers, stride(p_.target.strides), classes);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const int64_t class_number = at_.class_number + k * stride(p_.class_numbers);
      const int64_t c = classes[k];
      const bool is_class = c >= 0 && c <= p_.classes, is_ignored = p_.has_ignored && c == p_.ignore_index;
      targets[k] = is_class ? A(c == class_number) : A(NAN);
      ignored_ |= unsigned(is_ignored) << k;
      const bool is_first_of_row = class_number == 0;
      if (is_first_of_row && !is_class && !is_ignored) {
        report_bad_target(bad_target, at_.target + k * stride(p_.target.strides), c, p_.classes);
      }
    }
  }

  const BinaryCrossEntropyProblem& p_;
  const ElementOffsets& at_;
  unsigned ignored_ = 0;  // one bit each
};

// The elements of any problem, in runs of kRun.
template <class S, int kRun, class Problem>
class AnyElements {
  using A = opmath_t<S>;

 public:
  static constexpr bool kHasGradTarget = true;

  __device__ __forceinline__ AnyElements(const Problem& p, const Sides<A>& alphas, BadTarget* bad_target)
      : p_(p), alphas_(alphas), bad_target_(bad_target) {}

  // As PlainElements has these.
  static constexpr __device__ bool have_common_factor() { return false; }
  static constexpr __device__ A common_factor() { return A(1); }

  // Calls f with runs, of one element where the innermost dimension or the share ends before kRun, until the threads of
  // the block have had the elements from `begin` to `end`.
  template <bool kVaried, class F>
  __device__ __forceinline__ void for_each(int64_t begin, int64_t end, const F& f) const {
    for (int64_t i = begin + threadIdx.x * kRun; i < end; i += kThreadsByElement * kRun) {
      const ElementOffsets at = locate(p_, i);
      if (kRun == 1 || (at.neighbors >= kRun && end - i >= kRun)) {
        f(ElementRun<S, kRun>(p_, at, alphas_, bad_target_));
      } else {
        for (int64_t single = i; single < end && single < i + kRun; ++single) {
          const ElementOffsets at_single = locate(p_, single);
          f(ElementRun<S, 1>(p_, at_single, alphas_, bad_target_));
        }
      }
    }
  }

 private:
  const Problem& p_;
  const Sides<A> alphas_;
  BadTarget* const bad_target_;
};

}  // namespace ce_ext::cuda
