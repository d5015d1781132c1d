// Cross entropy with its gradient for rows that are too long for the second-level cache to hold those that are worked
// on. A cluster of blocks takes one row after another, each block a part of it, and streams it through a ring of stages
// in shared memory, where it stays until the gradient is written. One warp copies, as far ahead as there are stages;
// the others add up, send what they have found to every block of the cluster, and write.
#pragma once

#include "cuda/device/async_copies.cuh"
#include "cuda/rows/cross_entropy_rows.cuh"

namespace ce_ext::cuda {

constexpr int kRingWarps = 16;  // that work on what another one copies
constexpr int kRingThreads = kRingWarps * kWarpSize;
constexpr int kStagePacks = 2 * kRingThreads;  // of 16 bytes
constexpr int kStages = 14;
constexpr int64_t kRingBytes = int64_t(kStages) * kStagePacks * 16;
constexpr int kMaxRingBlocks = 4;  // that share a row

// What a warp has found of a row: as many bytes as another block is sent at once.
struct alignas(16) WarpFindings {
  float max, exp_sum;
  float target_logit;  // 0 but from the warp that has it

  __device__ __forceinline__ RowSums<float, PlainForm> sums() const {
    RowSums<float, PlainForm> sums;
    sums.softmax.max = max;
    sums.softmax.exp_sum = exp_sum;
    return sums;
  }
};

// The shared memory of a block: nearly all that a GPU with clusters has for one.
template <class S>
struct RowRing {
  Numbers<S, kPackSize<S>> stages[kStages][kStagePacks];
  WarpFindings findings[2][kMaxRingBlocks * kRingWarps];  // of all warps of the cluster, for rows by turns
  Mbarrier is_full[kStages], is_empty[kStages];
  Mbarrier has_findings[2];
};

#if HAS_CLUSTERS

// By one thread of the block, before a barrier of the cluster.
template <class S>
__device__ void init_ring(RowRing<S>& ring) {
  for (int i = 0; i < kStages; ++i) {
    init_mbarrier(ring.is_full + i, 1);
    init_mbarrier(ring.is_empty + i, kRingWarps);
  }
  for (int i = 0; i < 2; ++i) init_mbarrier(ring.has_findings + i, 1);
  fence_mbarrier_init();
}

// A stage of the ring, and the parity of the phase that it is in.
struct RingPlace {
  int stage = 0;
  unsigned parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

// The rows of a cluster, which takes one share after another.
class ClusterRows {
 public:
  __device__ __forceinline__ ClusterRows(const Shares& shares, unsigned blocks)
      : shares_(shares), share_(blockIdx.x / blocks), step_(gridDim.x / blocks) {
    enter_share();
  }

  __device__ __forceinline__ bool has_row() const { return share_ < shares_.count; }
  __device__ __forceinline__ int64_t row() const { return row_; }
  __device__ __forceinline__ int64_t share() const { return share_; }
  __device__ __forceinline__ bool ends_share() const { return row_ == share_end_ - 1; }

  __device__ __forceinline__ void advance() {
    if (++row_ < share_end_) return;
    share_ += step_;
    enter_share();
  }

 private:
  __device__ __forceinline__ void enter_share() {
    if (!has_row()) return;
    row_ = shares_.begin(share_);
    share_end_ = shares_.end(share_);
  }

  const Shares& shares_;
  int64_t share_, step_, row_ = 0, share_end_ = 0;
};

// A block's part of a row, in packs. The classes before and behind all packs of the row are for threads of the first
// and of the last block, one for each.
template <class S>
class BlockPart {
 public:
  __device__ __forceinline__ BlockPart(const S* row, int64_t classes) {
    const RowSplit<S> split(row, classes);
    const unsigned rank = cluster_rank(), blocks = cluster_size();
    const unsigned all = unsigned(split.packs_end - split.head) / kPackSize<S>;
    const unsigned first = all * rank / blocks;
    packs_ = int(all * (rank + 1) / blocks - first);
    begin_ = split.head + int64_t(first) * kPackSize<S>;
    if (rank == 0 && threadIdx.x < split.head) single_ = threadIdx.x;
    if (rank == blocks - 1 && threadIdx.x < split.size - split.packs_end) single_ = split.packs_end + threadIdx.x;
  }

  __device__ __forceinline__ int packs() const { return packs_; }
  __device__ __forceinline__ int64_t class_of(int pack) const { return begin_ + int64_t(pack) * kPackSize<S>; }

  // The thread's own class that is in no pack, if it has one.
  __device__ __forceinline__ bool has_single() const { return single_ >= 0; }
  __device__ __forceinline__ int64_t single() const { return single_; }

  // The pack of a class, if it is this thread's that works on it; else -1.
  __device__ __forceinline__ int own_pack_of(int64_t c) const {
    const int64_t pack = (c - begin_) / kPackSize<S>;
    return c >= begin_ && pack < packs_ && pack % kRingThreads == threadIdx.x ? int(pack) : -1;
  }

 private:
  int64_t begin_;  // the class of the first pack
  int64_t single_ = -1;
  int packs_;
};

// Copies the block's parts of all rows that have to be read. One thread does.
template <class S>
__device__ void copy_rows(const CrossEntropyForward& p, RowRing<S>& ring, ClusterRows rows) {
  RingPlace place;
  for (; rows.has_row(); rows.advance()) {
    if (kind_of(p, p.target[rows.row()]) != TargetKind::kClass) continue;
    const S* x = logits_row<S>(p, rows.row());
    const BlockPart<S> part(x, p.classes);
#pragma unroll 1
    for (int first = 0; first < part.packs(); first += kStagePacks, place.advance()) {
      const int bytes = (part.packs() - first < kStagePacks ? part.packs() - first : kStagePacks) * 16;
      wait_for_phase(ring.is_empty + place.stage, place.parity ^ 1);
      fence_async_proxy();
      arrive_expecting(ring.is_full + place.stage, bytes);
      copy_bulk(ring.stages[place.stage], x + part.class_of(first), bytes, ring.is_full + place.stage);
    }
  }
}

// A thread that works on what is copied.
template <class S>
class RingWorker {
  static constexpr int kSize = kPackSize<S>;
  static constexpr int kPacksOfThread = kStagePacks / kRingThreads;
  using Pack = Numbers<S, kSize>;
  using Part = BlockPart<S>;
  using Sums = RowSums<float, PlainForm>;
  using Gradient = RowGradient<float, PlainForm>;

 public:
  __device__ __forceinline__ RingWorker(const CrossEntropyWithGrad& p, const DeviceLoss<float>& loss, RowRing<S>& ring)
      : p_(p), loss_(loss), ring_(ring), warp_(threadIdx.x / kWarpSize), lane_(threadIdx.x % kWarpSize) {}

  // Of all rows of the cluster, whose totals one thread keeps, share by share. What the mean divides by is there
  // already: others read it.
  __device__ __forceinline__ void work(const Shares& shares, ClusterRows rows, RowTotals* of_shares) {
    const bool leads = cluster_rank() == 0 && threadIdx.x == 0;
    RowTotals totals;
    RowTarget<float> next = target_of(rows);
    while (rows.has_row()) {
      const int64_t row = rows.row(), share = rows.share();
      const bool ends_share = rows.ends_share();
      RowTarget<float> target = next;
      rows.advance();
      const RowTotals of_row = work_on_row(row, target, leads, [&] { next = target_of(rows); });
      if (!leads) continue;
      totals.merge(of_row);
      if (!ends_share || p_.forward.reduction == Reduction::kNone) continue;
      if (of_shares) {
        of_shares[share] = totals;
      } else {
        store_group_loss<S>(p_.forward, share, totals);
      }
      totals = {};
    }
  }

 private:
  // Without its logit, which somebody finds in the ring.
  __device__ __forceinline__ RowTarget<float> target_of(const ClusterRows& rows) const {
    if (!rows.has_row()) return {};
    return load_target<float>(p_.forward, rows.row(), [](int64_t) { return 0.0f; });
  }

  // `look_ahead` reads from memory what is wanted of the next row. The gradient may lie over the logits: no thread
  // writes any before it has heard from all others that they have read all.
  template <class LookAhead>
  __device__ __forceinline__ RowTotals work_on_row(int64_t row, RowTarget<float>& target, bool leads,
                                                   const LookAhead& look_ahead) {
    const S* x = logits_row<S>(p_.forward, row);
    const Part part(x, p_.forward.classes);
    const bool is_read = is_wanted<PlainForm>(target);
    const float single = is_read && part.has_single() ? load(x + part.single()) : 0.0f;
    Sums sums;
    float scale = 0;
    if (is_read) {
      Mbarrier* const has_findings = ring_.has_findings + turn_ % 2;
      WarpFindings* const findings = ring_.findings[turn_ % 2];
      if (threadIdx.x == 0) arrive_expecting(has_findings, cluster_size() * kRingWarps * sizeof(WarpFindings));
      send(add_up(part, single, target.index), findings, has_findings);
      // What takes no sums, while others send theirs.
      scale = row_scale<S>(p_.backward, loss_.loss_scale, row);
      look_ahead();
      wait_for_phase_of_cluster(has_findings, turn_ / 2 % 2);
      sums = merge(findings, target.x);
      ++turn_;
    } else {
      look_ahead();
    }
    const FinishedRow<float> finished = finish_row<S>(p_.forward, loss_, row, target, sums);
    const Gradient gradient = row_gradient<S, PlainForm>(p_.backward, loss_, target, finished.saved, scale);
    S* const grad_x = grad_row<S>(p_.backward, row);
    if (is_read) {
      write_gradient(part, single, gradient, target.x, grad_x);
    } else {
      fill(part, gradient, grad_x);
    }
    return leads ? store_row<S>(p_.forward, loss_, row, target, finished, sums) : RowTotals();
  }

  // What the warp finds in the block's part of the row.
  __device__ __forceinline__ WarpFindings add_up(const Part& part, float single, int64_t target) const {
    const AddLogits<S, PlainForm> add(p_.forward, loss_);
    Sums sums;
    for_each_stage(place_, part, [&](int, int, const auto& packs) { add(sums, packs); });
    float target_logit = 0;
    if (part.has_single()) {
      float values[1] = {single};
      add(sums, values, part.single());
      if (part.single() == target) target_logit = single;
    }
    const int pack = part.own_pack_of(target);
    if (pack >= 0) {
      const int stage = (place_.stage + pack / kStagePacks) % kStages;
      const auto* numbers = reinterpret_cast<const S*>(&ring_.stages[stage][pack % kStagePacks]);
      target_logit = load(numbers + (target - part.class_of(pack)));
    }
    sums = warp_reduce(sums);
    target_logit = warp_reduce(Sum<float>{target_logit}).value;
    return {sums.softmax.max, sums.softmax.exp_sum, target_logit};
  }

  // To every block of the cluster, by a lane each. The place is free: all that was found of the row before the last has
  // been read by those who have sent what they found of the last.
  __device__ __forceinline__ void send(const WarpFindings& of_warp, WarpFindings* findings, Mbarrier* mbarrier) const {
    if (lane_ >= int(cluster_size())) return;
    uint4 bits;
    memcpy(&bits, &of_warp, sizeof(bits));
    store_async(findings + cluster_rank() * kRingWarps + warp_, bits, mbarrier, lane_);
  }

  // In the same order in every warp of the cluster, and so with the same bits.
  __device__ __forceinline__ Sums merge(const WarpFindings* findings, float& target_logit) const {
    Sums sums;
    Sum<float> logit;
    for (int i = lane_; i < int(cluster_size()) * kRingWarps; i += kWarpSize) {
      sums.merge(findings[i].sums());
      logit.value += findings[i].target_logit;
    }
    target_logit = warp_reduce(logit).value;
    return warp_reduce(sums);
  }

  // Gives the stages back one after another. Who has the target writes it twice.
  __device__ __forceinline__ void write_gradient(const Part& part, float single, const Gradient& gradient,
                                                 float target_logit, S* grad_x) {
    if (is_aligned(grad_x + part.class_of(0))) {
      write_packs(part, gradient, grad_x, std::true_type());
    } else {
      write_packs(part, gradient, grad_x, std::false_type());
    }
    if (part.has_single()) write_single(part, single, gradient, grad_x);
    const bool is_single = part.has_single() && part.single() == gradient.target;
    if (is_single || part.own_pack_of(gradient.target) >= 0) {
      store(grad_x + gradient.target, gradient.at_target(target_logit));
    }
  }

  template <bool kAligned>
  __device__ __forceinline__ void write_packs(const Part& part, const Gradient& gradient, S* grad_x,
                                              std::bool_constant<kAligned>) {
    place_ = for_each_stage(place_, part, [&](int stage, int pack, const auto& packs) {
      float values[kPacksOfThread][kSize];
#pragma unroll
      for (int i = 0; i < kPacksOfThread; ++i) {
        convert(packs[i], values[i]);
        gradient.apply(part.class_of(pack + i * kRingThreads), values[i]);
      }
#pragma unroll
      for (int i = 0; i < kPacksOfThread; ++i) {
        if (pack + i * kRingThreads >= part.packs()) break;
        store_pack(grad_x + part.class_of(pack + i * kRingThreads), values[i], kAligned, /*streams=*/true);
      }
      __syncwarp();
      if (lane_ == 0) arrive(ring_.is_empty + stage);
    });
  }

  // Of a row that was not read: the same for every class.
  __device__ __forceinline__ void fill(const Part& part, const Gradient& gradient, S* grad_x) const {
    float values[kSize] = {};
    gradient.apply(0, values);
    const bool aligned = is_aligned(grad_x + part.class_of(0));
#pragma unroll 1
    for (int i = threadIdx.x; i < part.packs(); i += kRingThreads) {
      store_pack(grad_x + part.class_of(i), values, aligned, /*streams=*/true);
    }
    if (part.has_single()) write_single(part, /*single=*/0.0f, gradient, grad_x);
  }

  __device__ __forceinline__ void write_single(const Part& part, float single, const Gradient& gradient,
                                               S* grad_x) const {
    float values[1] = {single};
    gradient.apply(part.single(), values);
    store(grad_x + part.single(), values[0]);
  }

  // Calls f(stage, pack, packs) for each stage that has some of the block's part: with the thread's packs there, the
  // first of which has this number in the part, or masked logits where the part has no more. Returns where the next row
  // begins.
  template <class F>
  __device__ __forceinline__ RingPlace for_each_stage(RingPlace place, const Part& part, const F& f) const {
    for (int first = 0; first < part.packs(); first += kStagePacks, place.advance()) {
      wait_for_phase(ring_.is_full + place.stage, place.parity);
      Pack packs[kPacksOfThread];
#pragma unroll
      for (int i = 0; i < kPacksOfThread; ++i) {
        const int pack = i * kRingThreads + threadIdx.x;
        packs[i] = first + pack < part.packs() ? ring_.stages[place.stage][pack] : filled<S, kSize>(-INFINITY);
      }
      f(place.stage, first + int(threadIdx.x), packs);
    }
    return place;
  }

  const CrossEntropyWithGrad& p_;
  const DeviceLoss<float>& loss_;
  RowRing<S>& ring_;
  int warp_, lane_;
  RingPlace place_;    // of the row that is worked on
  unsigned turn_ = 0;  // of rows that are read
};

#endif

template <class S>
__global__ void __launch_bounds__(kRingThreads + kWarpSize, 1)
    cross_entropy_with_grad_by_cluster(CrossEntropyWithGrad p, DeviceLoss<float> loss, Shares shares,
                                       RowTotals* of_shares) {
#if HAS_CLUSTERS
  DYNAMIC_SHARED_ARRAY(RowRing<S>, ring);
  if (threadIdx.x == 0) init_ring(*ring);
  sync_cluster();
  const ClusterRows rows(shares, cluster_size());
  if (threadIdx.x < kRingThreads) {
    RingWorker<S>(p, loss, *ring).work(shares, rows, of_shares);
  } else if (threadIdx.x == kRingThreads) {
    copy_rows(p.forward, *ring, rows);
  }
  // Nothing is on its way to this block any more: all that is sent is waited for.
#endif
}

}  // namespace ce_ext::cuda
