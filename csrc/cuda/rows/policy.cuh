// Which kernel takes which problem, and how its threads share the work.
#pragma once

#include <cstdint>
#include <string>

#include "cuda/device/limits.cuh"

namespace ce_ext::cuda {

// How the threads of a kernel share rows whose classes lie side by side.
struct RowShape {
  int threads;  // of a block
  int lanes;    // threads of a block that share a row: lanes of one warp, or all threads
  int packs;    // of 16 bytes, that a thread loads before it uses the first: 4 or 8
  int cluster;  // blocks that share a row
};

enum class Pass { kForward, kBackward, kWithGrad };

struct RowPolicy {
  Pass pass;
  int64_t row_bytes;  // of rows up to this length
  int capability;     // on GPUs from this compute capability on, 90 for 9.0
  RowShape shape;
};

constexpr int64_t kAnyLength = INT64_MAX;

// The first that fits is taken. A multiprocessor has 64 warps' worth of threads and 64 Ki registers, and it takes some
// 24 KiB in flight on each of them to use the bandwidth of an H100 (3.35 TB/s in 0.9 us): all of these shapes allow
// more than that. Not measured yet.
constexpr RowPolicy kRowPolicies[] = {
    // As few lanes as still have the whole row in flight: the fewer, the more rows a warp finishes at a time.
    {Pass::kForward, 512, 0, {128, 8, 4, 1}},
    {Pass::kForward, 1024, 0, {128, 16, 4, 1}},
    {Pass::kForward, 2048, 0, {128, 32, 4, 1}},
    {Pass::kForward, 4096, 0, {128, 32, 8, 1}},
    // A block for a row, as small as holds it: while one waits at its barrier, others load.
    {Pass::kForward, 16384, 0, {128, 128, 8, 1}},
    {Pass::kForward, kAnyLength, 0, {256, 256, 8, 1}},

    // The gradient of each element is on its own: a team takes as much of a row as it has in flight. With 4 packs it is
    // done with few registers, and many blocks.
    {Pass::kBackward, 512, 0, {128, 8, 4, 1}},
    {Pass::kBackward, 1024, 0, {128, 16, 4, 1}},
    {Pass::kBackward, 4096, 0, {128, 32, 4, 1}},
    {Pass::kBackward, kAnyLength, 0, {256, 256, 4, 1}},

    // The row stays in registers from the loss to the gradient, as long as a team can hold it: where there are clusters
    // that is 512 KiB, the classes of Llama 3 in float32.
    {Pass::kWithGrad, 512, 0, {128, 8, 4, 1}},
    {Pass::kWithGrad, 1024, 0, {128, 16, 4, 1}},
    {Pass::kWithGrad, 2048, 0, {128, 32, 4, 1}},
    {Pass::kWithGrad, 4096, 0, {128, 32, 8, 1}},
    {Pass::kWithGrad, 16384, 0, {128, 128, 8, 1}},
    {Pass::kWithGrad, 32768, 0, {256, 256, 8, 1}},
    {Pass::kWithGrad, 65536, 0, {512, 512, 8, 1}},
    {Pass::kWithGrad, 131072, 90, {256, 256, 8, 4}},
    {Pass::kWithGrad, 262144, 90, {256, 256, 8, 8}},
    {Pass::kWithGrad, 524288, 90, {512, 512, 8, 8}},
    // Longer rows are read again, and should still be in the cache of the GPU: few blocks at a time, so few rows.
    {Pass::kWithGrad, kAnyLength, 0, {512, 512, 8, 1}},
};

// What the table says, after the overrides.
RowShape row_shape(Pass pass, int64_t row_bytes);

// Changes shapes of the table, to try others: "forward:16384=256,256,4,1; with_grad:131072@90=..." gives the entries
// for rows up to 16384 bytes, or 131072 from capability 90 on, other threads, lanes, packs and cluster; "inf" is any
// length. It starts from the table each time. What the environment variable CE_EXT_CUDA_POLICY says is done before the
// first kernel. Throws std::invalid_argument.
void override_policy(const std::string& overrides);

// All entries after the overrides, in the same words.
std::string policy_text();

// The most threads of a block that teams may have: what bounds the registers of a thread. Those of the backward pass do
// with 64 each.
constexpr int max_row_threads(bool many_registers) { return many_registers ? 256 : 512; }
constexpr int kMaxBackwardThreads = 256;
constexpr int kBackwardPacks = 4;

// Packs of each tensor where a team reads two of them, whatever the table says: to it their rows are one of both
// lengths.
constexpr int kPacksOfTwo = 4;
constexpr int kBackwardPacksOfTwo = kBackwardPacks / 2;

// Of blocks whose threads have rows of their own, because classes lie apart or there are no more of them than in a
// tile.
constexpr int kThreadsByRow = 128;
constexpr int64_t kMaxTileClasses = 32;

// Likewise of blocks with two tiles: the shared memory that every GPU has for a block is 48 KiB.
template <class S>
constexpr int kThreadsByTwoTiles = sizeof(S) == 8 ? kThreadsByRow / 2 : kThreadsByRow;

// Rows side by side that such a thread has. They are loaded in packs: of 16 bytes, and of halves in packs of 8, because
// there are no registers for more rows.
constexpr int kRowsPerThread = 4;

// Of no more classes, such rows of halves stay in registers from the loss to the gradient: as many as segment street
// scenes, and a few. Others are read again, mostly from the first-level cache.
constexpr int kMaxHeldClasses = 24;

// Classes that a thread with a row of its own loads before it uses the first.
constexpr int kClassesInFlight = 4;

constexpr int kThreadsToSum = 1024;

}  // namespace ce_ext::cuda
