// Teams: the threads that share a row, whose classes lie side by side. A team is some lanes of a warp, or a block; its
// first thread leads it.
#pragma once

#include "cuda/device/reduce.cuh"

namespace ce_ext::cuda {

// Of blocks whose teams are lanes.
constexpr int kThreadsOfLanes = 128;

// It is a block where it is more than a warp, of whole warps; of lanes there is a power of two.
template <int kSize_>
class Team {
 public:
  static constexpr int kSize = kSize_;
  static constexpr bool kIsBlock = kSize > kWarpSize;
  static constexpr int kThreads = kIsBlock ? kSize : kThreadsOfLanes;  // of a block
  static constexpr int kCount = kThreads / kSize;                      // teams of a block

  static __device__ __forceinline__ int rank() { return kIsBlock ? threadIdx.x : threadIdx.x % kSize; }
  static __device__ __forceinline__ int index() { return kIsBlock ? 0 : threadIdx.x / kSize; }
  static __device__ __forceinline__ bool leads() { return rank() == 0; }

  // Whether this thread gets the result of `reduce`: all do in a warp, else the leader alone.
  static __device__ __forceinline__ bool knows() { return !kIsBlock || leads(); }

  // All teams of the warp call it.
  template <class Sums>
  static __device__ __forceinline__ Sums reduce(const Sums& sums) {
    if constexpr (kIsBlock) {
      return block_reduce(sums);
    } else {
      return warp_reduce(sums, kSize);
    }
  }

  // Gives all threads what those who know have. It is a barrier, too: what a thread does after it comes after all that
  // others did before.
  template <class T>
  static __device__ __forceinline__ T share(const T& value) {
    if constexpr (kIsBlock) {
      return block_broadcast(value);
    } else {
      __syncwarp();
      return value;
    }
  }
};

}  // namespace ce_ext::cuda
