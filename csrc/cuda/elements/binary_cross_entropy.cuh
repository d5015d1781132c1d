// The kernels of binary cross entropy, each in two forms: of plain problems, in packs, and of any problem, in runs. A
// block takes a share of the elements.
#pragma once

#include "cuda/device/shares.cuh"
#include "cuda/elements/plain_elements.cuh"

namespace ce_ext::cuda {

// By what a thread holds: of plain problems, where only gradients of the focal loss take more than they should, and of others.
template <class S, bool kFocalGradient = false>
constexpr int kPlainBlocks =
    resident_blocks(kThreadsByElement, std::is_same_v<S, double> ? 128 : kFocalGradient ? 80 : 64);
template <class S, class Loss>
constexpr int kAnyBlocks = resident_blocks(kThreadsByElement, std::is_same_v<S, double> || Loss::kFocal ? 128 : 80);

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

// The losses of the elements for kNone, or those of the groups.
template <class S, class Elements, class Loss>
__device__ __forceinline__ void forward(const BinaryCrossEntropyForward& p, const Loss& loss, const Elements& elements,
                                        const Shares& shares, const Scratch& scratch) {
  using A = opmath_t<S>;
  const bool is_none = p.reduction == Reduction::kNone;
  const bool is_scaled_last = !is_none && elements.have_common_factor();
  LongSum<A> sum;
  int count = 0;
  elements.for_each(shares.begin(blockIdx.x), shares.end(blockIdx.x), [&](const auto& run) {
    constexpr int kCount = std::decay_t<decltype(run)>::kCount;
    count += run.count();
    if (is_scaled_last) return sum.add(loss.sum(run.x, run.target));
    A losses[kCount];
#pragma unroll
    for (int k = 0; k < kCount; ++k) losses[k] = loss.loss(run.x[k], run.target[k]);
    run.scale(losses);
    if (is_none) {
      run.store({0, p.loss, p.loss_is_opmath, p.loss_strides}, losses);
    } else {
      sum.add(sum_of(losses));
    }
  });
  const A total = is_scaled_last ? product(elements.common_factor(), sum.total()) : sum.total();
  finish_share<S>(p, shares, blockIdx.x, {double(total), double(count)}, scratch);
}

// The gradients one after the other: seldom it is both, and threads have registers for one.
template <class S, class Elements, class Loss>
__device__ __forceinline__ void backward(const BinaryCrossEntropyBackward& p, const Loss& loss,
                                         const Elements& elements, const Shares& shares) {
  using A = opmath_t<S>;
  const auto write = [&](const Result& result, const auto& gradient) {
    if (!result.data) return;
    elements.for_each(shares.begin(blockIdx.x), shares.end(blockIdx.x), [&](const auto& run) {
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
__global__ void __launch_bounds__(kThreadsByElement, kPlainBlocks<S>)
    binary_cross_entropy_forward_in_packs(BinaryCrossEntropyForward p, Loss loss, Shares shares, Scratch scratch) {
  forward<S>(p, loss, PlainElements<S, N>(p, loss.alphas()), shares, scratch);
}
template <class S, class N, class Loss>
__global__ void __launch_bounds__(kThreadsByElement, kPlainBlocks<S, Loss::kFocal>)
    binary_cross_entropy_backward_in_packs(BinaryCrossEntropyBackward p, Loss loss, Shares shares) {
  backward<S>(p, loss, PlainElements<S, N>(p, loss.alphas()), shares);
}

// Of any problems.
template <class S, class Loss, int kRun>
__global__ void __launch_bounds__(kThreadsByElement, kAnyBlocks<S, Loss>)
    binary_cross_entropy_forward_in_runs(BinaryCrossEntropyForward p, Loss loss, Shares shares, Scratch scratch,
                                         BadTarget* bad_target) {
  forward<S>(p, loss, AnyElements<S, kRun, BinaryCrossEntropyForward>(p, loss.alphas(), bad_target), shares, scratch);
}
template <class S, class Loss, int kRun>
__global__ void __launch_bounds__(kThreadsByElement, kAnyBlocks<S, Loss>)
    binary_cross_entropy_backward_in_runs(BinaryCrossEntropyBackward p, Loss loss, Shares shares,
                                          BadTarget* bad_target) {
  backward<S>(p, loss, AnyElements<S, kRun, BinaryCrossEntropyBackward>(p, loss.alphas(), bad_target), shares);
}

}  // namespace ce_ext::cuda
