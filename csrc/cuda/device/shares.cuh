// How the items of equal groups, rows or elements, are shared out to blocks, and how what the blocks have added up
// becomes the losses of the groups: the last block of a group adds up its shares, in their order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/device/limits.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/host/launch.h"
#include "host/dtype.h"
#include "host/reduced_loss.h"

namespace ce_ext::cuda {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of at most max_blocks shares, unless there are more groups. A group without items has one share, too.
struct Shares {
  int64_t group_size;  // in items
  int64_t share_size;  // in items; the last share of a group may have fewer
  int64_t per_group;
  int64_t count;

  // A block takes `tile` items at a time.
  Shares(int64_t items, int64_t groups, int64_t tile, int64_t max_blocks = kMaxBlocks)
      : group_size(groups > 0 ? items / groups : 0) {
    const int64_t tiles = std::max<int64_t>(1, divide_up(group_size, tile));
    const int64_t most = std::max<int64_t>(1, max_blocks / std::max<int64_t>(1, groups));
    share_size = divide_up(tiles, most) * tile;
    per_group = std::max<int64_t>(1, divide_up(group_size, share_size));
    count = groups * per_group;
  }

  // Shares are blocks, fewer than 2^31 of them: a division of 64 bits would cost several times as much.
  __device__ int64_t group(int64_t share) const { return uint32_t(share) / uint32_t(per_group); }
  __device__ int64_t begin(int64_t share) const {
    return group(share) * group_size + (share - group(share) * per_group) * share_size;
  }
  __device__ int64_t end(int64_t share) const {
    const int64_t group_end = (group(share) + 1) * group_size;
    return group_end - begin(share) < share_size ? group_end : begin(share) + share_size;
  }

  __device__ int size(int64_t share) const { return int(end(share) - begin(share)); }
};

// Device memory for what blocks tell each other.
struct Scratch {
  RowTotals* totals;   // one a share
  unsigned* counters;  // 0 before and after every kernel
};

// What finish_share needs of it.
inline Scratch scratch_for(const ReducedLoss& p, const Shares& shares, const LaunchContext& context) {
  if (p.reduction == Reduction::kNone || shares.per_group == 1) return {};
  return {context.allocate<RowTotals>(shares.count), context.memory.counters()};
}

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

// The loss of row, element or group `i`.
template <class S, class Problem>
__device__ __forceinline__ void store_loss(const Problem& p, int64_t i, opmath_t<S> loss) {
  if (p.loss_is_opmath) {
    static_cast<opmath_t<S>*>(p.loss)[i] = loss;
  } else {
    store(static_cast<S*>(p.loss) + i, loss);
  }
}

// What all shares of a group add up to. All threads of the block call it; thread 0 gets the result.
__device__ inline RowTotals add_up_shares(const Shares& shares, int64_t group, const Scratch& scratch) {
  const RowTotals* of_group = scratch.totals + group * shares.per_group;
  RowTotals totals;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < shares.per_group; i += blockDim.x) {
    totals.merge({__ldcg(&of_group[i].loss), __ldcg(&of_group[i].weight)});  // other blocks' are not in this L1 cache
  }
  return block_reduce(totals);
}

template <class S, class Problem>
__device__ __forceinline__ void store_group_loss(const Problem& p, int64_t group, const RowTotals& totals) {
  const bool mean = p.reduction == Reduction::kMean;
  store_loss<S>(p, group, opmath_t<S>(mean ? totals.loss / p.mean_divisor.of(totals.weight) : totals.loss));
}

// Ends a block whose threads have added up these, or, with kOneThread, its first thread alone: together they are the
// totals of its share.
template <class S, bool kOneThread = false, class Problem>
__device__ void finish_share(const Problem& p, const Shares& shares, int64_t share, RowTotals totals,
                             const Scratch& scratch) {
  if (p.reduction == Reduction::kNone) return;
  if constexpr (!kOneThread) totals = block_reduce(totals);
  const int64_t group = shares.group(share);
  if (shares.per_group > 1) {
    if (threadIdx.x == 0) scratch.totals[share] = totals;
    if (!comes_last(scratch.counters + group, shares.per_group)) return;
    totals = add_up_shares(shares, group, scratch);
  }
  if (threadIdx.x != 0) return;
  store_group_loss<S>(p, group, totals);
  if (p.reduction == Reduction::kMean) {
    static_cast<opmath_t<S>*>(p.denominator)[group] = opmath_t<S>(p.mean_divisor.of(totals.weight));
  }
}

}  // namespace ce_ext::cuda
