// Which kernel takes which problem, and how its threads share the work.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "cuda/device/limits.cuh"

namespace ce_ext::cuda {

enum class Pass { kForward, kBackward, kWithGrad };

// How many threads share a row whose classes lie side by side: 8 or 32 lanes of a warp, or a block.
struct RowPolicy {
  Pass pass;
  int64_t row_bytes;  // of rows up to this length
  int threads;
};

constexpr int64_t kAnyLength = INT64_MAX;

// The first that fits is taken.
constexpr RowPolicy kRowPolicies[] = {
    // The fewer lanes a row has, the more rows a warp has in flight, and the less often something is done once a row.
    {Pass::kForward, 4096, 8},
    {Pass::kForward, 8192, 32},
    {Pass::kForward, 32768, 128},
    {Pass::kForward, kAnyLength, 256},

    // For a chunk of a row: the gradient of each element is on its own.
    {Pass::kBackward, 512, 8},
    {Pass::kBackward, kAnyLength, 32},

    // Up to 20 KiB the row stays in registers from the loss to the gradient, 64 bytes of it a thread. Longer rows are
    // read again, and should still be in the second-level cache: few blocks at a time, so few rows.
    {Pass::kWithGrad, 8192, 32},
    {Pass::kWithGrad, 32768, 128},
    {Pass::kWithGrad, kAnyLength, 320},
};

// The teams that the kernels of a pass have.
template <int... kSizes>
struct TeamSizes {};
using ForwardTeams = TeamSizes<8, 32, 128, 256>;
using BackwardTeams = TeamSizes<8, 32>;
using WithGradTeams = TeamSizes<32, 128, 320>;
// Of kernels that are seldom used, or take many registers: whatever the table says, the next larger one, or the last.
using FewTeams = TeamSizes<32, 256>;
template <class S>
using FewWithGradTeams = std::conditional_t<sizeof(S) == 8, FewTeams, TeamSizes<32, 320>>;

// What the table says, after the overrides.
int row_threads(Pass pass, int64_t row_bytes);

// Changes entries of the table, to try others: "forward:32768=256; with_grad:inf=320" has other teams share rows of up
// to 32768 bytes, or of any length. It starts from the table each time. What the environment variable
// CE_EXT_CUDA_POLICY says is done before the first kernel. Throws std::invalid_argument.
void override_policy(const std::string& overrides);

// All entries after the overrides, in the same words.
std::string policy_text();

// Packs of 16 bytes that a thread of a team has in flight.
constexpr int kPacks = 4;

// Of a block that has a part of a row.
constexpr int kThreadsOfPart = 256;

// Of blocks whose threads have rows of their own, because classes lie apart.
constexpr int kThreadsByRow = 128;

// Rows that lie one after another go through tiles in shared memory up to this length, which is that of all that a
// stage has of a row. With a tensor of targets, which goes through them an element at a time, up to so many classes.
constexpr int64_t kMaxTileRowBytes = 512;
constexpr int64_t kMaxTileClassesOfTwo = 32;

// Blocks with tiles: as many as an H100 has at a time, each of which has the next tile under way.
constexpr int64_t kTileBlocks = 8 * 132;

// Rows side by side that such a thread has. They are loaded in packs: of 16 bytes, and of halves in packs of 8, because
// there are no registers for more rows.
constexpr int kRowsPerThread = 4;

// Planes of such rows that a thread has in flight, forward and for the gradient.
template <class S>
constexpr int kForwardPlanes = sizeof(S) == 2 ? 8 : 4;
constexpr int kGradPlanes = 4;

// Pixels of a thread, a word of each class; how many classes it has at most, with a kernel for every multiple of
// kPlanesStep; threads of a block, whose warps have a slice of the classes each where there are more.
template <class S>
constexpr int kPixelsOfThread = 4 / sizeof(S);
constexpr int kPlanesStep = 4;
constexpr int kMaxPlanes = 6 * kPlanesStep;
constexpr int kPixelThreads = 256;
constexpr int kMaxSlices = kPixelThreads / 32;

// Classes that a thread with a row of its own loads before it uses the first.
constexpr int kClassesInFlight = 4;

}  // namespace ce_ext::cuda
