#include "engine.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "copies.h"
#include "deadlock.h"
#include "fiber.h"
#include "schedule.h"
#include "shared_memory.h"
#include "thread_sanitizer.h"
#include "threads.h"

int cuda_emu_capability = 90;

namespace cuda_emu {

uint3 thread_index, block_index;
dim3 block_size, grid_size;

namespace {

constexpr unsigned kMaxThreads = 1024;  // of a block
constexpr unsigned kMaxCluster = 8;     // that every GPU with clusters can run
constexpr size_t kMaxDynamicShared = 227 * 1024;
constexpr size_t kMaxDynamicSharedUnlessAllowed = 48 * 1024;

// Where the i-th of so many is, counted along x first.
uint3 index_within(const dim3& size, uint64_t i) {
  return {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
}

struct Block {
  uint3 index;
  unsigned exited, at_barrier;
  SharedMemory shared;
};

class Engine {
 public:
  void launch(const void* kernel, dim3 grid, dim3 block, unsigned cluster, size_t dynamic_shared_bytes,
              const std::function<void()>& body);
  void allow_dynamic_shared(const void* kernel, size_t bytes);
  uint64_t meet_block(const Request& request);
  void meet_cluster(const Request& request) { meet(blocks_, at_barrier_, request); }
  uint64_t meet_warp(const Request& request);
  SharedMemory& shared() { return block_of(*current_).shared; }
  void* dynamic_shared() { return shared().array(&dynamic_shared_bytes_, dynamic_shared_bytes_); }
  void* map_shared(const void* address, unsigned rank, const Where& at);
  Copies& copies() { return copies_; }
  Self self() const { return {number_of(*current_), *current_->fiber}; }
  void* written_by_copy(void* address, size_t bytes, const Where& at);
  void wait(void* mbarrier, unsigned parity, const Where& at);
  void fence();
  void yield();
  [[noreturn]] void fail(const std::string& message);
  unsigned lane() const { return lane_of(*current_); }
  unsigned cluster_rank() { return rank_of(block_of(*current_)); }
  unsigned cluster_size() const { return blocks_.size(); }

 private:
  static void run_thread();
  void check(const void* kernel, dim3 grid, dim3 block, unsigned cluster, size_t dynamic_shared_bytes) const;
  void run_cluster(uint64_t first_block, std::deque<Fiber>& fibers);
  [[noreturn]] void exit_thread();
  Thread* pick();
  void resume(Thread& thread);
  uint64_t meet(std::span<Block> blocks, unsigned& at_barrier, const Request& request);
  void try_collective(Warp& warp, uint32_t mask);
  void wake(Thread& thread) { warp_of(thread).runnable |= 1u << lane_of(thread); }
  [[noreturn]] void fail_at(const Request& request, const std::string& message);
  [[noreturn]] void report_deadlock();
  template <class ForEachThread>
  void order_memory(ForEachThread for_each_thread);

  unsigned number_of(const Thread& thread) const { return &thread - threads_.data(); }
  unsigned lane_of(const Thread& thread) const { return number_of(thread) % kWarpSize; }
  unsigned rank_of(const Block& block) const { return &block - blocks_.data(); }
  Warp& warp_of(const Thread& thread) { return warps_[number_of(thread) / kWarpSize]; }
  Block& block_of(const Thread& thread) { return blocks_[number_of(thread) / kWarpSize / block_warps_]; }
  Thread* threads_of(const Warp& warp) { return &threads_[(&warp - warps_.data()) * kWarpSize]; }
  std::span<Thread> threads_of(const Block& block) {
    return std::span(threads_).subspan(rank_of(block) * block_warps_ * kWarpSize, block_threads_);
  }
  template <class F>
  void for_each_thread(std::span<Block> blocks, F f) {
    for (const Block& block : blocks) {
      for (Thread& thread : threads_of(block)) f(thread);
    }
  }

  std::mutex one_launch_at_a_time_;
  std::map<const void*, size_t> allowed_dynamic_shared_;  // of kernels
  Schedule schedule_;
  Copies copies_{schedule_, [this](unsigned thread) { wake(threads_[thread]); }};
  const std::function<void()>* body_;
  std::string failure_;

  // Of the cluster. Every block begins with a warp of its own.
  unsigned block_threads_, block_warps_, exited_blocks_, at_barrier_;
  std::vector<Block> blocks_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  Thread* current_;
  size_t dynamic_shared_bytes_;

  Fiber host_;
  // Neighbouring clusters take turns with them: to ThreadSanitizer, what one fiber does is in order. They
  // become as many as the largest cluster needs, and never move.
  std::array<std::deque<Fiber>, 2> fibers_;
  HappensBefore launched_;  // by the host, before any thread
  HappensBefore ended_;     // by the threads, before the host goes on
  HappensBefore fenced_;
};

Engine engine;

void Engine::launch(const void* kernel, dim3 grid, dim3 block, unsigned cluster, size_t dynamic_shared_bytes,
                    const std::function<void()>& body) {
  const std::lock_guard lock(one_launch_at_a_time_);
  check(kernel, grid, block, cluster, dynamic_shared_bytes);
  schedule_ = Schedule();
  body_ = &body;
  failure_.clear();
  grid_size = grid;
  block_size = block;
  block_threads_ = block.x * block.y * block.z;
  block_warps_ = (block_threads_ + kWarpSize - 1) / kWarpSize;
  dynamic_shared_bytes_ = dynamic_shared_bytes;
  blocks_ = std::vector<Block>(cluster);
  threads_.resize(cluster * block_warps_ * kWarpSize);
  host_.adopt_caller();
  launched_.release();
  unsigned turn = 0;
  for (const uint64_t c : schedule_.permutation(uint64_t(grid.x) * grid.y * grid.z / cluster)) {
    run_cluster(c * cluster, fibers_[turn++ % fibers_.size()]);
    if (!failure_.empty()) break;
  }
  ended_.acquire();
  if (!failure_.empty()) throw std::runtime_error("cuda_emu: " + failure_);
}

void Engine::allow_dynamic_shared(const void* kernel, size_t bytes) {
  const std::lock_guard lock(one_launch_at_a_time_);
  allowed_dynamic_shared_[kernel] = bytes;
}

void Engine::check(const void* kernel, dim3 grid, dim3 block, unsigned cluster, size_t dynamic_shared_bytes) const {
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64 || grid.x == 0 || grid.x > 0x7fffffffu || grid.y == 0 ||
      grid.y > 65535 || grid.z == 0 || grid.z > 65535) {
    throw std::runtime_error("cuda_emu: invalid configuration argument");
  }
  if (cluster == 0 || cluster > kMaxCluster || grid.x % cluster != 0) {
    throw std::runtime_error("cuda_emu: no GPU runs " + std::to_string(grid.x) + " blocks in clusters of " +
                             std::to_string(cluster));
  }
  if (cluster > 1 && !has_clusters()) {
    throw std::runtime_error("cuda_emu: this GPU has no clusters");
  }
  if (dynamic_shared_bytes > kMaxDynamicShared) {
    throw std::runtime_error("cuda_emu: more dynamic shared memory than any GPU has");
  }
  const auto allowed = allowed_dynamic_shared_.find(kernel);
  const size_t most = allowed == allowed_dynamic_shared_.end() ? kMaxDynamicSharedUnlessAllowed : allowed->second;
  if (dynamic_shared_bytes > most) {
    throw std::runtime_error("cuda_emu: more dynamic shared memory than cudaFuncSetAttribute has allowed the kernel");
  }
}

void Engine::run_cluster(uint64_t first_block, std::deque<Fiber>& fibers) {
  if (fibers.size() < threads_.size()) fibers.resize(threads_.size());
  warps_.assign(blocks_.size() * block_warps_, Warp());
  exited_blocks_ = at_barrier_ = 0;
  copies_.reset(threads_.size());
  for (Block& block : blocks_) {
    block.index = index_within(grid_size, first_block + rank_of(block));
    block.exited = block.at_barrier = 0;
    const std::span threads = threads_of(block);
    for (unsigned i = 0; i < threads.size(); ++i) {
      Thread& thread = threads[i];
      thread.index = index_within(block_size, i);
      thread.fiber = &fibers[number_of(thread)];
      thread.fiber->start(run_thread);
      warp_of(thread).exists |= 1u << lane_of(thread);
    }
  }
  for (Warp& warp : warps_) warp.runnable = warp.exists;
  resume(*pick());
  host_.switch_to(*current_->fiber);
}

void Engine::run_thread() {
  engine.current_->fiber->arrived();
  engine.launched_.acquire();
  (*engine.body_)();
  engine.exit_thread();
}

void Engine::exit_thread() {
  copies_.check_thread_exit(self());
  Warp& warp = warp_of(*current_);
  warp.runnable &= ~(1u << lane());
  warp.exited |= 1u << lane();
  // A collective waits for those of its lanes that have not exited.
  for_each_bit(warp.in_collective, [&](unsigned lane) {
    if (warp.in_collective >> lane & 1) try_collective(warp, threads_of(warp)[lane].request.mask);
  });
  Block& block = block_of(*current_);
  if (++block.exited == block_threads_) {
    copies_.check_block_exit(block.shared);
    // Its shared memory ends after all that its threads did. The sanitizers report a block that still reads it, or may.
    order_memory([&](auto f) { for_each_thread({&block, 1}, f); });
    block.shared.clear();
    ++exited_blocks_;
  }
  ended_.release();
  if (exited_blocks_ == blocks_.size()) current_->fiber->switch_to(host_);
  yield();
  std::abort();  // nothing resumes a thread that has exited
}

Thread* Engine::pick() {
  std::array<uint32_t, kMaxCluster> warps{};  // of each block: those that can go on
  uint32_t blocks = 0;
  for (unsigned w = 0; w < warps_.size(); ++w) {
    if (!warps_[w].runnable) continue;
    warps[w / block_warps_] |= 1u << w % block_warps_;
    blocks |= 1u << w / block_warps_;
  }
  if (!blocks) return nullptr;
  const unsigned block = schedule_.choose(blocks);
  const Warp& warp = warps_[block * block_warps_ + schedule_.choose(warps[block])];
  return &threads_of(warp)[schedule_.choose(warp.runnable)];
}

// The thread is the one that runs.
void Engine::resume(Thread& thread) {
  current_ = &thread;
  thread_index = thread.index;
  block_index = block_of(thread).index;
}

// Lets the schedule decide who goes on.
void Engine::yield() {
  copies_.at_scheduling_point(self());
  Thread* next = pick();
  while (!next && copies_.arrive_late(self())) next = pick();
  if (!next) report_deadlock();
  if (next == current_) return;
  Fiber& from = *current_->fiber;
  resume(*next);
  from.switch_to(*next->fiber);
}

uint64_t Engine::meet_block(const Request& request) {
  Block& block = block_of(*current_);
  return meet({&block, 1}, block.at_barrier, request);
}

// All threads of the blocks meet; `at_barrier` counts those that have come.
uint64_t Engine::meet(std::span<Block> blocks, unsigned& at_barrier, const Request& request) {
  Thread& self = *current_;
  self.request = request;
  warp_of(self).runnable &= ~(1u << lane());
  if (++at_barrier == blocks.size() * block_threads_) {
    at_barrier = 0;
    const Thread& first = threads_of(blocks.front()).front();
    uint64_t result = first.request.value;
    for_each_thread(blocks, [&](const Thread& thread) {
      if (!thread.request.matches(first.request)) report_deadlock();
      if (&thread != &first) result = request.fold(result, thread.request.value);
    });
    for_each_thread(blocks, [&](Thread& thread) {
      thread.result = result;
      warp_of(thread).runnable = warp_of(thread).exists;
    });
    order_memory([&](auto f) { for_each_thread(blocks, f); });
  }
  yield();
  return self.result;
}

uint64_t Engine::meet_warp(const Request& request) {
  Thread& self = *current_;
  Warp& warp = warp_of(self);
  const uint32_t bit = 1u << lane();
  if (!(request.mask & bit)) fail_at(request, "is not in the mask of its own call");
  self.request = request;
  warp.runnable &= ~bit;
  warp.in_collective |= bit;
  try_collective(warp, request.mask);
  yield();
  return self.result;
}

// Ends the collective of these lanes if all of them have come.
void Engine::try_collective(Warp& warp, uint32_t mask) {
  const uint32_t lanes = mask & warp.exists & ~warp.exited;
  if (lanes & ~warp.in_collective) return;
  Thread* const threads = threads_of(warp);
  const Request& first = threads[std::countr_zero(lanes)].request;
  bool all_match = true;
  for_each_bit(lanes, [&](unsigned lane) { all_match &= threads[lane].request.matches(first); });
  if (!all_match) return;  // which ends in a deadlock

  uint64_t folded = first.value;
  if (first.fold) {
    for_each_bit(lanes & (lanes - 1), [&](unsigned lane) { folded = first.fold(folded, threads[lane].request.value); });
  }
  for_each_bit(lanes, [&](unsigned lane) {
    const Request& request = threads[lane].request;
    if (!request.fold && !(lanes >> request.source_lane & 1)) {
      fail_at(request, "lane " + std::to_string(lane) + " reads lane " + std::to_string(request.source_lane) +
                           ", which takes no part");
    }
    threads[lane].result = request.fold ? folded : threads[request.source_lane].request.value;
  });
  warp.in_collective &= ~lanes;
  warp.runnable |= lanes;
  if (first.memory == Memory::kOrdered) {
    order_memory([&](auto f) { for_each_bit(lanes, [&](unsigned lane) { f(threads[lane]); }); });
  }
}

// All that these threads did happens before all that they will do.
template <class ForEachThread>
void Engine::order_memory(ForEachThread for_each_thread) {
  // Another one each time, for it never forgets who has released.
  const auto meeting = std::make_unique<HappensBefore>();
  for_each_thread([&](const Thread& thread) {
    thread.fiber->run_as();
    meeting->release();
  });
  for_each_thread([&](const Thread& thread) {
    thread.fiber->run_as();
    meeting->acquire();
  });
  current_->fiber->run_as();
}

void Engine::fence() {
  fenced_.acquire();
  fenced_.release();
}

void* Engine::map_shared(const void* address, unsigned rank, const Where& at) {
  if (rank >= blocks_.size()) cuda_emu::fail("shared memory of a block that is not in the cluster", at);
  if (blocks_[rank].exited == block_threads_) cuda_emu::fail("shared memory of a block that has exited", at);
  void* const mapped = shared().same_place_in(blocks_[rank].shared, address);
  if (!mapped) cuda_emu::fail("what is to be mapped is no shared memory of this block", at);
  return mapped;
}

// The address, after a check.
void* Engine::written_by_copy(void* address, size_t bytes, const Where& at) {
  if (!shared().has(address, bytes)) cuda_emu::fail("a copy to what is no shared memory of this block", at);
  return address;
}

void Engine::wait(void* mbarrier, unsigned parity, const Where& at) {
  yield();
  if (!copies_.is_over(self(), mbarrier, parity, at)) {
    current_->request = {.what = "mbarrier.try_wait", .at = at, .value = parity, .mbarrier = mbarrier};
    warp_of(*current_).runnable &= ~(1u << lane());
    yield();
  }
  copies_.has_waited(self(), mbarrier);
}

void Engine::fail(const std::string& message) {
  std::ostringstream text;
  text << "block " << block_index << ", thread " << thread_index << ": " << message;
  failure_ = text.str();
  copies_.reset(0);  // as long as there is the memory that they go to
  for_each_thread(blocks_, [&](const Thread& thread) {
    thread.fiber->run_as();
    ended_.release();
  });
  current_->fiber->switch_to(host_);
  std::abort();  // nothing resumes a thread that has failed
}

void Engine::fail_at(const Request& request, const std::string& message) {
  std::ostringstream text;
  text << request.what << " at " << request.at << ": " << message;
  fail(text.str());
}

// Other blocks may still be able to go on.
void Engine::report_deadlock() {
  std::ostringstream text;
  text << "deadlock, or synchronisation that not all threads reach";
  for (const Warp& warp : warps_) {
    std::ostringstream name;
    const Thread* threads = threads_of(warp);
    if (blocks_.size() > 1) name << "block " << block_of(*threads).index << ", ";
    name << "warp " << (&warp - warps_.data()) % block_warps_;
    describe_waiting(text, name.str(), warp, threads, copies_);
  }
  fail(text.str());
}

}  // namespace

void launch(const void* kernel, dim3 grid, dim3 block, unsigned cluster, size_t dynamic_shared_bytes,
            const std::function<void()>& thread) {
  engine.launch(kernel, grid, block, cluster, dynamic_shared_bytes, thread);
}
void allow_dynamic_shared(const void* kernel, size_t bytes) { engine.allow_dynamic_shared(kernel, bytes); }

void* static_shared(const void* key, size_t bytes) { return engine.shared().array(key, bytes); }
void* dynamic_shared() { return engine.dynamic_shared(); }

unsigned cluster_rank() { return engine.cluster_rank(); }
unsigned cluster_size() { return engine.cluster_size(); }
void* map_shared(const void* address, unsigned rank, const Where& at) { return engine.map_shared(address, rank, at); }

uint64_t meet_block(const char* what, uint64_t value, Fold fold, const Where& at) {
  return engine.meet_block({.what = what, .at = at, .value = value, .fold = fold});
}

void meet_cluster(const char* what, const Where& at) {
  engine.meet_cluster({.what = what, .at = at, .fold = [](uint64_t, uint64_t) { return uint64_t(0); }});
}

uint64_t meet_warp(const char* what, unsigned mask, uint64_t value, Fold fold, Memory memory, const Where& at) {
  return engine.meet_warp({.what = what, .at = at, .value = value, .fold = fold, .mask = mask, .memory = memory});
}

uint64_t shuffle(const char* what, unsigned mask, uint64_t value, int source_lane, const Where& at) {
  return engine.meet_warp({.what = what, .at = at, .value = value, .mask = mask, .source_lane = source_lane});
}

void copy_async(void* shared, const void* global, size_t bytes, const Where& at) {
  engine.copies().copy_async(engine.self(), engine.written_by_copy(shared, 16, at), global, bytes, at);
}
void commit_copies() { engine.copies().commit(engine.self()); }
void wait_for_copies(size_t pending_groups) {
  engine.yield();
  engine.copies().wait_for_groups(engine.self(), pending_groups);
}
void init_mbarrier(void* mbarrier, unsigned count, const Where& at) {
  engine.copies().init_mbarrier(engine.written_by_copy(mbarrier, 8, at), count, at);
}
void arrive(void* mbarrier, size_t expected_bytes, const char* what, const Where& at) {
  engine.yield();
  engine.copies().arrive_at(mbarrier, expected_bytes, what, at);
}
void wait(void* mbarrier, unsigned parity, const Where& at) { engine.wait(mbarrier, parity, at); }
void copy_bulk(void* shared, const void* global, size_t bytes, void* mbarrier, const Where& at) {
  engine.copies().copy_bulk(engine.self(), engine.written_by_copy(shared, bytes, at), global, bytes, mbarrier, at);
}
void store_async(void* shared, const std::array<uint32_t, 4>& value, void* mbarrier, unsigned rank, const Where& at) {
  engine.copies().store(engine.self(), engine.map_shared(shared, rank, at), value,
                        engine.map_shared(mbarrier, rank, at), at);
}

unsigned lane() { return engine.lane(); }
void fence() { engine.fence(); }
void atomic_point() { engine.yield(); }

void fail(const std::string& message, const Where& at) {
  std::ostringstream text;
  text << message << " at " << at;
  engine.fail(text.str());
}

}  // namespace cuda_emu
