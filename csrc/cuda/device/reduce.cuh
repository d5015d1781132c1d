// What threads have gathered, as one: of lanes of a warp, of a block. Always in the same order, so that the bits
// are the same, too.
#pragma once

#include "cuda/device/portability.cuh"
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
  result.exp_sum = f(x.exp_sum);
  if constexpr (kGaps == Gaps::kSumAndWeights) result.tie_weight = f(x.tie_weight);
  if constexpr (kGaps != Gaps::kNone) {
    result.gap_sum = f(x.gap_sum);
    result.weight_sum = f(x.weight_sum);
  }
  if constexpr (kEntropy) result.entropy_sum = f(x.entropy_sum);
  return result;
}

// What `lanes` neighbours have, a power of two, for each of them. All lanes of the warp call it: shuffles among some of
// them take several times as long.
template <class Sums>
__device__ __forceinline__ Sums warp_reduce(Sums sums, int lanes = kWarpSize) {
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    sums.merge(transform(sums, [=](auto x) { return __shfl_xor_sync(kFullWarp, x, offset); }));
  }
  return sums;
}

// In two steps, so that exponentials are taken once, and not at every step: first all learn the maximum of all.
template <class T, Gaps kGaps, bool kEntropy>
__device__ __forceinline__ SoftmaxSums<T, kGaps, kEntropy> warp_reduce(SoftmaxSums<T, kGaps, kEntropy> sums,
                                                                       int lanes = kWarpSize) {
  T max = sums.max;
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset /= 2) max = maximum(max, __shfl_xor_sync(kFullWarp, max, offset));
  const unsigned neighbours = (kFullWarp >> (kWarpSize - lanes)) << (threadIdx.x % kWarpSize & ~(lanes - 1));
  const int ties = __popc(__ballot_sync(kFullWarp, sums.max == max) & neighbours);  // all but one of which have lost
  sums.raise_max(max);
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    sums.add_sums(transform(sums, [=](auto x) { return __shfl_xor_sync(kFullWarp, x, offset); }));
  }
  sums.exp_sum += T(ties - 1);
  return sums;
}

// What another lane of the warp has. All lanes call it.
template <class T>
__device__ __forceinline__ T shuffle(const T& value, int lane) {
  constexpr int kWords = sizeof(T) / sizeof(unsigned);
  static_assert(sizeof(T) == kWords * sizeof(unsigned));
  unsigned words[kWords];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (int i = 0; i < kWords; ++i) words[i] = __shfl_sync(kFullWarp, words[i], lane);
  T result;
  memcpy(&result, words, sizeof(T));
  return result;
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

}  // namespace ce_ext::cuda
