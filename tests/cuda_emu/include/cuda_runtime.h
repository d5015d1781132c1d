// Stands in for the CUDA toolkit's header: the words of CUDA C++ that kernels use, spoken to the emulator.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "../engine.h"

#define CUDA_EMU_HERE const ::cuda_emu::Where& at = ::cuda_emu::Where::current()

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

#include "ptx_words.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define SHARED_ARRAY(T, name, size) \
  T(&name)[size] = *static_cast<T(*)[size]>(::cuda_emu::static_shared(::cuda_emu::key_of([] {}), sizeof(T) * (size)))
#define DYNAMIC_SHARED_ARRAY(T, name) T* const name = static_cast<T*>(::cuda_emu::dynamic_shared())
#define LAUNCH_WITH_SHARED(kernel, blocks, threads, bytes, stream, ...) \
  (static_cast<void>(stream),                                           \
   ::cuda_emu::launch(::cuda_emu::address_of(kernel), (blocks), (threads), 1, (bytes), [&] { kernel(__VA_ARGS__); }))

inline const uint3& threadIdx = cuda_emu::thread_index;
inline const uint3& blockIdx = cuda_emu::block_index;
inline const dim3& blockDim = cuda_emu::block_size;
inline const dim3& gridDim = cuda_emu::grid_size;

namespace cuda_emu {

template <class... Parameters>
const void* address_of(void (*kernel)(Parameters...)) {
  return reinterpret_cast<const void*>(kernel);
}

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

inline uint4 __ldcs(const uint4* address) { return *address; }
inline void __stcs(uint4* address, uint4 value) { *address = value; }
inline void __stwb(uint4* address, uint4 value) { *address = value; }
template <class T>
T __ldcg(const T* address) {
  return *address;
}

inline void __threadfence() { cuda_emu::fence(); }
inline void __threadfence_block() { cuda_emu::fence(); }
inline void __threadfence_system() { cuda_emu::fence(); }

// Of memory that others write meanwhile.
template <class T>
T __ldcv(const T* address) {
  cuda_emu::atomic_point();
  return __atomic_load_n(address, __ATOMIC_RELAXED);
}
template <class T>
void __stwt(T* address, T value) {
  cuda_emu::atomic_point();
  __atomic_store_n(address, value, __ATOMIC_RELAXED);
}

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

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __popc(unsigned x) { return std::popcount(x); }

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
template <class T>
T atomicCAS_system(T* address, T compare, T value) {
  return atomicCAS(address, compare, value);
}

// What hosts call.
using cudaStream_t = struct CUstream_st*;

enum cudaError_t { cudaSuccess, cudaErrorNotSupported };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };

struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace cuda_emu {
inline cudaError_t last_error = cudaSuccess;  // until somebody asks for it
}

inline cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_emu::last_error;
  cuda_emu::last_error = cudaSuccess;
  return error;
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? cuda_emu_capability / 10 : cuda_emu_capability % 10;
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  __builtin_memset(memory, value, bytes);
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  cuda_emu::allow_dynamic_shared(cuda_emu::address_of(kernel), bytes);
  return cudaSuccess;
}

struct cudaFuncAttributes {
  int ptxVersion;
};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  attributes->ptxVersion = 90;  // of the code, whatever GPU runs it
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, Kernel*, const cudaLaunchConfig_t*) {
  *clusters = cuda_emu::has_clusters() ? 3 : 0;
  return *clusters ? cudaSuccess : cuda_emu::last_error = cudaErrorNotSupported;
}

// In clusters along x, if any.
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const unsigned cluster = config->numAttrs > 0 ? config->attrs[0].val.clusterDim.x : 1;
  cuda_emu::launch(cuda_emu::address_of(kernel), config->gridDim, config->blockDim, cluster, config->dynamicSmemBytes,
                   [&] { kernel(arguments...); });
  return cudaSuccess;
}
