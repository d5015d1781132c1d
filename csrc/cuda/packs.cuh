// A contiguous row in 16-byte accesses, wherever it starts and however long it is.
#pragma once

#include <cstdint>

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
};

template <class S>
__device__ __forceinline__ void load_pack(const S* p, opmath_t<S> (&values)[Pack<S>::kSize]) {
  const Pack<S> pack = *reinterpret_cast<const Pack<S>*>(p);
#pragma unroll
  for (int i = 0; i < Pack<S>::kSize; ++i) values[i] = load(&pack.values[i]);
}

template <class S>
__device__ __forceinline__ void store_pack(S* p, const opmath_t<S> (&values)[Pack<S>::kSize]) {
  Pack<S> pack;
#pragma unroll
  for (int i = 0; i < Pack<S>::kSize; ++i) store(&pack.values[i], values[i]);
  *reinterpret_cast<Pack<S>*>(p) = pack;
}

}  // namespace ce_ext::cuda
