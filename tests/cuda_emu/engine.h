// Runs the threads of a CUDA kernel on the CPU, so that tests need no GPU: the clusters one after another, every thread
// of the blocks of a cluster as a fiber. A fiber runs until it waits for others, at a barrier or a warp collective, or
// reaches an atomic; then the schedule picks who goes on. Where a launch has no clusters, each block is one. This file
// is what include/cuda_runtime.h builds CUDA's words from.
//
// The schedule comes from the environment: CUDA_EMU_SCHEDULE=forward (the default), reverse or random:SEED, for
// threads and blocks alike. What CUDA leaves undefined is an error with file and line: a barrier that not all threads
// reach, collectives that do not match, a shuffle from a lane that is not there, the shared memory of a block that has
// exited, a deadlock, and what copies.h adds of copies that run beside the threads.
//
// The engine itself is never instrumented. Compiled with CUDA_EMU_ASAN or CUDA_EMU_TSAN, it tells the sanitizer of the
// kernels about its fibers; to ThreadSanitizer every CUDA thread is a thread, ordered by barriers, __syncwarp and
// fences and by nothing else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Of the device, as the host is told: 90 is Hopper's. Tests may change it.
extern "C" int cuda_emu_capability;

namespace cuda_emu {

constexpr int kWarpSize = 32;

inline bool has_clusters() { return cuda_emu_capability >= 90; }

// Of the thread that runs, and of its launch.
extern uint3 thread_index, block_index;
extern dim3 block_size, grid_size;

// Runs the grid; a cluster is `cluster` blocks that are neighbours along x. Throws std::runtime_error for a launch that
// no GPU takes, and for what goes wrong in it.
void launch(const void* kernel, dim3 grid, dim3 block, unsigned cluster, size_t dynamic_shared_bytes,
            const std::function<void()>& thread);

// Lets launches of the kernel ask for more than 48 KiB of dynamic shared memory.
void allow_dynamic_shared(const void* kernel, size_t bytes);

// The block's array that `key` stands for.
void* static_shared(const void* key, size_t bytes);
void* dynamic_shared();

using Where = std::source_location;

// This block's rank in its cluster, how many blocks that has, and where another of them has what this one has at
// `address`.
unsigned cluster_rank();
unsigned cluster_size();
void* map_shared(const void* address, unsigned rank, const Where& at);

using Fold = uint64_t (*)(uint64_t, uint64_t);

// All threads of the block meet, and get their values folded into one. Orders memory.
uint64_t meet_block(const char* what, uint64_t value, Fold fold, const Where& at);

// All threads of the cluster meet. Orders memory.
void meet_cluster(const char* what, const Where& at);

// The lanes of the mask meet, and get their values folded into one.
enum class Memory { kUnordered, kOrdered };
uint64_t meet_warp(const char* what, unsigned mask, uint64_t value, Fold fold, Memory memory, const Where& at);

// The lanes of the mask meet, and each gets the value of another.
uint64_t shuffle(const char* what, unsigned mask, uint64_t value, int source_lane, const Where& at);

// Copies beside the threads, of which copies.h tells. An mbarrier is 8 bytes of shared memory; the last two functions
// complete on it.
void copy_async(void* shared, const void* global, size_t bytes, const Where& at);
void commit_copies();
void wait_for_copies(size_t pending_groups);
void init_mbarrier(void* mbarrier, unsigned count, const Where& at);
void arrive(void* mbarrier, size_t expected_bytes, const char* what, const Where& at);
void wait(void* mbarrier, unsigned parity, const Where& at);
void copy_bulk(void* shared, const void* global, size_t bytes, void* mbarrier, const Where& at);
void store_async(void* shared, const std::array<uint32_t, 4>& value, void* mbarrier, unsigned rank, const Where& at);

unsigned lane();
void fence();
void atomic_point();  // where the schedule may put another thread before this one's atomic
[[noreturn]] void fail(const std::string& message, const Where& at);

}  // namespace cuda_emu
