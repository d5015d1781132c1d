// The elements of a plain binary cross entropy problem as its kernels load them: in packs of 16 bytes.
#pragma once

#include "cuda/elements/elements.cuh"

namespace ce_ext::cuda {

// Elements of a plain problem: its tensors are contiguous and start at the same place in a pack, or have one number for
// all elements. Those that Run does not know have one number, and none is ignored. N is the type of the targets.
template <class S, class N>
class PlainElements {
  using A = opmath_t<S>;
  static constexpr int kPack = kPackSize<S>;

  // As loaded: what is done with them has to wait for memory.
  template <int kCount>
  struct Loaded {
    Numbers<S, kCount> inputs;
    Numbers<N, kCount> targets;
  };

  // The elements from the i-th on: one, or a pack. Without kVaried no factor is known to differ from element to
  // element.
  template <int kRun, bool kVaried>
  class Run {
   public:
    static constexpr int kCount = kRun;

    __device__ __forceinline__ Run(const PlainElements& elements, int64_t i, const Loaded<kCount>& loaded)
        : elements_(elements), i_(i) {
      A targets[kCount];
      convert(loaded.inputs, x);
      convert_numbers(loaded.targets, targets);
#pragma unroll
      for (int k = 0; k < kCount; ++k) target[k] = {targets[k], elements.pos_weight_, elements.alphas_};
    }

    __device__ __forceinline__ int count() const { return kCount; }

    // Multiplies losses or gradients by their factors.
    __device__ __forceinline__ void scale(A (&values)[kCount]) const {
      if (!elements_.has_factors_) return;
#pragma unroll
      for (int k = 0; k < kCount; ++k) values[k] = product(elements_.factor_, values[k]);
      if (kVaried && elements_.grad_outputs_vary_) scale(elements_.p_.grad_output, values);
      if (kVaried && elements_.weights_vary_) scale(elements_.p_.weight, values);
    }

    __device__ __forceinline__ void store(const Result& result, const A (&values)[kCount]) const {
      with_floats<S>(result.data, result.is_opmath, [&](auto* memory) {
        Numbers<std::remove_pointer_t<decltype(memory)>, kCount> numbers;
        convert(values, numbers);
        copy_out(numbers, /*aligned=*/true, memory + i_);
      });
    }

    A x[kCount];
    BinaryTarget<A> target[kCount];

   private:
    __device__ __forceinline__ void scale(const Operand& operand, A (&values)[kCount]) const {
      with_floats<S>(operand.data, operand.type == NumberType::kOpMath, [&](const auto* memory) {
        Numbers<std::remove_cv_t<std::remove_pointer_t<decltype(memory)>>, kCount> numbers;
        A factors[kCount];
        copy_in(memory + i_, /*aligned=*/true, numbers);
        convert(numbers, factors);
#pragma unroll
        for (int k = 0; k < kCount; ++k) values[k] = product(factors[k], values[k]);
      });
    }

    const PlainElements& elements_;
    const int64_t i_;
  };

 public:
  static constexpr bool kHasGradTarget = !std::is_integral_v<N>;

  __device__ __forceinline__ PlainElements(const BinaryCrossEntropyProblem& p, const Sides<A>& alphas)
      : p_(p),
        weights_vary_(varies(p.weight)),
        grad_outputs_vary_(varies(p.grad_output)),
        pos_weight_(load_factor<S>(p.pos_weight)),
        alphas_(alphas) {
    const A weight = weights_vary_ ? A(1) : load_factor<S>(p.weight);
    const A grad_output = grad_outputs_vary_ ? A(1) : load_factor<S>(p.grad_output);
    factor_ = product(grad_output, weight) / load_factor<S>(p.divisor);
    has_factors_ = factor_ != A(1) || weights_vary_ || grad_outputs_vary_;
  }

  // Whether a sum of losses can be multiplied by common_factor() in place of each loss by its own.
  __device__ __forceinline__ bool have_common_factor() const { return !weights_vary_ && !grad_outputs_vary_; }
  __device__ __forceinline__ A common_factor() const { return factor_; }

  // Calls f with runs, until the threads of the block have had the elements from `begin` to `end`; kVaried unless they
  // have a common factor. While a pack is worked on, the next ones of the thread are under way: two, or one where
  // factors take registers.
  template <bool kVaried, class F>
  __device__ __forceinline__ void for_each(int64_t begin, int64_t end, const F& f) const {
    constexpr int kInFlight = kVaried ? 1 : kPacksInFlight, kHeld = kInFlight + 1;
    constexpr int kStep = kThreadsByElement * kPack;
    const S* const inputs = static_cast<const S*>(p_.input.data) + begin;
    const N* const targets = static_cast<const N*>(p_.target.data) + begin;
    const RowSplit<S> split(inputs, end - begin);
    const int head = int(split.head), packs_end = int(split.packs_end), size = int(split.size);

    Loaded<kPack> held[kHeld];
    const auto load = [&](int i, Loaded<kPack>& pack) {
      if (i >= packs_end) return;
      copy_in(inputs + i, /*aligned=*/true, pack.inputs);
      copy_in(targets + i, /*aligned=*/true, pack.targets);
    };
    int i = head + threadIdx.x * kPack;
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) load(i + j * kStep, held[j]);
    for (; i < packs_end; i += kHeld * kStep) {
#pragma unroll
      for (int j = 0; j < kHeld; ++j) {
        const int here = i + j * kStep;
        load(here + kInFlight * kStep, held[(j + kInFlight) % kHeld]);
        if (here < packs_end) f(Run<kPack, kVaried>(*this, begin + here, held[j]));
      }
    }
    const int single = int(threadIdx.x) < head ? threadIdx.x : packs_end + threadIdx.x - head;
    if (single < size) f(Run<1, kVaried>(*this, begin + single, {{inputs[single]}, {targets[single]}}));
  }

 private:
  static __device__ __forceinline__ bool varies(const Operand& operand) {
    return operand.data && operand.strides.strides[0] != 0;
  }

  const BinaryCrossEntropyProblem& p_;
  const bool weights_vary_, grad_outputs_vary_;
  const A pos_weight_;
  const Sides<A> alphas_;
  A factor_;  // of those that do not vary
  bool has_factors_;
};

}  // namespace ce_ext::cuda
