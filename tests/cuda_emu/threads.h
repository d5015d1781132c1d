// Threads of a cluster, in warps, and what they wait for.
#pragma once

#include <bit>
#include <cstdint>
#include <ostream>
#include <string_view>

#include "engine.h"
#include "fiber.h"

namespace cuda_emu {

// Calls f with the number of every bit that is set.
template <class F>
void for_each_bit(uint32_t bits, F f) {
  for (; bits; bits &= bits - 1) f(std::countr_zero(bits));
}

inline std::ostream& operator<<(std::ostream& out, const uint3& i) {
  return out << '(' << i.x << ", " << i.y << ", " << i.z << ')';
}

inline std::ostream& operator<<(std::ostream& out, const Where& at) {
  return out << at.file_name() << ':' << at.line();
}

// What a thread waits for, and brings along.
struct Request {
  const char* what;
  Where at;
  uint64_t value = 0;
  Fold fold = nullptr;  // null for a shuffle
  uint32_t mask = 0;    // 0 for the whole block or cluster
  int source_lane = 0;
  Memory memory = Memory::kUnordered;
  const void* mbarrier = nullptr;  // `value` is the parity

  bool matches(const Request& other) const {
    return mask == other.mask && mbarrier == other.mbarrier && std::string_view(what) == other.what &&
           at.line() == other.at.line() && std::string_view(at.file_name()) == other.at.file_name();
  }
};

struct Thread {
  Fiber* fiber;
  uint3 index;
  Request request;
  uint64_t result;
};

// One bit a lane; a thread that is in none of the last three waits for the block, the cluster or an mbarrier.
struct Warp {
  uint32_t exists = 0, runnable = 0, in_collective = 0, exited = 0;
};

}  // namespace cuda_emu
