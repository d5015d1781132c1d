// What the CUDA kernels of cross entropy know of a row: its target, its logits, its weights and its place in memory.
#pragma once

#include "cuda/portability.cuh"
#include "host/cross_entropy_problem.h"

namespace ce_ext::cuda {

// Targets that are neither a class nor ignored are never used as an index: their loss and gradient are NaN.
enum class TargetKind { kClass, kIgnored, kOutOfBounds };

__device__ __forceinline__ TargetKind kind_of(const CrossEntropyProblem& p, int64_t target) {
  if (target == p.ignore_index) return TargetKind::kIgnored;
  return target >= 0 && target < p.classes ? TargetKind::kClass : TargetKind::kOutOfBounds;
}

// The loss with its constants, made on the host, where float64 costs nothing; but the sum of the class weights is known
// to the device alone.
template <class A>
struct DeviceLoss {
  CrossEntropy<A> on_host;
  Logits<A, true> logits_on_host;
  A loss_scale;         // where there is no grad_output
  const A* weight_sum;  // null where every class weighs 1

  __device__ CrossEntropy<A> get() const {
    CrossEntropy<A> loss = on_host;
    if (weight_sum) loss.weight_sum = *weight_sum;
    return loss;
  }

  template <bool kChanged>
  __device__ Logits<A, kChanged> logits() const {
    if constexpr (kChanged) {
      return logits_on_host;
    } else {
      return {};
    }
  }
};

template <class S>
__device__ __forceinline__ const S* logits_row(const CrossEntropyProblem& p, int64_t row) {
  return static_cast<const S*>(p.input) + p.input_rows.offset(p.row_dims, row);
}

template <class A>
__device__ __forceinline__ A class_weight(const CrossEntropyProblem& p, int64_t c) {
  return p.weight ? static_cast<const A*>(p.weight)[c] : A(1);
}

template <class A>
__device__ __forceinline__ A sample_weight(const CrossEntropyProblem& p, int64_t row) {
  return p.sample_weight ? static_cast<const A*>(p.sample_weight)[row] : A(1);
}

}  // namespace ce_ext::cuda
