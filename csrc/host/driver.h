#pragma once

#include <cstdint>

namespace ce_ext {

// What a backend does with a checked problem. It returns the first row whose target is out of bounds, or kNoBadRow.
template <class Problem>
using Driver = int64_t (*)(const Problem&);

constexpr int64_t kNoBadRow = -1;

}  // namespace ce_ext
