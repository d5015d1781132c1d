// Loads that say what the second-level cache of the GPU shall keep.
#pragma once

#include "cuda/device/portability.cuh"

namespace ce_ext::cuda {

struct CacheHint {
  uint64_t policy = 0;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
// Of what is read again soon, and of what is read for the last time. A kernel makes its hints once.
__device__ __forceinline__ CacheHint keep_in_cache() {
  CacheHint hint;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(hint.policy));
  return hint;
}
__device__ __forceinline__ CacheHint drop_from_cache() {
  CacheHint hint;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(hint.policy));
  return hint;
}

// 16 bytes, aligned, past the first-level cache. The kernel may write to them later.
__device__ __forceinline__ uint4 load_with_hint(const uint4* p, CacheHint hint) {
  uint4 bits;
  asm volatile("ld.global.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
               : "l"(__cvta_generic_to_global(p)), "l"(hint.policy)
               : "memory");
  return bits;
}
#else
__device__ __forceinline__ CacheHint keep_in_cache() { return {}; }
__device__ __forceinline__ CacheHint drop_from_cache() { return {}; }
__device__ __forceinline__ uint4 load_with_hint(const uint4* p, CacheHint) { return *p; }
#endif

}  // namespace ce_ext::cuda
