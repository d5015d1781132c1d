#include "copies.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "address_sanitizer.h"

namespace cuda_emu {

namespace {

// What the memory of an mbarrier holds, so that who writes over it is found out.
constexpr uint64_t kMbarrierBits = 0x6d62617272696572;
constexpr int64_t kMaxMbarrierCount = (1 << 20) - 1;

std::string place(const Where& at) { return std::string(at.file_name()) + ':' + std::to_string(at.line()); }

void check_aligned(const char* what, const void* address, const Where& at) {
  if (uintptr_t(address) % 16 != 0) fail(std::string(what) + " with an address that is not aligned to 16 bytes", at);
}

}  // namespace

void Copies::reset(unsigned threads) {
  for (auto& [to, copy] : pending_) allow(copy.to, copy.bytes);
  moved_.acquire();
  const UntrackedMemory scope;
  pending_.clear();
  under_way_.clear();
  groups_.assign(threads, {});
  waits_.assign(threads, {});
  mbarriers_.clear();
}

void Copies::check_thread_exit(Self self) const {
  const Groups& groups = groups_[self.number];
  const Copy* copy = groups.open.empty() ? nullptr : groups.open.front();
  for (const Group& group : groups.committed) {
    if (!group.empty()) copy = group.front();
  }
  if (copy) fail("the thread exits without waiting for its cp.async", copy->at);
}

void Copies::check_block_exit(const SharedMemory& shared) {
  for (const auto& [to, copy] : pending_) {
    if (shared.has(to, 1)) fail(std::string("the block exits before the arrival of its ") + copy.what, copy.at);
  }
  for (const auto& [address, mbarrier] : mbarriers_) {
    if (shared.has(address, 1) && mbarrier.copy_phase > mbarrier.awaited_phase) {
      fail(std::string("the block exits without waiting for its ") + mbarrier.copy, mbarrier.copy_at);
    }
  }
  const UntrackedMemory scope;
  std::erase_if(mbarriers_, [&](const auto& entry) { return shared.has(entry.first, 1); });
}

void Copies::at_scheduling_point(Self self) {
  while (!under_way_.empty() && schedule_.is_early()) arrive(self, *under_way_[schedule_.index(under_way_.size())]);
}

bool Copies::arrive_late(Self self) {
  if (under_way_.empty()) return false;
  arrive(self, *under_way_[schedule_.index(under_way_.size())]);
  return true;
}

void Copies::copy_async(Self self, void* to, const void* from, size_t bytes, const Where& at) {
  check_aligned("cp.async", to, at);
  check_aligned("cp.async", from, at);
  if (bytes > 16) fail("cp.async of more than 16 bytes", at);
  Copy* const copy = start({"cp.async", at, static_cast<char*>(to), 16, from, bytes, &self.fiber, nullptr});
  {
    const UntrackedMemory scope;
    groups_[self.number].open.push_back(copy);
  }
  at_scheduling_point(self);
}

void Copies::commit(Self self) {
  const UntrackedMemory scope;
  Groups& groups = groups_[self.number];
  groups.committed.push_back(std::move(groups.open));
  groups.open.clear();
}

void Copies::wait_for_groups(Self self, size_t pending) {
  Groups& groups = groups_[self.number];
  for (; groups.committed.size() > pending; groups.committed.pop_front()) {
    for (Copy* const copy : groups.committed.front()) {
      if (copy->is_under_way) arrive(self, *copy);
      note_write(copy->to, copy->bytes);
      end(*copy);
    }
  }
}

Copies::Copy* Copies::start(const Copy& copy) {
  const auto behind = pending_.lower_bound(copy.to);
  const auto fail_with = [&](const Copy& other) {
    fail(std::string(copy.what) + " to where the " + other.what + " of " + place(other.at) + " has yet to arrive",
         copy.at);
  };
  if (behind != pending_.end() && behind->first < copy.to + copy.bytes) fail_with(behind->second);
  if (behind != pending_.begin()) {
    const Copy& before = std::prev(behind)->second;
    if (before.to + before.bytes > copy.to) fail_with(before);
  }
  std::memset(copy.to, 0xff, copy.bytes);  // which the sanitizers see
  forbid(copy.to, copy.bytes);
  Copy* started;
  {
    const UntrackedMemory scope;
    started = &pending_.emplace(copy.to, copy).first->second;
    started->place = under_way_.size();
    under_way_.push_back(started);
  }
  started->started.release();
  return started;
}

// The bytes of the copy move; `self` is the thread that runs.
void Copies::arrive(Self self, Copy& copy) {
  under_way_[copy.place] = under_way_.back();
  under_way_[copy.place]->place = copy.place;
  under_way_.pop_back();
  copy.is_under_way = false;
  if (!std::all_of(copy.to, copy.to + copy.bytes, [](char byte) { return byte == char(0xff); })) {
    fail(std::string("a thread has written where there has yet to arrive the ") + copy.what, copy.at);
  }
  allow(copy.to, copy.bytes);
  if (!copy.mbarrier) {
    copy.thread->run_as();
    move_bytes(copy);
    self.fiber.run_as();
    return forbid(copy.to, copy.bytes);
  }
  Mbarrier& mbarrier = *copy.mbarrier;
  as_bystander([&] {
    copy.started.acquire();
    move_bytes(copy);
    mbarrier.in_phase->release();
    moved_.release();
  });
  mbarrier.copy = copy.what;
  mbarrier.copy_at = copy.at;
  mbarrier.copy_phase = mbarrier.phase;
  mbarrier.bytes_left -= copy.bytes;
  const Where at = copy.at;
  end(copy);
  advance(mbarrier, at);
}

// The sanitizers see what these functions of the C library read and write.
void Copies::move_bytes(const Copy& copy) {
  std::memcpy(copy.to, copy.from ? copy.from : copy.value.data(), copy.from_bytes);
  std::memset(copy.to + copy.from_bytes, 0, copy.bytes - copy.from_bytes);
}

void Copies::end(Copy& copy) {
  allow(copy.to, copy.bytes);
  const UntrackedMemory scope;
  pending_.erase(copy.to);
}

void Copies::init_mbarrier(void* address, unsigned count, const Where& at) {
  if (uintptr_t(address) % sizeof(kMbarrierBits) != 0) fail("mbarrier.init of an address that is not aligned", at);
  if (count == 0 || count > kMaxMbarrierCount) fail("mbarrier.init with a count that is not in 1 .. 2^20 - 1", at);
  if (mbarriers_.contains(address)) fail("mbarrier.init of an mbarrier that is in use", at);
  std::memcpy(address, &kMbarrierBits, sizeof(kMbarrierBits));
  note_write(address, sizeof(kMbarrierBits));
  const UntrackedMemory scope;
  mbarriers_[address] = {.count = count, .arrivals_left = count, .in_phase = std::make_shared<HappensBefore>()};
}

void Copies::arrive_at(void* address, size_t expected_bytes, const char* what, const Where& at) {
  Mbarrier& mbarrier = mbarrier_at(address, what, at);
  if (mbarrier.arrivals_left == 0) {
    fail("more arrivals than the " + std::to_string(mbarrier.count) + " that the mbarrier was initialised with", at);
  }
  mbarrier.in_phase->release();
  --mbarrier.arrivals_left;
  mbarrier.bytes_left += expected_bytes;
  advance(mbarrier, at);
}

void Copies::copy_bulk(Self self, void* to, const void* from, size_t bytes, void* mbarrier, const Where& at) {
  constexpr const char* kWhat = "cp.async.bulk";
  check_aligned(kWhat, to, at);
  check_aligned(kWhat, from, at);
  if (bytes == 0 || bytes % 16 != 0) fail("cp.async.bulk of bytes that are no multiple of 16", at);
  start({kWhat, at, static_cast<char*>(to), bytes, from, bytes, &self.fiber, &mbarrier_at(mbarrier, kWhat, at)});
  at_scheduling_point(self);
}

void Copies::store(Self self, void* to, const std::array<uint32_t, 4>& value, void* mbarrier, const Where& at) {
  constexpr const char* kWhat = "st.async";
  check_aligned(kWhat, to, at);
  start({kWhat, at, static_cast<char*>(to), 16, nullptr, 16, &self.fiber, &mbarrier_at(mbarrier, kWhat, at), value});
  at_scheduling_point(self);
}

bool Copies::is_over(Self self, const void* address, unsigned parity, const Where& at) {
  if (parity > 1) fail("an mbarrier's parity is 0 or 1", at);
  Mbarrier& mbarrier = mbarrier_at(address, "mbarrier.try_wait", at);
  const bool is_over = mbarrier.phase % 2 != parity;
  const UntrackedMemory scope;
  waits_[self.number] = {is_over ? mbarrier.phase - 1 : mbarrier.phase,
                         is_over ? mbarrier.in_last_phase : mbarrier.in_phase};
  if (!is_over) mbarrier.waiting.push_back(self.number);
  return is_over;
}

void Copies::has_waited(Self self, const void* address) {
  const Wait& wait = waits_[self.number];
  Mbarrier& mbarrier = mbarriers_.at(address);
  mbarrier.awaited_phase = std::max(mbarrier.awaited_phase, wait.phase);
  if (wait.in_phase) wait.in_phase->acquire();
}

std::string Copies::describe(const void* address) const {
  const Mbarrier& mbarrier = mbarriers_.at(address);
  return " of an mbarrier that is in a phase of parity " + std::to_string(mbarrier.phase % 2) + " and waits for " +
         std::to_string(mbarrier.arrivals_left) + " of " + std::to_string(mbarrier.count) + " arrivals and " +
         std::to_string(mbarrier.bytes_left) + " bytes";
}

Mbarrier& Copies::mbarrier_at(const void* address, const char* what, const Where& at) {
  const auto found = mbarriers_.find(address);
  if (found == mbarriers_.end()) fail(std::string(what) + " with what is no mbarrier, or not initialised yet", at);
  if (std::memcmp(address, &kMbarrierBits, sizeof(kMbarrierBits)) != 0) {
    fail(std::string(what) + " with an mbarrier that something else was written over", at);
  }
  note_read(address, sizeof(kMbarrierBits));
  return found->second;
}

// Ends the phase if all have come.
void Copies::advance(Mbarrier& mbarrier, const Where& at) {
  if (std::abs(mbarrier.bytes_left) > kMaxMbarrierCount) fail("more bytes than an mbarrier can count", at);
  if (mbarrier.arrivals_left > 0) return;
  if (mbarrier.bytes_left < 0) fail("more bytes come to an mbarrier than all its arrivals expect", at);
  if (mbarrier.bytes_left > 0) return;
  ++mbarrier.phase;
  mbarrier.arrivals_left = mbarrier.count;
  {
    const UntrackedMemory scope;
    mbarrier.in_last_phase = std::move(mbarrier.in_phase);
    mbarrier.in_phase = std::make_shared<HappensBefore>();
  }
  for (const unsigned thread : mbarrier.waiting) wake_(thread);
  mbarrier.waiting.clear();
}

}  // namespace cuda_emu
