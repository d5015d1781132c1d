// How many blocks there are, at most, and on a multiprocessor at a time. No number depends on the GPU.
#pragma once

#include <cstdint>

namespace ce_ext::cuda {

// Blocks that shall fit on a multiprocessor, of threads with so many registers. Said outright because ptxas, left to
// itself, aims at more and spills.
constexpr int resident_blocks(int threads, int registers) { return 64 * 1024 / (threads * registers); }

// The most blocks whose losses are added up by the last of them: more than a GPU has at a time, few enough to be added
// up in microseconds. It does not depend on the GPU, and so neither do the bits of a sum.
constexpr int64_t kMaxBlocks = 8192;

// Rows are shared by several blocks where there are fewer of them than kBlocksToFill, and each has as many bytes.
constexpr int64_t kBlocksToFill = 1024;
constexpr int64_t kMinPartBytes = 32 * 1024;

// Counters of a launch, which find the block that comes last: of groups that several blocks work on there are no more
// than half of the blocks, and no more than of such rows, whose counters are behind them.
constexpr int kRowCounters = kBlocksToFill;
constexpr int kCounters = 4096;
static_assert(kCounters >= kMaxBlocks / 2 && kCounters >= kRowCounters + kBlocksToFill);

}  // namespace ce_ext::cuda
