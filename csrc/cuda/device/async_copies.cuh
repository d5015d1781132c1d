// Copies from global to shared memory that threads start and go on: they pass the registers by.
#pragma once

#include "cuda/device/portability.cuh"

namespace ce_ext::cuda {

// 4, 8 or 16 bytes, aligned to as many.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
#if defined(__CUDACC__)
  const auto to = unsigned(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {  // past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(kBytes) : "memory");
  }
#else
  memcpy(shared, global, kBytes);
#endif
}

// Those that the thread has started since it last called this are a group.
__device__ __forceinline__ void commit_copies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Until no more than kPending groups of the thread are under way. Other threads see what was copied after a barrier.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

}  // namespace ce_ext::cuda
