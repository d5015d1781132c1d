// The blocks of a cluster, which see each other's shared memory. Without cooperative_groups, which would take two
// seconds to compile.
#pragma once

#include "cuda/device/portability.cuh"

namespace ce_ext::cuda {

#if !defined(__CUDACC__)
using namespace cuda_emu::ptx_words;
using cuda_emu::cluster_rank;
using cuda_emu::cluster_size;
#elif HAS_CLUSTERS
// This block's number in the cluster, and how many there are.
__device__ __forceinline__ unsigned cluster_rank() { return __clusterRelativeBlockRank(); }
__device__ __forceinline__ unsigned cluster_size() { return __clusterSizeInBlocks(); }

// A barrier of all threads of the cluster. It waits for the global stores of each of them.
__device__ __forceinline__ void sync_cluster() {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}

// Where the block of this rank has what this block has in its shared memory.
template <class T>
__device__ __forceinline__ T* map_to_rank(T* shared, unsigned rank) {
  return static_cast<T*>(__cluster_map_shared_rank(shared, rank));
}
#endif

}  // namespace ce_ext::cuda
