// A contiguous row in 16-byte accesses, wherever it starts and however long it is.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/device/cache_hints.cuh"
#include "host/dtype.h"

namespace ce_ext::cuda {

// Numbers as they lie in memory: one, or a pack of 16 bytes, or several, or a part of one. Halves are kept in pairs:
// for each of them the compiler would take a register.
template <class T, int kCount>
struct Numbers {
  static constexpr int kBytes = kCount * sizeof(T);
  static constexpr int kAlignment = kBytes < 16 ? kBytes : 16;
  static constexpr bool kPaired = sizeof(T) == 2 && !std::is_integral_v<T> && kCount > 1;
  using Stored = std::conditional_t<kPaired, HalfPair<T>, T>;

  alignas(kAlignment) Stored stored[kBytes / sizeof(Stored)];
};

template <class S>
constexpr int kPackSize = 16 / sizeof(S);

__host__ __device__ __forceinline__ bool is_aligned(const void* p, int bytes = 16) {
  return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

// [0, head) and [packs_end, size) are single elements; between them lie whole packs, aligned to 16 bytes.
template <class S>
struct RowSplit {
  int64_t head;
  int64_t packs_end;
  int64_t size;

  __device__ RowSplit(const S* row, int64_t size_) : size(size_) {
    const int64_t misaligned = reinterpret_cast<uintptr_t>(row) % 16 / sizeof(S);
    const int64_t to_boundary = misaligned ? kPackSize<S> - misaligned : 0;
    head = to_boundary < size ? to_boundary : size;
    packs_end = head + (size - head) / kPackSize<S> * kPackSize<S>;
  }
};

// At once where they are aligned, which those that lie `stride` apart are not.
template <class T, int kCount>
__device__ __forceinline__ void copy_in(const T* p, bool aligned, Numbers<T, kCount>& numbers, int64_t stride = 1) {
  if (kCount == 1 || aligned) {
    numbers = *reinterpret_cast<const Numbers<T, kCount>*>(p);
  } else {
    T values[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = p[i * stride];
    memcpy(&numbers, values, sizeof(numbers));
  }
}

// What is streamed is soon evicted from the cache of the GPU, which then keeps what is read again.
template <class T, int kCount>
__device__ __forceinline__ void copy_out(const Numbers<T, kCount>& numbers, bool aligned, T* p, bool streams = false) {
  if constexpr (kCount == 1) {
    *p = numbers.stored[0];
  } else if (aligned) {
    if constexpr (Numbers<T, kCount>::kBytes < 16) {
      *reinterpret_cast<Numbers<T, kCount>*>(p) = numbers;
    } else {
#pragma unroll
      for (int i = 0; i < int(sizeof(numbers) / 16); ++i) {
        // Said outright: the compiler does not see every store of a whole pack as one.
        uint4 bits;
        memcpy(&bits, reinterpret_cast<const char*>(&numbers) + 16 * i, sizeof(bits));
        uint4* pack = reinterpret_cast<uint4*>(p) + i;
        streams ? __stcs(pack, bits) : __stwb(pack, bits);
      }
    }
  } else {
    T values[kCount];
    memcpy(values, &numbers, sizeof(numbers));
#pragma unroll
    for (int i = 0; i < kCount; ++i) p[i] = values[i];
  }
}

template <class T, int kCount>
__device__ __forceinline__ void convert(const Numbers<T, kCount>& numbers, opmath_t<T> (&values)[kCount]) {
  if constexpr (Numbers<T, kCount>::kPaired) {
#pragma unroll
    for (int i = 0; i < kCount; i += 2) unpack_pair(numbers.stored[i / 2], values[i], values[i + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = load(&numbers.stored[i]);
  }
}

template <class T, int kCount>
__device__ __forceinline__ void convert(const opmath_t<T> (&values)[kCount], Numbers<T, kCount>& numbers) {
  if constexpr (Numbers<T, kCount>::kPaired) {
#pragma unroll
    for (int i = 0; i < kCount; i += 2) numbers.stored[i / 2] = pack_pair<T>(values[i], values[i + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) store(&numbers.stored[i], values[i]);
  }
}

// The same numbers in another type.
template <class From, class To, int kCount>
__device__ __forceinline__ void convert(const Numbers<From, kCount>& from, Numbers<To, kCount>& to) {
  if constexpr (std::is_same_v<From, To>) {
    to = from;
  } else {
    opmath_t<From> values[kCount];
    convert(from, values);
    convert(values, to);
  }
}

template <class T, int kCount>
__device__ __forceinline__ Numbers<T, kCount> filled(opmath_t<T> value) {
  opmath_t<T> values[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = value;
  Numbers<T, kCount> numbers;
  convert(values, numbers);
  return numbers;
}

// Those of several packs as one.
template <class T, int kCount, int kPacks>
__device__ __forceinline__ Numbers<T, kCount * kPacks> join(const Numbers<T, kCount> (&packs)[kPacks]) {
  constexpr int kStored = std::extent_v<decltype(packs[0].stored)>;
  Numbers<T, kCount * kPacks> all;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
#pragma unroll
    for (int j = 0; j < kStored; ++j) all.stored[i * kStored + j] = packs[i].stored[j];
  }
  return all;
}

// How packs that are aligned are loaded: as ever, or past the first-level cache, with advice to the second.
struct PlainLoad {
  template <class T>
  __device__ __forceinline__ Numbers<T, kPackSize<T>> operator()(const T* p) const {
    return *reinterpret_cast<const Numbers<T, kPackSize<T>>*>(p);
  }
};

struct HintedLoad {
  CacheHint hint;

  template <class T>
  __device__ __forceinline__ Numbers<T, kPackSize<T>> operator()(const T* p) const {
    const uint4 bits = load_with_hint(reinterpret_cast<const uint4*>(p), hint);
    Numbers<T, kPackSize<T>> numbers;
    memcpy(&numbers, &bits, sizeof(numbers));
    return numbers;
  }
};

template <class T, int kCount>
__device__ __forceinline__ void store_pack(T* p, const opmath_t<T> (&values)[kCount], bool aligned, bool streams) {
  Numbers<T, kCount> numbers;
  convert(values, numbers);
  copy_out(numbers, aligned, p, streams);
}
template <class T, int kCount>
__device__ __forceinline__ void store_pack(T* p, const opmath_t<T> (&values)[kCount]) {
  store_pack(p, values, is_aligned(p, Numbers<T, kCount>::kAlignment), /*streams=*/false);
}

}  // namespace ce_ext::cuda
