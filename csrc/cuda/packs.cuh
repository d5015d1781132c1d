// A contiguous row in 16-byte accesses, wherever it starts and however long it is.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/portability.cuh"
#include "host/dtype.h"

namespace ce_ext::cuda {

template <class S>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(S);
  S values[kSize];
};

// [0, head) and [packs_end, size) are single elements; between them lie whole packs, aligned to 16 bytes.
template <class S>
struct RowSplit {
  int64_t head;
  int64_t packs_end;

  __device__ RowSplit(const S* row, int64_t size) {
    const int64_t misaligned = reinterpret_cast<uintptr_t>(row) % sizeof(Pack<S>) / sizeof(S);
    const int64_t to_boundary = misaligned ? Pack<S>::kSize - misaligned : 0;
    head = to_boundary < size ? to_boundary : size;
    packs_end = head + (size - head) / Pack<S>::kSize * Pack<S>::kSize;
  }

  // Another row of `size` is walked through together with the first: unless the packs are aligned in both, there are
  // only single elements.
  template <class Other>
  __device__ void share(const Other* row, int64_t size) {
    if (reinterpret_cast<uintptr_t>(row + head) % sizeof(Pack<Other>) != 0) head = packs_end = size;
  }
};

// Calls f(c, n) for the n classes from c on, packs and single elements, until the block's threads have had all `size`;
// n.value is known to the compiler.
template <int kThreads, class S, class F>
__device__ __forceinline__ void for_each_pack(const RowSplit<S>& split, int64_t size, const F& f) {
  constexpr int kSize = Pack<S>::kSize;
  constexpr std::integral_constant<int, 1> kSingle;
  constexpr std::integral_constant<int, kSize> kPack;
  for (int64_t c = threadIdx.x; c < split.head; c += kThreads) f(c, kSingle);
  for (int64_t c = split.head + threadIdx.x * kSize; c < split.packs_end; c += kThreads * kSize) f(c, kPack);
  if (threadIdx.x < size - split.packs_end) f(split.packs_end + threadIdx.x, kSingle);
}

// One value, or whole packs of them: of a type that is wider than the one the row was split for, several.
template <class S, int kCount>
__device__ __forceinline__ void load_pack(const S* p, opmath_t<S> (&values)[kCount]) {
  if constexpr (kCount == 1) {
    values[0] = load(p);
  } else {
    constexpr int kSize = Pack<S>::kSize;
    static_assert(kCount % kSize == 0, "packs are loaded as a whole");
#pragma unroll
    for (int first = 0; first < kCount; first += kSize) {
      const Pack<S> pack = *reinterpret_cast<const Pack<S>*>(p + first);
#pragma unroll
      for (int i = 0; i < kSize; ++i) values[first + i] = load(&pack.values[i]);
    }
  }
}

template <class S, int kCount>
__device__ __forceinline__ void store_pack(S* p, const opmath_t<S> (&values)[kCount]) {
  if constexpr (kCount == 1) {
    store(p, values[0]);
  } else {
    constexpr int kSize = Pack<S>::kSize;
    static_assert(kCount % kSize == 0, "packs are stored as a whole");
#pragma unroll
    for (int first = 0; first < kCount; first += kSize) {
      Pack<S> pack;
#pragma unroll
      for (int i = 0; i < kSize; ++i) store(&pack.values[i], values[first + i]);
      // Said outright: the compiler does not see every store of a whole pack as one.
      uint4 bits;
      memcpy(&bits, &pack, sizeof(bits));
      __stwb(reinterpret_cast<uint4*>(p + first), bits);
    }
  }
}

}  // namespace ce_ext::cuda
