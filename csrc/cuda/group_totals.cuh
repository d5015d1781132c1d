// From the totals of slices to the losses of groups.
#pragma once

#include "cuda/block_reduce.cuh"
#include "cuda/policy.cuh"
#include "host/dtype.h"

namespace ce_ext::cuda {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class S, class Problem>
__device__ __forceinline__ void store_loss(const Problem& p, int64_t i, opmath_t<S> loss) {
  if (p.loss_is_opmath) {
    static_cast<opmath_t<S>*>(p.loss)[i] = loss;
  } else {
    store(static_cast<S*>(p.loss) + i, loss);
  }
}

// One block a group: adds up its slices, and divides for the mean.
template <class S, class Problem>
__global__ void __launch_bounds__(kThreadsToSum) finish_groups(Problem p, int64_t slices, const RowTotals* totals) {
  using A = opmath_t<S>;
  const int64_t group = blockIdx.x;
  RowTotals sums;
  for (int64_t i = threadIdx.x; i < slices; i += kThreadsToSum) sums.merge(totals[group * slices + i]);
  sums = block_reduce<kThreadsToSum>(sums);
  if (threadIdx.x == 0) {
    const bool mean = p.reduction == Reduction::kMean;
    const double divisor = sums.divisor(p.zero_if_empty);
    store_loss<S>(p, group, A(mean ? sums.loss / divisor : sums.loss));
    if (mean) static_cast<A*>(p.denominator)[group] = A(divisor);
  }
}

}  // namespace ce_ext::cuda
