// Rows of classes in memory, and a tile of them in the cache: of the compute type, classes x rows, so that every class
// of a vector of rows is one load.
#pragma once

#include <algorithm>

#include "cpu/chunks.h"
#include "cpu/lanes.h"
#include "cpu/transpose.h"

namespace ce_ext::cpu {

// 32 KiB of floats: a tile never leaves the first two levels of cache. (Half of it was no faster.)
constexpr int64_t kTileElements = 8192;
// Enough adjacent rows to use whole cache lines of every class.
constexpr int64_t kMinTileRows = 64;

// Logits or gradients in memory, as rows x classes.
template <class S>
struct Matrix {
  S* data;
  const RowDims& dims;
  const RowStrides& rows;
  int64_t class_stride;

  S* row(int64_t r) const { return data + rows.offset(dims, r); }
};

// Asks for rows that will be read, or written, soon: for one line of the cache with every vector of a chunk.
template <class S>
class RowsAhead {
 public:
  RowsAhead(const Matrix<S>& m, int64_t first_row)
      : rows_(m.row(first_row)),
        row_stride_(run_stride(m.dims, m.rows)),
        // Where classes lie side by side so do the rows: then any order of their lines will do.
        class_stride_(m.class_stride == 1 ? kPerCacheLine<S> : m.class_stride) {}

  void prefetch(int64_t r, int64_t c) const { cpu::prefetch(rows_ + r * row_stride_ + c * class_stride_); }

 private:
  S* rows_;
  int64_t row_stride_, class_stride_;
};

template <class A>
class Tile {
  using V = Lanes<A>;

 public:
  explicit Tile(int64_t rows) : pitch_(V::round_up(rows)) {}

  int64_t max_classes() const { return kTileElements / pitch_; }
  A* operator[](int64_t c) { return values_ + c * pitch_; }

  // Brings logits into the tile, unless they are what it holds.
  template <class S>
  void load(const Matrix<const S>& m, const Chunk& chunk, int64_t first_class, int64_t classes) {
    if (first_class == first_class_ && classes == classes_) return;
    first_class_ = first_class;
    classes_ = classes;
    each_run(m, chunk, first_class, [&](A* cell, const S* p, int64_t row_stride, int64_t n) {
      if (row_stride == 1) {
        for (int64_t c = 0; c < classes; ++c) copy_run(cell + c * pitch_, 1, p + c * m.class_stride, 1, n);
      } else if (m.class_stride == 1) {
        load_transposed(cell, pitch_, p, row_stride, n, classes);
      } else {
        for (int64_t r = 0; r < n; ++r) copy_run(cell + r, pitch_, p + r * row_stride, m.class_stride, classes);
      }
    });
    // The rows that pad the last vector: any number will do, but not whatever the stack held.
    for (int64_t c = 0; c < classes; ++c) std::fill((*this)[c] + chunk.rows, (*this)[c + 1], A(0));
  }

  // Replaces x by f(x).
  template <class F>
  void apply(F f, int64_t classes) {
    classes_ = 0;
    for (A* p = values_; p < (*this)[classes]; p += V::kSize) f(V::load(p)).store(p);
  }

  // out[r] = what row r holds of class[r], if that is among the classes in the tile. Takes whole vectors of rows.
  void pick(const int64_t* row_class, int64_t rows, A* out) const {
    const int64_t pitch = pitch_, first_class = first_class_;
    const uint64_t classes = classes_;
    alignas(64) typename V::Int cell[kMaxChunkRows];
    alignas(64) A is_here[kMaxChunkRows];
    for (int64_t r = 0; r < V::round_up(rows); ++r) {
      const uint64_t c = row_class[r] - first_class;
      cell[r] = static_cast<typename V::Int>((c < classes ? c : 0) * pitch + r);
      is_here[r] = c < classes ? A(1) : A(0);
    }
    for (int64_t r = 0; r < rows; r += V::kSize) {
      where(V::load(is_here + r) == V(A(1)), V::gather(values_, cell + r), V::load(out + r)).store(out + r);
    }
  }

  // Takes what has been written over the logits to memory.
  template <class S>
  void store(const Matrix<S>& m, const Chunk& chunk, int64_t first_class, int64_t classes) {
    classes_ = 0;
    each_run(m, chunk, first_class, [&](A* cell, S* p, int64_t row_stride, int64_t n) {
      if (row_stride == 1) {
        for (int64_t c = 0; c < classes; ++c) copy_run(p + c * m.class_stride, 1, cell + c * pitch_, 1, n);
      } else if (m.class_stride == 1) {
        store_transposed(p, row_stride, cell, pitch_, n, classes);
      } else {
        for (int64_t r = 0; r < n; ++r) copy_run(p + r * row_stride, m.class_stride, cell + r, pitch_, classes);
      }
    });
  }

 private:
  // Calls f(place in the tile, place in memory, distance of rows there, rows) for each run of rows.
  template <class S, class F>
  void each_run(const Matrix<S>& m, const Chunk& chunk, int64_t first_class, F f) {
    for_each_run(m.dims, chunk.first, chunk.rows, [&](int64_t row, int64_t n) {
      S* p = m.row(row) + first_class * m.class_stride;
      f(values_ + (row - chunk.first), p, run_stride(m.dims, m.rows), n);
    });
  }

  // With room for the classes that fill the last block.
  alignas(64) A values_[kTileElements + kMaxChunkRows * V::kSize];
  const int64_t pitch_;  // rows, padded to whole vectors
  int64_t first_class_ = 0, classes_ = 0;
};

}  // namespace ce_ext::cpu
