// What to say of threads that wait for ever.
#pragma once

#include <string>

#include "copies.h"
#include "threads.h"

namespace cuda_emu {

// Who of a warp waits where, a line for each group of lanes that wait for the same.
inline void describe_waiting(std::ostream& text, const std::string& name, const Warp& warp, const Thread* threads,
                             const Copies& copies) {
  for (uint32_t left = warp.exists & ~warp.runnable; left;) {
    const unsigned lane = std::countr_zero(left);
    const bool exited = warp.exited >> lane & 1;
    uint32_t same = exited ? warp.exited : 0;
    if (!exited) {
      for_each_bit(left & ~warp.exited, [&](unsigned other) {
        if (threads[other].request.matches(threads[lane].request)) same |= 1u << other;
      });
    }
    text << "\n  " << name << ", lanes " << std::hex << same << std::dec << ": ";
    const Request& request = threads[lane].request;
    if (exited) {
      text << "exited";
    } else {
      text << request.what << " at " << request.at;
      if (request.mask) text << " for lanes " << std::hex << request.mask << std::dec;
      if (request.mbarrier) text << " for parity " << request.value << copies.describe(request.mbarrier);
    }
    left &= ~same;
  }
}

}  // namespace cuda_emu
