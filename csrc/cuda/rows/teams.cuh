// Teams: the threads that share a row, whose classes lie side by side. A team is some lanes of a warp, a block, or a
// cluster of blocks; its first thread leads it.
#pragma once

#include "cuda/device/reduce.cuh"
#include "cuda/rows/policy.cuh"

namespace ce_ext::cuda {

class Team {
 public:
  __device__ __forceinline__ explicit Team(const RowShape& shape) : lanes_(shape.lanes), cluster_(shape.cluster) {}

  __device__ __forceinline__ int size() const { return lanes_ * cluster_; }
  __device__ __forceinline__ int rank() const {
    return is_block() ? blockIdx.x % cluster_ * lanes_ + threadIdx.x : threadIdx.x & (lanes_ - 1);
  }
  __device__ __forceinline__ bool leads() const { return rank() == 0; }

  // Which one of the `count` teams of the block this is.
  __device__ __forceinline__ int index() const { return is_block() ? 0 : threadIdx.x / lanes_; }
  __device__ __forceinline__ int count() const { return is_block() ? 1 : blockDim.x / lanes_; }

  // Whether the block is the one of its cluster that speaks for it.
  __device__ __forceinline__ bool ends_share() const { return cluster_ == 1 || blockIdx.x % cluster_ == 0; }

  // Whether this thread gets the result of `reduce`: all do in a warp, else the leader alone.
  __device__ __forceinline__ bool knows() const { return !is_block() || leads(); }

  template <class Sums>
  __device__ __forceinline__ Sums reduce(Sums sums) const {
    if (!is_block()) return warp_reduce(sums, lanes_, mask());
    sums = block_reduce(sums);
#if HAS_CLUSTERS
    if (cluster_ > 1) return cluster_reduce(sums);
#endif
    return sums;
  }

  // Gives all threads what those who know have. It is a barrier, too: what a thread does after it comes after all that
  // others did before.
  template <class T>
  __device__ __forceinline__ T share(const T& value) const {
    if (!is_block()) {
      __syncwarp(mask());
      return value;
    }
#if HAS_CLUSTERS
    if (cluster_ > 1) return cluster_broadcast(value);
#endif
    return block_broadcast(value);
  }

 private:
  __device__ __forceinline__ bool is_block() const { return lanes_ == int(blockDim.x); }

  __device__ __forceinline__ unsigned mask() const {
    const unsigned first_lane = threadIdx.x % kWarpSize & ~(lanes_ - 1);
    return (kFullWarp >> (kWarpSize - lanes_)) << first_lane;
  }

  int lanes_, cluster_;
};

}  // namespace ce_ext::cuda
