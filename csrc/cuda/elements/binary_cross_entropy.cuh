// The kernels of binary cross entropy, each in two forms: of plain problems, in packs, and of any problem, in runs. A
// block takes a share of the elements.
#pragma once

#include "cuda/device/shares.cuh"
#include "cuda/elements/plain_elements.cuh"

namespace ce_ext::cuda {

// What threads take of registers, of plain problems and of any. Targets of another type than halves take more.
template <class S, class N, class Loss, bool kGradient>
constexpr int plain_registers() {
  constexpr bool kConverts = sizeof(S) == 2 && !std::is_same_v<S, N>;
  if (std::is_same_v<S, double> || Loss::kPowers) return 128;
  if (Loss::kFocal && kGradient && !Loss::kIsBare) return sizeof(S) == 2 ? 128 : 80;
  if (Loss::kFocal && !Loss::kIsBare && kConverts && std::is_integral_v<N>) return 96;
  if (Loss::kFocal && (kGradient || !Loss::kIsBare || kConverts)) return 80;
  return kConverts && (std::is_integral_v<N> || (Loss::kProbability && !kGradient)) ? 80 : 64;
}
template <class S, class Loss>
constexpr int kAnyRegisters = std::is_same_v<S, double> || Loss::kFocal ? 128 : 80;

// A sum of many terms, in parts: one long sum in float32 would round terms that are alike all the same way.
template <class A>
class LongSum {
  static constexpr int kTermsPerPart = 32;

 public:
  __device__ void add(A term) {
    part_ += term;
    if (++terms_ < kTermsPerPart) return;
    parts_ += part_;
    part_ = A(0);
    terms_ = 0;
  }
  __device__ A total() const { return parts_ + part_; }

 private:
  A parts_ = A(0), part_ = A(0);
  int terms_ = 0;
};

template <class A, int kCount>
__device__ __forceinline__ A sum_of(const A (&terms)[kCount]) {
  A sum(0);
#pragma unroll
  for (int k = 0; k < kCount; ++k) sum += terms[k];
  return sum;
}

// Calls f with the runs of the block's share.
template <class Elements, class F>
__device__ __forceinline__ void for_each_run(const Elements& elements, const Shares& shares, const F& f) {
  const int64_t begin = shares.begin(blockIdx.x), end = shares.end(blockIdx.x);
  if (elements.have_common_factor()) {
    elements.template for_each<false>(begin, end, f);
  } else {
    elements.template for_each<true>(begin, end, f);
  }
}

// The losses of the elements for kNone, or those of the groups. What is common to all losses is multiplied by at last.
template <class S, class Elements, class Loss>
__device__ __forceinline__ void forward(const BinaryCrossEntropyForward& p, const Loss& loss, const Elements& elements,
                                        const Shares& shares, RowTotals* of_shares) {
  using A = opmath_t<S>;
  const bool is_none = p.reduction == Reduction::kNone;
  LongSum<A> sum;
  A common_factor(1);
  int count = 0;
  if (!is_none && elements.have_common_factor()) {
    common_factor = elements.common_factor();
    elements.template for_each<false>(shares.begin(blockIdx.x), shares.end(blockIdx.x), [&](const auto& run) {
      sum.add(loss.sum(run.x, run.target));
      count += run.count();
    });
  } else {
    for_each_run(elements, shares, [&](const auto& run) {
      constexpr int kCount = std::decay_t<decltype(run)>::kCount;
      A losses[kCount];
#pragma unroll
      for (int k = 0; k < kCount; ++k) losses[k] = loss.loss(run.x[k], run.target[k]);
      run.scale(losses);
      if (is_none) return run.store({0, p.loss, p.loss_is_opmath, p.loss_strides}, losses);
      sum.add(sum_of(losses));
      count += run.count();
    });
  }
  finish_share<S>(p, shares, blockIdx.x, {double(product(common_factor, sum.total())), double(count)}, of_shares);
}

// The gradients one after the other: seldom it is both, and threads have registers for one.
template <class S, class Elements, class Loss>
__device__ __forceinline__ void backward(const BinaryCrossEntropyBackward& p, const Loss& loss,
                                         const Elements& elements, const Shares& shares) {
  using A = opmath_t<S>;
  const auto write = [&](const Result& result, const auto& gradient) {
    if (!result.data) return;
    for_each_run(elements, shares, [&](const auto& run) {
      constexpr int kCount = std::decay_t<decltype(run)>::kCount;
      A grads[kCount];
#pragma unroll
      for (int k = 0; k < kCount; ++k) grads[k] = gradient(run.x[k], run.target[k]);
      run.scale(grads);
      run.store(result, grads);
    });
  };
  write({0, p.grad_input, false, p.grad_input_strides},
        [&](A x, const BinaryTarget<A>& target) { return loss.in_input(x, target); });
  if constexpr (Elements::kHasGradTarget) {
    write({1, p.grad_target, p.grad_target_is_opmath, p.grad_target_strides},
          [&](A x, const BinaryTarget<A>& target) { return loss.in_target(x, target); });
  }
}

// Of plain problems. N is the type of the targets.
template <class S, class N, class Loss>
__global__ void __launch_bounds__(kThreadsByElement,
                                  resident_blocks(kThreadsByElement,
                                                  plain_registers<S, N, Loss, /*kGradient=*/false>()))
    binary_cross_entropy_forward_in_packs(BinaryCrossEntropyForward p, Loss loss, Shares shares, RowTotals* of_shares) {
  forward<S>(p, loss, PlainElements<S, N>(p, loss.alphas()), shares, of_shares);
}
template <class S, class N, class Loss>
__global__ void __launch_bounds__(kThreadsByElement,
                                  resident_blocks(kThreadsByElement, plain_registers<S, N, Loss, /*kGradient=*/true>()))
    binary_cross_entropy_backward_in_packs(BinaryCrossEntropyBackward p, Loss loss, Shares shares) {
  backward<S>(p, loss, PlainElements<S, N>(p, loss.alphas()), shares);
}

// Of any problems, in runs of kRun elements.
template <class S, class Loss, int kRun>
__global__ void __launch_bounds__(kThreadsByElement, resident_blocks(kThreadsByElement, kAnyRegisters<S, Loss>))
    binary_cross_entropy_forward_in_runs(BinaryCrossEntropyForward p, Loss loss, Shares shares, RowTotals* of_shares,
                                         BadTarget* bad_target) {
  forward<S>(p, loss, AnyElements<S, kRun, BinaryCrossEntropyForward>(p, loss.alphas(), bad_target), shares, of_shares);
}
template <class S, class Loss, int kRun>
__global__ void __launch_bounds__(kThreadsByElement, resident_blocks(kThreadsByElement, kAnyRegisters<S, Loss>))
    binary_cross_entropy_backward_in_runs(BinaryCrossEntropyBackward p, Loss loss, Shares shares,
                                          BadTarget* bad_target) {
  backward<S>(p, loss, AnyElements<S, kRun, BinaryCrossEntropyBackward>(p, loss.alphas(), bad_target), shares);
}

}  // namespace ce_ext::cuda
