// The elements of a plain binary cross entropy problem as its kernels load them: in packs of 16 bytes.
#pragma once

#include "cuda/elements/elements.cuh"

namespace ce_ext::cuda {

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
        pos_weight_(load_factor<S>(p.pos_weight)),
        alpha_(alpha) {
    const A weight = weights_vary_ ? A(1) : load_factor<S>(p.weight);
    const A grad_output = grad_outputs_vary_ ? A(1) : load_factor<S>(p.grad_output);
    factor_ = product(grad_output, weight) / load_factor<S>(p.divisor);
    has_factors_ = factor_ != A(1) || factors_vary();
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
      const auto visit_runs = [&](const auto& visit) {
#pragma unroll
        for (int j = 0; j < kPacksInFlight; ++j) {
          const int i = first + j * kStep;
          if (i < packs_end) visit(i, runs[j]);
        }
      };
      // All loads come before the first use.
      visit_runs([&](int i, auto& run) { copy_in(inputs + i, /*aligned=*/true, run.inputs); });
      visit_runs([&](int i, auto& run) { copy_in(targets + i, targets_are_aligned, run.targets); });
      visit_runs([&](int i, const auto& run) { use(begin + i, run, f); });
    }
    const int single = int(threadIdx.x) < head ? threadIdx.x : packs_end + threadIdx.x - head;
    if (single < size) use(begin + single, Run<1>{{inputs[single]}, {targets[single]}}, f);
  }

  __device__ __forceinline__ BinaryTarget<A> with_options(A target) const { return {target, pos_weight_, alpha_}; }

  // Of all elements; the factor is one of all unless some vary.
  __device__ __forceinline__ A pos_weight() const { return pos_weight_; }
  __device__ __forceinline__ A factor() const { return factor_; }
  __device__ __forceinline__ bool factors_vary() const { return weights_vary_ || grad_outputs_vary_; }

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
    convert_numbers(run.targets, targets);
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
