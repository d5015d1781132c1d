// How a device tells the host of a target out of bounds, without either waiting for the other.
#pragma once

#include <cstdint>

namespace ce_ext::cuda {

// The record of a device, in memory of the host that the device writes to: the first such target since the record was
// free. Aligned so that no two devices write to one line.
struct alignas(128) BadTarget {
  enum State : unsigned { kFree, kClaimed, kReported };

  unsigned state;
  int64_t row, value, classes;
};

// If the device has reported a target, frees the record and raises IndexError.
void check_bad_target(BadTarget& record, int device);

}  // namespace ce_ext::cuda
