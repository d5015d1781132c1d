// Copies that run beside the threads: into shared memory, in packs of 16 bytes that a thread waits for (cp.async), or
// in bulk, where any thread waits at an mbarrier; and stores to other blocks of the cluster, that do so, too.
//
// What has come is visible to those who have waited, and to others after the next barrier.
#pragma once

#include "cuda/device/cluster.cuh"

namespace ce_ext::cuda {

// In shared memory: a count of arrivals and of bytes that are to come. Each time that all have come a phase ends, and
// the next one begins with the counts of the first. Phases are of parity 0 and 1 by turns.
using Mbarrier = uint64_t;

#if defined(__CUDACC__)

__device__ __forceinline__ unsigned shared_address(const void* shared) {
  return unsigned(__cvta_generic_to_shared(shared));
}

// Both addresses are aligned to 16 bytes. Past the first-level cache.
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global))
               : "memory");
}

// Reads no more than so many bytes, up to 16, and writes zeros behind them.
__device__ __forceinline__ void copy_async(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}

// The thread's copies up to here, but for those in earlier groups, become a group.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for all groups of the thread but the last kPending.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

#if HAS_CLUSTERS

// So many arrivals end a phase.
__device__ __forceinline__ void init_mbarrier(Mbarrier* mbarrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(mbarrier)), "r"(count) : "memory");
}

// By the thread that has initialised them, before a barrier: copies and other blocks then know of them, too.
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}

// By a thread that has waited for those who used shared memory, before a copy in bulk that is to write over it.
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void arrive(Mbarrier* mbarrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(mbarrier)) : "memory");
}

// First lets the phase wait for so many bytes.
__device__ __forceinline__ void arrive_expecting(Mbarrier* mbarrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(mbarrier)), "r"(bytes)
               : "memory");
}

// Waits until the phase of this parity is over. Before the first phase, one of parity 1 is.
__device__ __forceinline__ void wait_for_phase(Mbarrier* mbarrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred is_over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 is_over, [%0], %1;\n"
      "@!is_over bra again;\n"
      "}" ::"r"(shared_address(mbarrier)),
      "r"(parity)
      : "memory");
}

// The same for what other blocks have stored, too.
__device__ __forceinline__ void wait_for_phase_of_cluster(Mbarrier* mbarrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred is_over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 is_over, [%0], %1;\n"
      "@!is_over bra again;\n"
      "}" ::"r"(shared_address(mbarrier)),
      "r"(parity)
      : "memory");
}

// The addresses are aligned to 16 bytes, of which `bytes` is a multiple. Completes on an mbarrier of this block.
__device__ __forceinline__ void copy_bulk(void* shared, const void* global, int bytes, Mbarrier* mbarrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(shared_address(mbarrier))
               : "memory");
}

// To where the block of this rank has what this block has at `shared`, aligned to 16 bytes. Completes on that block's
// mbarrier.
__device__ __forceinline__ void store_async(void* shared, const uint4& value, Mbarrier* mbarrier, unsigned rank) {
  asm volatile(
      "{\n"
      ".reg .b32 to, mbarrier;\n"
      "mapa.shared::cluster.u32 to, %0, %6;\n"
      "mapa.shared::cluster.u32 mbarrier, %5, %6;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [to], {%1, %2, %3, %4}, [mbarrier];\n"
      "}" ::"r"(shared_address(shared)),
      "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "r"(shared_address(mbarrier)), "r"(rank)
      : "memory");
}

#endif
#endif

}  // namespace ce_ext::cuda
