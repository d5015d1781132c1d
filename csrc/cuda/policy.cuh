// Which kernel takes which problem, and at what size.
#pragma once

#include <cstdint>

namespace ce_ext::cuda {

// A block a row reads contiguous classes with 16-byte accesses. Below this many classes most of its threads would
// have nothing to do: then, and where classes lie apart, a thread takes a row of its own.
constexpr int64_t kMinClassesForBlock = 256;
constexpr int kThreadsByClass = 256;
constexpr int kThreadsByRow = 128;

// Blocks that shall fit on a multiprocessor: 1024 threads, of up to 64 registers each, or half as many threads where
// rows need more of them. Said outright because ptxas, left to itself, aims higher and spills.
constexpr int min_blocks(int threads, bool many_registers) { return (many_registers ? 512 : 1024) / threads; }

// Classes that a thread with a row of its own loads before it uses the first.
constexpr int kClassesInFlight = 4;

// Rows that one block sums up: enough to be worth a block, few enough that a million rows fill the GPU.
constexpr int64_t kRowsPerSlice = 4096;
constexpr int kThreadsToSum = 256;

// Elements that one block works on: enough for many packs a thread, few enough for a million elements to fill the GPU.
constexpr int64_t kElementsPerSlice = 8192;
constexpr int kThreadsByElement = 256;

}  // namespace ce_ext::cuda
