#include "engine.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "fiber.h"
#include "schedule.h"
#include "thread_sanitizer.h"

namespace cuda_emu {

uint3 thread_index, block_index;
dim3 block_size, grid_size;

namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr size_t kMaxDynamicShared = 227 * 1024;

// Calls f with the number of every bit that is set.
template <class F>
void for_each_bit(uint32_t bits, F f) {
  for (; bits; bits &= bits - 1) f(std::countr_zero(bits));
}

std::ostream& operator<<(std::ostream& out, const uint3& i) {
  return out << '(' << i.x << ", " << i.y << ", " << i.z << ')';
}

std::ostream& operator<<(std::ostream& out, const Where& at) { return out << at.file_name() << ':' << at.line(); }

// What a thread waits for, and brings along.
struct Request {
  const char* what;
  Where at;
  uint64_t value = 0;
  Fold fold = nullptr;  // null for a shuffle
  uint32_t mask = 0;    // 0 for the whole block
  int source_lane = 0;
  Memory memory = Memory::kUnordered;

  bool matches(const Request& other) const {
    return mask == other.mask && std::string_view(what) == other.what && at.line() == other.at.line() &&
           std::string_view(at.file_name()) == other.at.file_name();
  }
};

struct Thread {
  Fiber* fiber;
  uint3 index;
  Request request;
  uint64_t result;
};

// One bit a lane; a thread that is in none of the last three waits for the block.
struct Warp {
  uint32_t exists, runnable, in_collective, exited;
};

struct SharedArray {
  const void* key;
  std::unique_ptr<void, decltype(&std::free)> memory;
};

class Engine {
 public:
  void launch(dim3 grid, dim3 block, size_t dynamic_shared_bytes, const std::function<void()>& body);
  uint64_t meet_block(const Request& request);
  uint64_t meet_warp(const Request& request);
  void* shared(const void* key, size_t bytes);
  void* dynamic_shared() { return shared(&dynamic_shared_bytes_, dynamic_shared_bytes_); }
  void fence();
  void yield();
  [[noreturn]] void fail(const std::string& message);
  unsigned lane() const { return (current_ - threads_.data()) % kWarpSize; }

 private:
  static void run_thread();
  void run_block(std::array<Fiber, kMaxThreads>& fibers);
  [[noreturn]] void exit_thread();
  Thread* pick();
  void try_collective(Warp& warp, uint32_t mask);
  [[noreturn]] void fail_at(const Request& request, const std::string& message);
  [[noreturn]] void report_deadlock();
  template <class ForEachThread>
  void order_memory(ForEachThread for_each_thread);

  Warp& warp_of(const Thread& thread) { return warps_[(&thread - threads_.data()) / kWarpSize]; }
  Thread* threads_of(const Warp& warp) { return &threads_[(&warp - warps_.data()) * kWarpSize]; }

  std::mutex one_launch_at_a_time_;
  Schedule schedule_;
  const std::function<void()>* body_;
  std::string failure_;

  unsigned thread_count_, warp_count_, exited_, at_barrier_;
  std::array<Thread, kMaxThreads> threads_;
  std::array<Warp, kMaxThreads / kWarpSize> warps_;
  Thread* current_;
  std::vector<SharedArray> shared_;
  size_t dynamic_shared_bytes_;

  Fiber host_;
  // Neighbouring blocks take turns with them: to ThreadSanitizer, what one fiber does is in order.
  std::array<std::array<Fiber, kMaxThreads>, 2> fibers_;
  HappensBefore launched_;  // by the host, before any thread
  HappensBefore ended_;     // by the threads, before the host goes on
  HappensBefore fenced_;
};

Engine engine;

void Engine::launch(dim3 grid, dim3 block, size_t dynamic_shared_bytes, const std::function<void()>& body) {
  const std::lock_guard lock(one_launch_at_a_time_);
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64 || grid.x == 0 || grid.x > 0x7fffffffu || grid.y == 0 ||
      grid.y > 65535 || grid.z == 0 || grid.z > 65535) {
    throw std::runtime_error("cuda_emu: invalid configuration argument");
  }
  if (dynamic_shared_bytes > kMaxDynamicShared) {
    throw std::runtime_error("cuda_emu: more dynamic shared memory than any GPU has");
  }
  schedule_ = Schedule();
  body_ = &body;
  failure_.clear();
  grid_size = grid;
  block_size = block;
  thread_count_ = threads;
  warp_count_ = (thread_count_ + kWarpSize - 1) / kWarpSize;
  dynamic_shared_bytes_ = dynamic_shared_bytes;
  host_.adopt_caller();
  launched_.release();
  unsigned turn = 0;
  for (const uint64_t b : schedule_.permutation(uint64_t(grid.x) * grid.y * grid.z)) {
    block_index = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    run_block(fibers_[turn++ % fibers_.size()]);
    if (!failure_.empty()) break;
  }
  ended_.acquire();
  if (!failure_.empty()) throw std::runtime_error("cuda_emu: " + failure_);
}

void Engine::run_block(std::array<Fiber, kMaxThreads>& fibers) {
  exited_ = at_barrier_ = 0;
  for (unsigned w = 0; w < warp_count_; ++w) {
    const unsigned lanes = std::min(thread_count_ - w * kWarpSize, unsigned(kWarpSize));
    const uint32_t all = lanes == kWarpSize ? ~0u : (1u << lanes) - 1;
    warps_[w] = {.exists = all, .runnable = all, .in_collective = 0, .exited = 0};
  }
  for (unsigned i = 0; i < thread_count_; ++i) {
    threads_[i].fiber = &fibers[i];
    threads_[i].index = {i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y};
    fibers[i].start(run_thread);
  }
  current_ = pick();
  thread_index = current_->index;
  host_.switch_to(*current_->fiber);
  const UntrackedMemory scope;
  shared_.clear();
}

void Engine::run_thread() {
  engine.current_->fiber->arrived();
  engine.launched_.acquire();
  (*engine.body_)();
  engine.exit_thread();
}

void Engine::exit_thread() {
  ended_.release();
  Warp& warp = warp_of(*current_);
  warp.runnable &= ~(1u << lane());
  warp.exited |= 1u << lane();
  ++exited_;
  // A collective waits for those of its lanes that have not exited.
  for_each_bit(warp.in_collective, [&](unsigned lane) {
    if (warp.in_collective >> lane & 1) try_collective(warp, threads_of(warp)[lane].request.mask);
  });
  if (exited_ == thread_count_) current_->fiber->switch_to(host_);
  yield();
  std::abort();  // nothing resumes a thread that has exited
}

Thread* Engine::pick() {
  uint32_t runnable = 0;
  for (unsigned w = 0; w < warp_count_; ++w) runnable |= uint32_t(warps_[w].runnable != 0) << w;
  if (!runnable) return nullptr;
  const Warp& warp = warps_[schedule_.choose(runnable)];
  return &threads_of(warp)[schedule_.choose(warp.runnable)];
}

// Lets the schedule decide who goes on.
void Engine::yield() {
  Thread* next = pick();
  if (!next) report_deadlock();
  if (next == current_) return;
  Fiber& from = *current_->fiber;
  current_ = next;
  thread_index = next->index;
  from.switch_to(*next->fiber);
}

uint64_t Engine::meet_block(const Request& request) {
  Thread& self = *current_;
  self.request = request;
  warp_of(self).runnable &= ~(1u << lane());
  if (++at_barrier_ == thread_count_) {
    const std::span threads(threads_.data(), thread_count_);
    uint64_t result = threads[0].request.value;
    for (const Thread& thread : threads.subspan(1)) {
      if (!thread.request.matches(threads[0].request)) report_deadlock();
      result = request.fold(result, thread.request.value);
    }
    for (Thread& thread : threads) thread.result = result;
    for (unsigned w = 0; w < warp_count_; ++w) warps_[w].runnable = warps_[w].exists;
    at_barrier_ = 0;
    order_memory([&](auto f) {
      for (const Thread& thread : threads) f(thread);
    });
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

void* Engine::shared(const void* key, size_t bytes) {
  for (const SharedArray& array : shared_) {
    if (array.key == key) return array.memory.get();
  }
  const UntrackedMemory scope;
  void* memory = nullptr;
  if (posix_memalign(&memory, 16, bytes) != 0) throw std::bad_alloc();
  std::memset(memory, 0xff, bytes);
  shared_.push_back({key, {memory, &std::free}});
  return memory;
}

void Engine::fail(const std::string& message) {
  std::ostringstream text;
  text << "block " << block_index << ", thread " << thread_index << ": " << message;
  failure_ = text.str();
  for (const Thread& thread : std::span(threads_.data(), thread_count_)) {
    thread.fiber->run_as();
    ended_.release();
  }
  current_->fiber->switch_to(host_);
  std::abort();  // nothing resumes a thread that has failed
}

void Engine::fail_at(const Request& request, const std::string& message) {
  std::ostringstream text;
  text << request.what << " at " << request.at << ": " << message;
  fail(text.str());
}

// Nobody can go on: says who waits where, lanes of a warp that wait for the same together.
void Engine::report_deadlock() {
  std::ostringstream text;
  text << "deadlock, or synchronisation that not all threads reach";
  for (unsigned w = 0; w < warp_count_; ++w) {
    const Warp& warp = warps_[w];
    const Thread* threads = threads_of(warp);
    for (uint32_t left = warp.exists; left;) {
      const unsigned lane = std::countr_zero(left);
      const bool exited = warp.exited >> lane & 1;
      uint32_t same = exited ? warp.exited : 0;
      if (!exited) {
        for_each_bit(left & ~warp.exited, [&](unsigned other) {
          if (threads[other].request.matches(threads[lane].request)) same |= 1u << other;
        });
      }
      text << "\n  warp " << w << ", lanes " << std::hex << same << ": ";
      const Request& request = threads[lane].request;
      if (exited) {
        text << "exited";
      } else {
        text << request.what << " at " << request.at;
        if (request.mask) text << " for lanes " << request.mask;
      }
      text << std::dec;
      left &= ~same;
    }
  }
  fail(text.str());
}

}  // namespace

void launch(dim3 grid, dim3 block, size_t dynamic_shared_bytes, const std::function<void()>& thread) {
  engine.launch(grid, block, dynamic_shared_bytes, thread);
}

void* static_shared(const void* key, size_t bytes) { return engine.shared(key, bytes); }
void* dynamic_shared() { return engine.dynamic_shared(); }

uint64_t meet_block(const char* what, uint64_t value, Fold fold, const Where& at) {
  return engine.meet_block({.what = what, .at = at, .value = value, .fold = fold});
}

uint64_t meet_warp(const char* what, unsigned mask, uint64_t value, Fold fold, Memory memory, const Where& at) {
  return engine.meet_warp({.what = what, .at = at, .value = value, .fold = fold, .mask = mask, .memory = memory});
}

uint64_t shuffle(const char* what, unsigned mask, uint64_t value, int source_lane, const Where& at) {
  return engine.meet_warp({.what = what, .at = at, .value = value, .mask = mask, .source_lane = source_lane});
}

unsigned lane() { return engine.lane(); }
void fence() { engine.fence(); }
void atomic_point() { engine.yield(); }

void fail(const char* message, const Where& at) {
  std::ostringstream text;
  text << message << " at " << at;
  engine.fail(text.str());
}

}  // namespace cuda_emu
