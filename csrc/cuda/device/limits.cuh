// How many blocks there are, at most, and on a multiprocessor at a time. No number depends on the GPU.
#pragma once

#include <cstdint>

namespace ce_ext::cuda {

// Blocks that shall fit on a multiprocessor, of threads with so many registers. Said outright because ptxas, left to
// itself, aims at more and spills.
constexpr int resident_blocks(int threads, int registers) { return 64 * 1024 / (threads * registers); }

// The most blocks whose losses are added up: so many that each has as little as can be, few enough to be added up in
// microseconds. It does not depend on the GPU, and so neither do the bits of a sum.
constexpr int64_t kMaxBlocks = 32 * 1024;

// Of a block that adds up what others have left, and what each of its threads loads before it uses the first.
constexpr int kThreadsToSum = 1024;
constexpr int kLoadsInFlight = 8;

// Rows are shared by several blocks where there are fewer of them than kBlocksToFill, and each has as many bytes.
constexpr int64_t kBlocksToFill = 1024;
constexpr int64_t kMinPartBytes = 32 * 1024;

// Counters of a launch, one for each of such rows, which find the block that comes last.
constexpr int kCounters = kBlocksToFill;

}  // namespace ce_ext::cuda
