// Stands in for the CUDA toolkit's header: the words of CUDA C++ that kernels use, spoken to the emulator.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "../engine.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define SHARED_ARRAY(T, name, size) \
  T(&name)[size] = *static_cast<T(*)[size]>(::cuda_emu::static_shared(::cuda_emu::key_of([] {}), sizeof(T) * (size)))
#define DYNAMIC_SHARED_ARRAY(T, name) T* const name = static_cast<T*>(::cuda_emu::dynamic_shared())
#define LAUNCH(kernel, blocks, threads, stream, ...) \
  (static_cast<void>(stream), ::cuda_emu::launch((blocks), (threads), 0, [&] { kernel(__VA_ARGS__); }))

using cudaStream_t = struct CUstream_st*;

inline void cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  __builtin_memset(memory, value, bytes);
}

#define threadIdx (::cuda_emu::thread_index)
#define blockIdx (::cuda_emu::block_index)
#define blockDim (::cuda_emu::block_size)
#define gridDim (::cuda_emu::grid_size)

namespace cuda_emu {

// Another address for every place in the source, and for every instance of a template there.
template <class Place>
const void* key_of(Place) {
  static const char key = 0;
  return &key;
}

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

constexpr auto plus = [](auto a, auto b) { return a + b; };
constexpr auto smaller = [](auto a, auto b) { return b < a ? b : a; };
constexpr auto larger = [](auto a, auto b) { return a < b ? b : a; };
constexpr auto both = [](auto a, auto b) { return a & b; };
constexpr auto either = [](auto a, auto b) { return a | b; };
constexpr auto one_of = [](auto a, auto b) { return a ^ b; };

// A fold of values of T, as the engine knows values.
template <class T, auto kFold>
uint64_t fold_bits(uint64_t a, uint64_t b) {
  return to_bits(T(kFold(from_bits<T>(a), from_bits<T>(b))));
}

template <auto kFold, class T>
T reduce_warp(const char* what, unsigned mask, T value, const Where& at) {
  return from_bits<T>(meet_warp(what, mask, to_bits(value), fold_bits<T, kFold>, Memory::kUnordered, at));
}

template <auto kFold, class T>
T reduce_block(const char* what, T value, const Where& at) {
  return from_bits<T>(meet_block(what, to_bits(value), fold_bits<T, kFold>, at));
}

// Shuffles stay within segments of `width` lanes; `source` finds a lane within the segment, or one outside of it.
template <class T, class Source>
T shuffle_segment(const char* what, unsigned mask, T value, int width, const Where& at, Source source) {
  if (width < 1 || width > kWarpSize || !std::has_single_bit(unsigned(width))) {
    fail("the width of a shuffle must be a power of two up to 32", at);
  }
  const int self = int(lane()) & (width - 1);
  const int wanted = source(self);
  const int found = wanted < 0 || wanted >= width ? self : wanted;
  return from_bits<T>(shuffle(what, mask, to_bits(value), int(lane()) - self + found, at));
}

// Relaxed, as CUDA's: an atomic orders nothing but itself.
template <class T, class F>
T modify(T* address, F f) {
  atomic_point();
  T old, changed;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do {
    changed = f(old);
  } while (!__atomic_compare_exchange(address, &old, &changed, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

}  // namespace cuda_emu

#define CUDA_EMU_HERE const ::cuda_emu::Where& at = ::cuda_emu::Where::current()

inline void __syncthreads(CUDA_EMU_HERE) { cuda_emu::reduce_block<cuda_emu::either>("__syncthreads", 0u, at); }
inline int __syncthreads_count(int predicate, CUDA_EMU_HERE) {
  return cuda_emu::reduce_block<cuda_emu::plus>("__syncthreads_count", int(predicate != 0), at);
}
inline int __syncthreads_or(int predicate, CUDA_EMU_HERE) {
  return int(cuda_emu::reduce_block<cuda_emu::either>("__syncthreads_or", unsigned(predicate != 0), at));
}
inline int __syncthreads_and(int predicate, CUDA_EMU_HERE) {
  return int(cuda_emu::reduce_block<cuda_emu::both>("__syncthreads_and", unsigned(predicate != 0), at));
}

inline void __syncwarp(unsigned mask = ~0u, CUDA_EMU_HERE) {
  cuda_emu::meet_warp("__syncwarp", mask, 0, cuda_emu::fold_bits<unsigned, cuda_emu::either>,
                      cuda_emu::Memory::kOrdered, at);
}
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline void __stwb(uint4* address, uint4 value) { *address = value; }

inline void __threadfence() { cuda_emu::fence(); }
inline void __threadfence_block() { cuda_emu::fence(); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_EMU_HERE) {
  return cuda_emu::shuffle_segment("__shfl_sync", mask, value, width, at, [=](int) { return source & (width - 1); });
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_EMU_HERE) {
  return cuda_emu::shuffle_segment("__shfl_up_sync", mask, value, width, at,
                                   [=](int self) { return self - int(delta); });
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_EMU_HERE) {
  return cuda_emu::shuffle_segment("__shfl_down_sync", mask, value, width, at,
                                   [=](int self) { return self + int(delta); });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, CUDA_EMU_HERE) {
  return cuda_emu::shuffle_segment("__shfl_xor_sync", mask, value, width, at,
                                   [=](int self) { return self ^ lane_mask; });
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_EMU_HERE) {
  const unsigned vote = unsigned(predicate != 0) << cuda_emu::lane();
  return cuda_emu::reduce_warp<cuda_emu::either>("__ballot_sync", mask, vote, at);
}
inline int __any_sync(unsigned mask, int predicate, CUDA_EMU_HERE) {
  return int(cuda_emu::reduce_warp<cuda_emu::either>("__any_sync", mask, unsigned(predicate != 0), at));
}
inline int __all_sync(unsigned mask, int predicate, CUDA_EMU_HERE) {
  return int(cuda_emu::reduce_warp<cuda_emu::both>("__all_sync", mask, unsigned(predicate != 0), at));
}

// For int and unsigned.
template <class T>
T __reduce_add_sync(unsigned mask, T value, CUDA_EMU_HERE) {
  return cuda_emu::reduce_warp<cuda_emu::plus>("__reduce_add_sync", mask, value, at);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, CUDA_EMU_HERE) {
  return cuda_emu::reduce_warp<cuda_emu::smaller>("__reduce_min_sync", mask, value, at);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, CUDA_EMU_HERE) {
  return cuda_emu::reduce_warp<cuda_emu::larger>("__reduce_max_sync", mask, value, at);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, CUDA_EMU_HERE) {
  return cuda_emu::reduce_warp<cuda_emu::both>("__reduce_and_sync", mask, value, at);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, CUDA_EMU_HERE) {
  return cuda_emu::reduce_warp<cuda_emu::either>("__reduce_or_sync", mask, value, at);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, CUDA_EMU_HERE) {
  return cuda_emu::reduce_warp<cuda_emu::one_of>("__reduce_xor_sync", mask, value, at);
}

template <class T>
T atomicAdd(T* address, T value) {
  return cuda_emu::modify(address, [=](T old) { return T(old + value); });
}
template <class T>
T atomicMin(T* address, T value) {
  return cuda_emu::modify(address, [=](T old) { return cuda_emu::smaller(old, value); });
}
template <class T>
T atomicMax(T* address, T value) {
  return cuda_emu::modify(address, [=](T old) { return cuda_emu::larger(old, value); });
}
template <class T>
T atomicExch(T* address, T value) {
  return cuda_emu::modify(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* address, T compare, T value) {
  return cuda_emu::modify(address, [=](T old) { return old == compare ? value : old; });
}
