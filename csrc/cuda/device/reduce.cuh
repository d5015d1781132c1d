// What threads have gathered, as one: of lanes of a warp, of a block, of a cluster of blocks. Always in the same order,
// so that the bits are the same, too.
#pragma once

#include "cuda/device/cluster.cuh"
#include "losses/reduction.h"
#include "losses/softmax.h"

namespace ce_ext::cuda {

template <class T>
struct Sum {
  T value = T(0);

  __device__ void merge(const Sum& other) { value += other.value; }
};

// The same made of what f makes of each of its numbers.
template <class F>
__device__ __forceinline__ RowTotals transform(const RowTotals& x, const F& f) {
  return {f(x.loss), f(x.weight)};
}

template <class T, class F>
__device__ __forceinline__ Sum<T> transform(const Sum<T>& x, const F& f) {
  return {f(x.value)};
}

template <class T, class F>
__device__ __forceinline__ ArgMax<T> transform(const ArgMax<T>& x, const F& f) {
  return {f(x.max), f(x.index)};
}

template <class T, Gaps kGaps, bool kEntropy, class F>
__device__ __forceinline__ SoftmaxSums<T, kGaps, kEntropy> transform(const SoftmaxSums<T, kGaps, kEntropy>& x,
                                                                     const F& f) {
  SoftmaxSums<T, kGaps, kEntropy> result;
  result.max = f(x.max);
  result.ties = f(x.ties);
  result.exp_sum = f(x.exp_sum);
  if constexpr (kGaps == Gaps::kSumAndWeights) result.tie_weight = f(x.tie_weight);
  if constexpr (kGaps != Gaps::kNone) {
    result.gap_sum = f(x.gap_sum);
    result.weight_sum = f(x.weight_sum);
  }
  if constexpr (kEntropy) result.entropy_sum = f(x.entropy_sum);
  return result;
}

// Merges in two steps, for those that are cheaper so: exponentials are taken once, and not at every step. First all
// learn the maximum of all, by max_of(own maximum), then they are added.
template <class Sums, class F>
__device__ __forceinline__ void agree(Sums&, const F&) {}
template <class Sums>
__device__ __forceinline__ void add_agreed(Sums& sums, const Sums& other) {
  sums.merge(other);
}

template <class T, Gaps kGaps, bool kEntropy, class F>
__device__ __forceinline__ void agree(SoftmaxSums<T, kGaps, kEntropy>& sums, const F& max_of) {
  sums.raise_max(max_of(sums.max));
}
template <class T, Gaps kGaps, bool kEntropy>
__device__ __forceinline__ void add_agreed(SoftmaxSums<T, kGaps, kEntropy>& sums,
                                           const SoftmaxSums<T, kGaps, kEntropy>& other) {
  sums.add_sums(other);
}

// The lanes in the mask, which are `lanes` neighbours, call it: a power of two. All of them get the result.
template <class Sums>
__device__ __forceinline__ Sums warp_reduce(Sums sums, int lanes = kWarpSize, unsigned mask = kFullWarp) {
  agree(sums, [=](auto max) {
    for (int offset = lanes / 2; offset > 0; offset /= 2) max = maximum(max, __shfl_xor_sync(mask, max, offset));
    return max;
  });
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    add_agreed(sums, transform(sums, [=](auto x) { return __shfl_xor_sync(mask, x, offset); }));
  }
  return sums;
}

// All threads of the block call it; the result is valid in its first warp only.
template <class Sums>
__device__ Sums block_reduce(Sums sums) {
  SHARED_ARRAY(Sums, warp_sums, kWarpSize);
  const int lane = threadIdx.x % kWarpSize;
  const int warp = threadIdx.x / kWarpSize;
  const int warps = blockDim.x / kWarpSize;

  sums = warp_reduce(sums);
  if (lane == 0) warp_sums[warp] = sums;
  __syncthreads();
  if (warp == 0) sums = warp_reduce(lane < warps ? warp_sums[lane] : Sums());
  __syncthreads();  // warp_sums is free for the next call
  return sums;
}

// What thread 0 has, for all threads of the block.
template <class T>
__device__ T block_broadcast(const T& value) {
  SHARED_ARRAY(T, shared, 1);
  if (threadIdx.x == 0) shared[0] = value;
  __syncthreads();
  const T result = shared[0];
  __syncthreads();  // shared is free for the next call
  return result;
}

#if HAS_CLUSTERS
// Of what thread 0 of each block has; the result is valid in thread 0 of the first block of the cluster.
template <class Sums>
__device__ Sums cluster_reduce(Sums sums) {
  SHARED_ARRAY(Sums, block_sums, 1);
  if (threadIdx.x == 0) block_sums[0] = sums;
  sync_cluster();
  if (threadIdx.x == 0 && cluster_rank() == 0) {
    for (unsigned b = 1; b < cluster_size(); ++b) sums.merge(*map_to_rank(block_sums, b));
  }
  sync_cluster();  // block_sums is free for the next call, and no block is gone before it is read
  return sums;
}

// What thread 0 of the first block has, for all threads of the cluster.
template <class T>
__device__ T cluster_broadcast(const T& value) {
  SHARED_ARRAY(T, shared, 1);
  if (threadIdx.x == 0 && cluster_rank() == 0) shared[0] = value;
  sync_cluster();
  const T result = *map_to_rank(shared, 0);
  sync_cluster();
  return result;
}
#endif

}  // namespace ce_ext::cuda
