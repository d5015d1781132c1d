// What is copied into the shared memory of a cluster beside its threads, and what they wait for it at: groups of
// cp.async, and mbarriers, on which bulk copies and stores to other blocks complete. The schedule says when a copy
// arrives: forward as late as can be, reverse at once. Until it is waited for, its destination is filled with 0xff, and
// AddressSanitizer lets nobody touch it.
//
// To ThreadSanitizer a cp.async is written by its thread, once when it starts and once when the thread has waited; what
// completes on an mbarrier is written by somebody who comes after the thread that started it, and before those who
// have waited there.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine.h"
#include "fiber.h"
#include "schedule.h"
#include "shared_memory.h"
#include "thread_sanitizer.h"

namespace cuda_emu {

// A thread of the cluster, by its number there.
struct Self {
  unsigned number;
  const Fiber& fiber;
};

struct Mbarrier {
  unsigned count, arrivals_left;
  int64_t bytes_left = 0;  // below 0 where they come before they are expected
  int64_t phase = 0;
  // Of this phase and of the last: what was done before it was over.
  std::shared_ptr<HappensBefore> in_phase{}, in_last_phase{};
  std::vector<unsigned> waiting{};
  // The last copy to arrive, in which phase that was, and the last phase that somebody has waited for.
  const char* copy = nullptr;
  Where copy_at{};
  int64_t copy_phase = -1, awaited_phase = -1;
};

class Copies {
 public:
  Copies(Schedule& schedule, std::function<void(unsigned)> wake) : schedule_(schedule), wake_(std::move(wake)) {}

  // For a cluster of so many threads, whatever the last one has left.
  void reset(unsigned threads);
  void check_thread_exit(Self self) const;
  void check_block_exit(const SharedMemory& shared);

  // Some that are under way arrive, as the schedule has it.
  void at_scheduling_point(Self self);
  // One that somebody may wait for; false if there is none.
  bool arrive_late(Self self);

  void copy_async(Self self, void* to, const void* from, size_t bytes, const Where& at);
  void commit(Self self);
  void wait_for_groups(Self self, size_t pending);

  void init_mbarrier(void* address, unsigned count, const Where& at);
  void arrive_at(void* address, size_t expected_bytes, const char* what, const Where& at);
  void copy_bulk(Self self, void* to, const void* from, size_t bytes, void* mbarrier, const Where& at);
  void store(Self self, void* to, const std::array<uint32_t, 4>& value, void* mbarrier, const Where& at);
  // Whether the phase of this parity is over; else the thread is woken when it is. Then it has waited.
  bool is_over(Self self, const void* address, unsigned parity, const Where& at);
  void has_waited(Self self, const void* address);
  std::string describe(const void* mbarrier) const;

 private:
  struct Copy {
    const char* what;
    Where at;
    char* to;
    size_t bytes;
    const void* from;   // null for `value`
    size_t from_bytes;  // zeros come behind
    const Fiber* thread;
    Mbarrier* mbarrier;  // null for cp.async
    std::array<uint32_t, 4> value{};
    size_t place = 0;  // in under_way_
    bool is_under_way = true;
    HappensBefore started{};
  };
  struct Wait {
    int64_t phase;
    std::shared_ptr<HappensBefore> in_phase;
  };
  using Group = std::vector<Copy*>;
  struct Groups {
    Group open;
    std::deque<Group> committed;
  };

  Copy* start(const Copy& copy);
  void arrive(Self self, Copy& copy);
  void move_bytes(const Copy& copy);
  void end(Copy& copy);
  Mbarrier& mbarrier_at(const void* address, const char* what, const Where& at);
  void advance(Mbarrier& mbarrier, const Where& at);

  Schedule& schedule_;
  std::function<void(unsigned)> wake_;
  std::map<const char*, Copy> pending_;  // by where they go
  std::vector<Copy*> under_way_;         // those of them whose bytes have not moved
  std::vector<Groups> groups_;           // of each thread
  std::vector<Wait> waits_;              // what each thread waits for, or has waited for
  std::map<const void*, Mbarrier> mbarriers_;
  HappensBefore moved_;  // all that completes on mbarriers, before the memory goes that a failure has left
};

}  // namespace cuda_emu
