// The kernels of binary cross entropy, each in two forms: of plain problems, in packs, and of any problem, in runs. A
// block takes a share of the elements.
#pragma once

#include "cuda/device/shares.cuh"
#include "cuda/elements/plain_elements.cuh"

namespace ce_ext::cuda {

template <class S, class Loss>
constexpr int kElementBlocks = resident_blocks(kThreadsByElement, std::is_same_v<S, double> || Loss::kFocal ? 128 : 80);

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

// The losses of the elements for kNone, or those of the groups. N is the type of the targets.
template <class S, class N, class Loss>
__global__ void __launch_bounds__(kThreadsByElement, kElementBlocks<S, Loss>)
    binary_cross_entropy_forward_in_packs(BinaryCrossEntropyForward p, Loss loss, Shares shares, Scratch scratch) {
  using A = opmath_t<S>;
  const int64_t begin = shares.begin(blockIdx.x);
  const int size = int(shares.end(blockIdx.x) - begin);
  const PlainElements<S, N> elements(p, loss.alpha());
  const bool is_none = p.reduction == Reduction::kNone;
  const bool shares_logarithm = !is_none && !elements.factors_vary() && loss.shares_logarithm(elements.pos_weight());
  LongSum<A> sum;
  elements.for_each(begin, size, [&](int64_t i, auto& x, const auto& targets) {
    constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(x)>>;
    BinaryTarget<A> with_options[kCount];
#pragma unroll
    for (int k = 0; k < kCount; ++k) with_options[k] = elements.with_options(targets[k]);
    if constexpr (Loss::kHasSum) {
      if (shares_logarithm) return sum.add(product(elements.factor(), loss.sum(x, with_options)));
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) x[k] = loss.loss(x[k], with_options[k]);
    elements.scale(i, x);
    if (is_none) {
      store_result<S>(p.loss, p.loss_is_opmath, i, /*stride=*/1, x);
    } else {
      sum.add(sum_of(x));
    }
  });
  finish_share<S>(p, shares, blockIdx.x, {double(sum.total()), threadIdx.x == 0 ? double(size) : 0.0}, scratch);
}

template <class S, class Loss, int kRun>
__global__ void __launch_bounds__(kThreadsByElement, kElementBlocks<S, Loss>)
    binary_cross_entropy_forward_in_runs(BinaryCrossEntropyForward p, Loss loss, Shares shares, Scratch scratch,
                                         BadTarget* bad_target) {
  using A = opmath_t<S>;
  const bool is_none = p.reduction == Reduction::kNone;
  LongSum<A> sum;
  int count = 0;
  for_each_run<kRun>(p, shares.begin(blockIdx.x), shares.end(blockIdx.x), [&](const ElementOffsets& at, auto n) {
    const ElementRun<S, n.value> run(p, at, loss.alpha(), bad_target);
    A losses[n.value];
    run.compute([&](A x, const BinaryTarget<A>& target) { return loss.loss(x, target); }, losses);
    if (is_none) {
      store_result<S>(p.loss, p.loss_is_opmath, at.results[0], run.stride(p.loss_strides), losses);
    } else {
      sum.add(sum_of(losses));
      count += run.count();
    }
  });
  finish_share<S>(p, shares, blockIdx.x, {double(sum.total()), double(count)}, scratch);
}

// The gradients one after the other: seldom it is both, and threads have registers for one.
template <class S, class N, class Loss>
__global__ void __launch_bounds__(kThreadsByElement, kElementBlocks<S, Loss>)
    binary_cross_entropy_backward_in_packs(BinaryCrossEntropyBackward p, Loss loss, Shares shares) {
  const int64_t begin = shares.begin(blockIdx.x);
  const int size = int(shares.end(blockIdx.x) - begin);
  const PlainElements<S, N> elements(p, loss.alpha());
  const auto write = [&](auto* grads, const auto& gradient) {
    elements.for_each(begin, size, [&](int64_t i, auto& x, const auto& targets) {
      constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(x)>>;
#pragma unroll
      for (int k = 0; k < kCount; ++k) x[k] = gradient(x[k], elements.with_options(targets[k]));
      elements.scale(i, x);
      store_pack(grads + i, x);
    });
  };
  if (p.grad_input) {
    write(static_cast<S*>(p.grad_input), [&](auto x, const auto& target) { return loss.in_input(x, target); });
  }
  if constexpr (!std::is_integral_v<N>) {
    if (p.grad_target) {
      write(static_cast<N*>(p.grad_target), [&](auto x, const auto& target) { return loss.in_target(x, target); });
    }
  }
}

template <class S, class Loss, int kRun>
__global__ void __launch_bounds__(kThreadsByElement, kElementBlocks<S, Loss>)
    binary_cross_entropy_backward_in_runs(BinaryCrossEntropyBackward p, Loss loss, Shares shares,
                                          BadTarget* bad_target) {
  using A = opmath_t<S>;
  for_each_run<kRun>(p, shares.begin(blockIdx.x), shares.end(blockIdx.x), [&](const ElementOffsets& at, auto n) {
    const ElementRun<S, n.value> run(p, at, loss.alpha(), bad_target);
    A grads[n.value];
    if (p.grad_input) {
      run.compute([&](A x, const BinaryTarget<A>& target) { return loss.in_input(x, target); }, grads);
      store_result<S>(p.grad_input, false, at.results[0], run.stride(p.grad_input_strides), grads);
    }
    if (p.grad_target) {
      run.compute([&](A x, const BinaryTarget<A>& target) { return loss.in_target(x, target); }, grads);
      store_result<S>(p.grad_target, p.grad_target_is_opmath, at.results[1], run.stride(p.grad_target_strides), grads);
    }
  });
}

}  // namespace ce_ext::cuda
