// What the CUDA kernels of soft cross entropy know of a row.
#pragma once

#include "cuda/softmax_loss_rows.cuh"
#include "host/soft_cross_entropy_problem.h"

namespace ce_ext::cuda {

// The loss with its constants, made on the host.
template <class A>
struct SoftDeviceLoss {
  SoftCrossEntropy<A> loss;
  Logits<A, true> logits;
};

// What the mean counts a row as.
template <class A>
__device__ __forceinline__ A row_weight(const SoftCrossEntropyProblem& p, int64_t row) {
  return sample_weight<A>(p, row);
}

template <class Q>
__device__ __forceinline__ const Q* target_row(const SoftCrossEntropyProblem& p, int64_t row) {
  return static_cast<const Q*>(p.target) + p.target_rows.offset(p.row_dims, row);
}

}  // namespace ce_ext::cuda
