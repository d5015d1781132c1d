// Rows that are few and long: several blocks share each of them, the last of which adds up what all have.
#pragma once

#include "cuda/device/shares.cuh"

namespace ce_ext::cuda {

// Whether this block is the last of `count` that call this with the counter. It then sees what thread 0 of each of them
// has written before. All threads call it.
__device__ inline bool comes_last(unsigned* counter, unsigned count) {
  SHARED_ARRAY(bool, is_last, 1);
  if (threadIdx.x == 0) {
    __threadfence();
    is_last[0] = atomicAdd(counter, 1u) == count - 1;
    if (is_last[0]) atomicExch(counter, 0u);
  }
  __syncthreads();
  const bool result = is_last[0];
  if (result) __threadfence();
  return result;
}

// How blocks share rows: block b has part b % per_row of row b / per_row. One block has a row where there are enough.
struct RowParts {
  unsigned per_row;
  int64_t classes;  // of a part; the last may have fewer

  // `class_bytes` is what a class has in all tensors that are read.
  RowParts(int64_t rows, int64_t classes_, int64_t class_bytes) : per_row(1), classes(classes_) {
    if (rows == 0) return;
    const int64_t most = std::min(kBlocksToFill / rows, classes_ * class_bytes / kMinPartBytes);
    if (most < 2) return;
    constexpr int64_t kLineClasses = 128;  // that fill whole lines of memory, whatever the type
    classes = divide_up(divide_up(classes_, most), kLineClasses) * kLineClasses;
    per_row = unsigned(divide_up(classes_, classes));
  }

  __device__ __forceinline__ int64_t row() const { return blockIdx.x / per_row; }
  __device__ __forceinline__ int64_t begin() const { return blockIdx.x % per_row * classes; }
  __device__ __forceinline__ int64_t size(int64_t all_classes) const {
    return all_classes - begin() < classes ? all_classes - begin() : classes;
  }

  // Turns the sums of the block's part into those of its row, and returns whether it is the last block of the row. The
  // other blocks then have nothing more to do; in the last, thread 0 has the sums. All threads call it.
  template <class Sums>
  __device__ bool add_up(Sums& sums, Sums* part_sums, unsigned* counters) const {
    if (threadIdx.x == 0) part_sums[blockIdx.x] = sums;
    if (!comes_last(counters + row(), per_row)) return false;
    sums = {};
    for (unsigned i = threadIdx.x; i < per_row; i += blockDim.x) sums.merge(part_sums[row() * per_row + i]);
    sums = block_reduce(sums);
    return true;
  }
};

}  // namespace ce_ext::cuda
