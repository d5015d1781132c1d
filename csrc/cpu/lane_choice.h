// Whether lanes are the classes of one row (softmax_by_class.h) or rows (softmax_by_row.h), and what follows from it.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "cpu/chunks.h"
#include "cpu/softmax_by_row.h"

namespace ce_ext::cpu {

// Contiguous rows of this many vectors are worked on one by one. (Fewer are faster as lanes, though they have to be
// transposed: what a row needs besides its classes is then done for many rows at once.)
constexpr int64_t kMinVectorsOfClasses = 10;

// `class_strides` of all the tensors that are walked through together.
template <class A>
bool classes_as_lanes(int64_t classes, std::initializer_list<int64_t> class_strides) {
  const auto contiguous = [](int64_t stride) { return stride == 1; };
  return classes >= kMinVectorsOfClasses * Lanes<A>::kSize && std::all_of(class_strides.begin(), class_strides.end(), contiguous);
}

inline int64_t chunk_rows(int64_t classes, bool classes_as_lanes) {
  const int64_t rows = kChunkElements / std::max<int64_t>(classes, 1);
  if (classes_as_lanes) return std::clamp<int64_t>(rows, 1, kMaxChunkRows);
  return std::clamp<int64_t>(rows / kMinTileRows * kMinTileRows, kMinTileRows, kMaxChunkRows);
}

}  // namespace ce_ext::cpu
