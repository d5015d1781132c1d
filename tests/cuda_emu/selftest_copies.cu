// Small kernels that copy asynchronously, for the tests of the emulator: see selftest.cu.
#include "cuda/device/async_copies.cuh"
#include "selftest.h"

namespace {

using namespace ce_ext::cuda;

struct alignas(16) Pack {
  int values[4];

  int sum() const { return values[0] + values[1] + values[2] + values[3]; }
};

constexpr int kPacks = 64;

// Pack i is {4 i, 4 i + 1, ...}.
const struct Numbers {
  Pack packs[kPacks];

  Numbers() {
    for (int i = 0; i < 4 * kPacks; ++i) packs[i / 4].values[i % 4] = i;
  }
} numbers;

// A stage that is filled in bulk by thread 0 of the block, once; it then holds the first packs.
constexpr int kStagePacks = 8;

void fill_in_bulk(Pack* stage, Mbarrier* mbarrier, int bytes = kStagePacks * sizeof(Pack)) {
  if (thread() == 0) {
    init_mbarrier(mbarrier, 1);
    fence_mbarrier_init();
    arrive_expecting(mbarrier, kStagePacks * sizeof(Pack));
    copy_bulk(stage, numbers.packs, bytes, mbarrier);
  }
  __syncthreads();
}

// An mbarrier of one thread alone, which `f` misuses.
template <class F>
int with_mbarrier(const F& f) {
  SHARED_ARRAY(Mbarrier, mbarrier, 1);
  SHARED_ARRAY(Pack, stage, 2);
  if (thread() == 0) f(mbarrier, stage);
  return 0;
}

// A ring of two stages, which the second warp fills with one pack after another, and the first adds up.
constexpr int kTurns = 7;

int sum_by_ring() {
  SHARED_ARRAY(Pack, stages, 2);
  SHARED_ARRAY(Mbarrier, full, 2);
  SHARED_ARRAY(Mbarrier, empty, 2);
  if (thread() < 2) {
    init_mbarrier(full + thread(), 1);
    init_mbarrier(empty + thread(), 1);
    fence_mbarrier_init();
  }
  __syncthreads();
  int sum = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    const int stage = turn % 2;
    const unsigned parity = turn / 2 % 2;
    if (thread() == 32) {
      wait_for_phase(empty + stage, parity ^ 1);
      fence_async_proxy();
      arrive_expecting(full + stage, sizeof(Pack));
      copy_bulk(stages + stage, numbers.packs + turn, sizeof(Pack), full + stage);
    } else if (thread() < 32) {
      wait_for_phase(full + stage, parity);
      sum += stages[stage].sum();
      __syncwarp();
      if (lane() == 0) arrive(empty + stage);
    }
  }
  return sum;
}

// Every warp of the cluster tells every block of the cluster its number, twice.
int exchange_in_cluster() {
  SHARED_ARRAY(uint4, slots, 16);
  SHARED_ARRAY(Mbarrier, mbarrier, 1);
  if (thread() == 0) {
    init_mbarrier(mbarrier, 1);
    fence_mbarrier_init();
  }
  sync_cluster();
  const unsigned warps = blockDim.x / 32, slot = cluster_rank() * warps + thread() / 32;
  unsigned result = 0;
  for (unsigned turn = 0; turn < 2; ++turn) {
    if (thread() == 0) arrive_expecting(mbarrier, cluster_size() * warps * sizeof(uint4));
    if (lane() < int(cluster_size())) store_async(slots + slot, {turn, slot, 0, 0}, mbarrier, lane());
    wait_for_phase_of_cluster(mbarrier, turn);
    for (unsigned i = 0; i < cluster_size() * warps; ++i) result = 8 * result + slots[i].x + 2 * slots[i].y;
    sync_cluster();  // before the slots are written again, or go
  }
  return result;
}

}  // namespace

const Kernels& copy_kernels() {
  static const Kernels kernels = {
      {"copy_async",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs + 63 - thread());
         commit_copies();
         wait_for_copies<0>();
         return packs[thread()].sum();
       }},
      {"copy_async for the block",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs + thread());
         commit_copies();
         wait_for_copies<0>();
         __syncthreads();
         return packs[63 - thread()].sum();
       }},
      {"copy_async of some bytes",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs + 63, thread() % 17);
         commit_copies();
         wait_for_copies<0>();
         return packs[thread()].sum();
       }},
      {"copy_async in two stages",
       [] {
         SHARED_ARRAY(Pack, packs, 2 * kPacks);
         Pack* const stages = packs + 2 * thread();
         copy_async(stages, numbers.packs);
         commit_copies();
         int sum = 0;
         for (int turn = 0; turn < kTurns; ++turn) {
           if (turn + 1 < kTurns) copy_async(stages + (turn + 1) % 2, numbers.packs + turn + 1);
           commit_copies();
           wait_for_copies<1>();
           sum += stages[turn % 2].sum();
         }
         return sum;
       }},
      {"bulk copy",
       [] {
         SHARED_ARRAY(Pack, stage, kStagePacks);
         SHARED_ARRAY(Mbarrier, mbarrier, 1);
         fill_in_bulk(stage, mbarrier);
         wait_for_phase(mbarrier, 0);
         return stage[thread() % kStagePacks].sum();
       }},
      {"bulk copies in a ring", sum_by_ring},
      {"store_async", exchange_in_cluster},

      {"copy_async that is read too early",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs + thread());
         commit_copies();
         const int early = packs[thread()].values[0];
         wait_for_copies<0>();
         return early;
       }},
      {"copy_async of a group that is not waited for",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs + thread());
         commit_copies();
         wait_for_copies<1>();
         const int early = packs[thread()].values[0];
         wait_for_copies<0>();
         return early;
       }},
      {"bulk copy that is read too early",
       [] {
         SHARED_ARRAY(Pack, stage, kStagePacks);
         SHARED_ARRAY(Mbarrier, mbarrier, 1);
         fill_in_bulk(stage, mbarrier);
         const int early = stage[0].values[0];
         wait_for_phase(mbarrier, 0);
         return early;
       }},
      {"write where a copy_async is to arrive",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs + thread());
         packs[thread()].values[1] = 0;
         commit_copies();
         wait_for_copies<0>();
         return 0;
       }},
      {"copy_async that nobody waits for",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs + thread());
         commit_copies();
         wait_for_copies<1>();
         return 0;
       }},
      {"copy_async that is in no group",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs + thread());
         wait_for_copies<0>();
         return 0;
       }},
      {"copy_async to where another is to arrive",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs);
         commit_copies();
         copy_async(packs + thread(), numbers.packs + 1);
         return 0;
       }},
      {"copy_async to what is not aligned",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs[thread() / 2].values + 2, numbers.packs);
         return 0;
       }},
      {"copy_async from what is not aligned",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs[0].values + 1);
         return 0;
       }},
      {"copy_async of 17 bytes",
       [] {
         SHARED_ARRAY(Pack, packs, kPacks);
         copy_async(packs + thread(), numbers.packs, 17);
         return 0;
       }},
      {"copy_async to what is not shared",
       [] {
         static Pack packs[kPacks];
         copy_async(packs + thread(), numbers.packs);
         return 0;
       }},
      {"copy_async beyond what is shared",
       [] {
         SHARED_ARRAY(Pack, packs, 1);
         copy_async(packs + 1, numbers.packs);
         return 0;
       }},
      {"bulk copy that nobody waits for",
       [] {
         SHARED_ARRAY(Pack, stage, kStagePacks);
         SHARED_ARRAY(Mbarrier, mbarrier, 1);
         fill_in_bulk(stage, mbarrier);
         return 0;
       }},
      {"bulk copy of 8 bytes",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack* stage) {
           init_mbarrier(mbarrier, 1);
           copy_bulk(stage, numbers.packs, 8, mbarrier);
         });
       }},
      {"bulk copy from what is not aligned",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack* stage) {
           init_mbarrier(mbarrier, 1);
           copy_bulk(stage, numbers.packs[0].values + 2, 16, mbarrier);
         });
       }},
      {"bulk copy to where another is to arrive",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack* stage) {
           init_mbarrier(mbarrier, 1);
           copy_bulk(stage, numbers.packs, 32, mbarrier);
           copy_bulk(stage + 1, numbers.packs, 16, mbarrier);
         });
       }},
      {"more bytes than are expected",
       [] {
         SHARED_ARRAY(Pack, stage, kStagePacks + 1);
         SHARED_ARRAY(Mbarrier, mbarrier, 1);
         fill_in_bulk(stage, mbarrier, (kStagePacks + 1) * sizeof(Pack));
         wait_for_phase(mbarrier, 0);
         return 0;
       }},
      {"more arrivals than a phase has",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack*) {
           init_mbarrier(mbarrier, 1);
           arrive_expecting(mbarrier, 16);
           arrive(mbarrier);
         });
       }},
      {"more bytes than an mbarrier counts",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack*) {
           init_mbarrier(mbarrier, 2);
           arrive_expecting(mbarrier, 1 << 20);
         });
       }},
      {"store_async to what is not aligned",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack* stage) {
           init_mbarrier(mbarrier, 1);
           store_async(stage[0].values + 1, uint4{1, 2, 3, 4}, mbarrier, cluster_rank());
         });
       }},
      {"bulk copy to what is not aligned",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack* stage) {
           init_mbarrier(mbarrier, 1);
           copy_bulk(stage[0].values + 2, numbers.packs, 16, mbarrier);
         });
       }},
      {"arrival at what is no mbarrier",
       [] { return with_mbarrier([](Mbarrier* mbarrier, Pack*) { arrive(mbarrier); }); }},
      {"wait for what is no mbarrier",
       [] { return with_mbarrier([](Mbarrier* mbarrier, Pack*) { wait_for_phase(mbarrier, 0); }); }},
      {"wait for a parity of 2",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack*) {
           init_mbarrier(mbarrier, 1);
           wait_for_phase(mbarrier, 2);
         });
       }},
      {"wait for a phase that never ends",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack*) {
           init_mbarrier(mbarrier, 2);
           wait_for_phase(mbarrier, 1);
           arrive_expecting(mbarrier, 48);
           wait_for_phase(mbarrier, 0);
         });
       }},
      {"mbarrier of no arrivals",
       [] { return with_mbarrier([](Mbarrier* mbarrier, Pack*) { init_mbarrier(mbarrier, 0); }); }},
      {"mbarrier that is not aligned",
       [] {
         return with_mbarrier(
             [](Mbarrier*, Pack* stage) { init_mbarrier(reinterpret_cast<Mbarrier*>(stage[0].values + 1), 1); });
       }},
      {"mbarrier that is initialised twice",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack*) {
           init_mbarrier(mbarrier, 1);
           init_mbarrier(mbarrier, 1);
         });
       }},
      {"mbarrier that is written over",
       [] {
         return with_mbarrier([](Mbarrier* mbarrier, Pack*) {
           init_mbarrier(mbarrier, 1);
           *mbarrier = 0;
           arrive(mbarrier);
         });
       }},
      {"store_async to a block that exits",
       [] {
         SHARED_ARRAY(Pack, stage, 1);
         SHARED_ARRAY(Mbarrier, mbarrier, 1);
         if (thread() == 0) init_mbarrier(mbarrier, 1);
         sync_cluster();
         if (cluster_rank() == 0 && thread() == 0) store_async(stage, uint4{1, 2, 3, 4}, mbarrier, 1);
         return 0;
       }},
  };
  return kernels;
}
