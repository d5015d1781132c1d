// How the rows of a problem are worked on: whether lanes are the classes of one row (softmax_by_class.h) or rows
// (softmax_by_row.h), and what threads share. It follows from shape and strides alone, and so do all sums.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "cpu/chunks.h"
#include "cpu/lanes.h"
#include "cpu/tile.h"

namespace ce_ext::cpu {

// Contiguous rows of this many vectors are worked on one by one. (Fewer are faster as lanes, though they have to be
// transposed: what a row needs besides its classes is then done for many rows at once.)
constexpr int64_t kMinVectorsOfClasses = 10;

// Fewer rows than these, of more classes than in a piece, are shared by threads piece by piece.
constexpr int64_t kFewRows = 16;
constexpr int64_t kClassesPerPiece = 32768;

struct RowPlan {
  bool classes_as_lanes;
  Chunks chunks;
  Pieces pieces;  // of the classes of each row

  template <class A>
  static RowPlan make(int64_t rows, int64_t groups, int64_t classes, std::initializer_list<int64_t> class_strides) {
    const auto contiguous = [](int64_t stride) { return stride == 1; };
    const bool as_lanes = classes >= kMinVectorsOfClasses * Lanes<A>::kSize &&
                          std::all_of(class_strides.begin(), class_strides.end(), contiguous);
    const Pieces pieces(classes, as_lanes && rows < kFewRows ? kClassesPerPiece : classes);
    Chunks chunks(rows, groups, chunk_rows(classes, as_lanes), classes);
    if (pieces.count > 1) chunks.per_task = chunks.count;
    return {as_lanes, chunks, pieces};
  }

 private:
  static int64_t chunk_rows(int64_t classes, bool classes_as_lanes) {
    const int64_t rows = kChunkElements / std::max<int64_t>(classes, 1);
    if (classes_as_lanes) return std::clamp<int64_t>(rows, 1, kMaxChunkRows);
    return std::clamp<int64_t>(rows / kMinTileRows * kMinTileRows, kMinTileRows, kMaxChunkRows);
  }
};

}  // namespace ce_ext::cpu
