// Sums over the threads of a block, always in the same order.
#pragma once

#include "cuda/portability.cuh"
#include "losses/reduction.h"
#include "losses/softmax.h"

namespace ce_ext::cuda {

__device__ __forceinline__ RowTotals shuffle_down(const RowTotals& x, int offset) {
  return {__shfl_down_sync(kFullWarp, x.loss, offset), __shfl_down_sync(kFullWarp, x.weight, offset)};
}

template <class T>
struct Sum {
  T value = T(0);

  __device__ void merge(const Sum& other) { value += other.value; }
};

template <class T>
__device__ __forceinline__ Sum<T> shuffle_down(const Sum<T>& x, int offset) {
  return {__shfl_down_sync(kFullWarp, x.value, offset)};
}

template <class T>
__device__ __forceinline__ ArgMax<T> shuffle_down(const ArgMax<T>& x, int offset) {
  return {__shfl_down_sync(kFullWarp, x.max, offset), __shfl_down_sync(kFullWarp, x.index, offset)};
}

template <class T, Gaps kGaps, bool kEntropy>
__device__ __forceinline__ SoftmaxSums<T, kGaps, kEntropy> shuffle_down(const SoftmaxSums<T, kGaps, kEntropy>& x,
                                                                        int offset) {
  SoftmaxSums<T, kGaps, kEntropy> result;
  result.max = __shfl_down_sync(kFullWarp, x.max, offset);
  result.ties = __shfl_down_sync(kFullWarp, x.ties, offset);
  result.exp_sum = __shfl_down_sync(kFullWarp, x.exp_sum, offset);
  if constexpr (kGaps == Gaps::kSumAndWeights) {
    result.tie_weight = __shfl_down_sync(kFullWarp, x.tie_weight, offset);
  }
  if constexpr (kGaps != Gaps::kNone) {
    result.gap_sum = __shfl_down_sync(kFullWarp, x.gap_sum, offset);
    result.weight_sum = __shfl_down_sync(kFullWarp, x.weight_sum, offset);
  }
  if constexpr (kEntropy) result.entropy_sum = __shfl_down_sync(kFullWarp, x.entropy_sum, offset);
  return result;
}

// All threads of the block call it; the result is valid in thread 0 only.
template <int kThreads, class Sums>
__device__ Sums block_reduce(Sums sums) {
  constexpr int kWarps = kThreads / kWarpSize;
  static_assert(kThreads % kWarpSize == 0 && kWarps <= kWarpSize, "one warp must be able to add up the warps");
  SHARED_ARRAY(Sums, warp_sums, kWarps);
  const int lane = threadIdx.x % kWarpSize;
  const int warp = threadIdx.x / kWarpSize;

#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) sums.merge(shuffle_down(sums, offset));
  if (lane == 0) warp_sums[warp] = sums;
  __syncthreads();
  if (warp == 0) {
    sums = lane < kWarps ? warp_sums[lane] : Sums();
#pragma unroll
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) sums.merge(shuffle_down(sums, offset));
  }
  __syncthreads();  // warp_sums is free for the next call
  return sums;
}

// What thread 0 has, for all threads of the block. Between two calls there has to be a barrier.
template <class T>
__device__ T block_broadcast(const T& value) {
  SHARED_ARRAY(T, shared, 1);
  if (threadIdx.x == 0) shared[0] = value;
  __syncthreads();
  return shared[0];
}

}  // namespace ce_ext::cuda
