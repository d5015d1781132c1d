// How the items of equal groups, rows or elements, are shared out to blocks, and how what the blocks have added up
// becomes the losses of the groups.
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

// Calls use(i, load(i)) for i from `begin` to `end` in steps, after several have been loaded.
template <class Load, class Use>
__device__ __forceinline__ void for_each_in_flight(int64_t begin, int64_t end, int64_t step, const Load& load,
                                                   const Use& use) {
  for (int64_t first = begin; first < end; first += kLoadsInFlight * step) {
    decltype(load(first)) loaded[kLoadsInFlight];
#pragma unroll
    for (int k = 0; k < kLoadsInFlight; ++k) {
      if (first + k * step < end) loaded[k] = load(first + k * step);
    }
#pragma unroll
    for (int k = 0; k < kLoadsInFlight; ++k) {
      if (first + k * step < end) use(first + k * step, loaded[k]);
    }
  }
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

// What the rows or elements of a group add up to becomes its loss.
template <class S, class Problem>
__device__ __forceinline__ void store_group_loss(const Problem& p, int64_t group, const RowTotals& totals) {
  const bool mean = p.reduction == Reduction::kMean;
  store_loss<S>(p, group, opmath_t<S>(mean ? totals.loss / p.mean_divisor.of(totals.weight) : totals.loss));
}

// ... and what its mean divides by.
template <class S, class Problem>
__device__ __forceinline__ void store_group(const Problem& p, int64_t group, const RowTotals& totals) {
  store_group_loss<S>(p, group, totals);
  if (p.reduction == Reduction::kMean) {
    static_cast<opmath_t<S>*>(p.denominator)[group] = opmath_t<S>(p.mean_divisor.of(totals.weight));
  }
}

// Ends a block whose threads have added up these, or, with kOneThread, its first thread alone: together they are the
// totals of its share, which are those of its group or, with `of_shares`, are left there.
template <class S, bool kOneThread = false, class Problem>
__device__ void finish_share(const Problem& p, const Shares& shares, int64_t share, RowTotals totals,
                             RowTotals* of_shares) {
  if (p.reduction == Reduction::kNone) return;
  if constexpr (!kOneThread) totals = block_reduce(totals);
  if (threadIdx.x != 0) return;
  if (of_shares) {
    of_shares[share] = totals;
  } else {
    store_group<S>(p, shares.group(share), totals);
  }
}

struct GroupLosses : ReducedLoss {
  bool loss_is_opmath;
};

// A block for each group: adds up what its shares have left, in their order.
template <class S>
__global__ void __launch_bounds__(kThreadsToSum)
    add_up_shares(GroupLosses p, int64_t per_group, const RowTotals* of_shares) {
  const RowTotals* of_group = of_shares + blockIdx.x * per_group;
  RowTotals totals;
  for_each_in_flight(
      threadIdx.x, per_group, blockDim.x, [&](int64_t i) { return of_group[i]; },
      [&](int64_t, const RowTotals& of_share) { totals.merge(of_share); });
  totals = block_reduce(totals);
  if (threadIdx.x == 0) store_group<S>(p, blockIdx.x, totals);
}

// Launches a kernel whose blocks have shares, by launch(of_shares), and where several of them are a group what adds
// them up: a kernel of its own, because a block that had to find out whether it is the last would have to wait until
// all that it has written is where others can read it, and in the meantime reads nothing.
template <class S, class Problem, class Launch>
void launch_shares(const Problem& p, const Shares& shares, const LaunchContext& context, const Launch& launch) {
  if (p.reduction == Reduction::kNone || shares.per_group == 1) return launch(nullptr);
  auto* of_shares = context.allocate<RowTotals>(shares.count);
  launch(of_shares);
  const int64_t warps = std::min<int64_t>(divide_up(shares.per_group, kWarpSize), kThreadsToSum / kWarpSize);
  LAUNCH((add_up_shares<S>), p.groups, int(warps) * kWarpSize, context.stream, GroupLosses{p, p.loss_is_opmath},
         shares.per_group, of_shares);
}

}  // namespace ce_ext::cuda
