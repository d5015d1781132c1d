// What the CUDA kernels of cross entropy know of a row besides softmax_loss_rows.cuh: its target.
#pragma once

#include "cuda/softmax_loss_rows.cuh"
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
  Logits<A, true> logits;
  A loss_scale;         // where there is no grad_output
  const A* weight_sum;  // null where every class weighs 1

  __device__ CrossEntropy<A> get() const {
    CrossEntropy<A> loss = on_host;
    if (weight_sum) loss.weight_sum = *weight_sum;
    return loss;
  }
};

// What the mean counts a row as.
template <class A>
__device__ __forceinline__ A row_weight(const CrossEntropyProblem& p, int64_t row) {
  const int64_t target = p.target[row];
  return kind_of(p, target) == TargetKind::kClass ? sample_weight<A>(p, row) * class_weight<A>(p, target) : A(0);
}

}  // namespace ce_ext::cuda
