// Stands in for the PTX instructions that csrc/cuda/device wraps, by the names that it gives them. A part of
// cuda_runtime.h.
#pragma once

namespace cuda_emu::ptx_words {

inline void sync_cluster(CUDA_EMU_HERE) { meet_cluster("sync_cluster", at); }
template <class T>
T* map_to_rank(T* shared, unsigned rank, CUDA_EMU_HERE) {
  return static_cast<T*>(map_shared(shared, rank, at));
}

inline void copy_async(void* shared, const void* global, CUDA_EMU_HERE) {
  cuda_emu::copy_async(shared, global, 16, at);
}
inline void copy_async(void* shared, const void* global, int bytes, CUDA_EMU_HERE) {
  cuda_emu::copy_async(shared, global, bytes, at);
}
inline void commit_copies() { cuda_emu::commit_copies(); }
template <int kPending>
void wait_for_copies() {
  cuda_emu::wait_for_copies(kPending);
}

inline void init_mbarrier(uint64_t* mbarrier, int count, CUDA_EMU_HERE) {
  cuda_emu::init_mbarrier(mbarrier, count, at);
}
inline void fence_mbarrier_init() {}
inline void fence_async_proxy() {}
inline void arrive(uint64_t* mbarrier, CUDA_EMU_HERE) { cuda_emu::arrive(mbarrier, 0, "mbarrier.arrive", at); }
inline void arrive_expecting(uint64_t* mbarrier, int bytes, CUDA_EMU_HERE) {
  cuda_emu::arrive(mbarrier, bytes, "mbarrier.arrive.expect_tx", at);
}
inline void wait_for_phase(uint64_t* mbarrier, unsigned parity, CUDA_EMU_HERE) { cuda_emu::wait(mbarrier, parity, at); }
inline void wait_for_phase_of_cluster(uint64_t* mbarrier, unsigned parity, CUDA_EMU_HERE) {
  cuda_emu::wait(mbarrier, parity, at);
}
inline void copy_bulk(void* shared, const void* global, int bytes, uint64_t* mbarrier, CUDA_EMU_HERE) {
  cuda_emu::copy_bulk(shared, global, bytes, mbarrier, at);
}
inline void store_async(void* shared, const uint4& value, uint64_t* mbarrier, unsigned rank, CUDA_EMU_HERE) {
  cuda_emu::store_async(shared, {value.x, value.y, value.z, value.w}, mbarrier, rank, at);
}

}  // namespace cuda_emu::ptx_words
