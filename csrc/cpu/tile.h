// Rows of classes in memory, and a tile of them in the cache: of the compute type, classes x rows, so that every class
// of a vector of rows is one load.
#pragma once

#include <algorithm>

#include "cpu/chunks.h"
#include "cpu/dtypes.h"
#include "cpu/lanes.h"

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

// A Matrix of whatever type is computed in A; const A, where it is read only.
template <class A>
struct StoredMatrix {
  template <class S>
  using Like = std::conditional_t<std::is_const_v<A>, const S, S>;  // as const as A

  DType dtype;
  Like<void>* data;
  const RowDims& dims;
  const RowStrides& rows;
  int64_t class_stride;

  template <class S>
  Matrix<Like<S>> as() const {
    return {static_cast<Like<S>*>(data), dims, rows, class_stride};
  }

  // Calls f with it as what it is.
  template <class F>
  void visit(F f) const {
    dispatch_stored<std::remove_const_t<A>>(dtype, [&](auto s) { f(as<decltype(s)>()); });
  }

  Like<char>* row(int64_t r) const { return static_cast<Like<char>*>(data) + rows.offset(dims, r) * size_of(dtype); }
};

// Asks for rows that will be read, or written, soon: for one line of the cache with every vector of a chunk.
template <class A>
class RowsAhead {
 public:
  RowsAhead(const StoredMatrix<A>& m, int64_t first_row)
      : rows_(m.row(first_row)),
        row_bytes_(run_stride(m.dims, m.rows) * size_of(m.dtype)),
        // Where classes lie side by side so do the rows: then any order of their lines will do.
        class_bytes_(m.class_stride == 1 ? kCacheLine : m.class_stride * size_of(m.dtype)) {}

  C10_ALWAYS_INLINE void prefetch(int64_t r, int64_t c) const {
    cpu::prefetch(rows_ + r * row_bytes_ + c * class_bytes_);
  }

 private:
  typename StoredMatrix<A>::template Like<char>* rows_;
  int64_t row_bytes_, class_bytes_;
};

// (tile.cpp has what is compiled once for all losses, for floats and doubles.)
template <class A>
class Tile {
  using V = Lanes<A>;

 public:
  explicit Tile(int64_t rows) : pitch_(V::round_up(rows)) {}

  int64_t max_classes() const { return kTileElements / pitch_; }
  A* operator[](int64_t c) { return values_ + c * pitch_; }

  // Brings logits into the tile, unless they are what it holds.
  void load(const StoredMatrix<const A>& matrix, const Chunk& chunk, int64_t first_class, int64_t classes);

  // Replaces x by f(x).
  template <class F>
  void apply(F f, int64_t classes) {
    classes_ = 0;
    for (A* p = values_; p < (*this)[classes]; p += V::kSize) f(V::load(p)).store(p);
  }

  // out[r] = what row r holds of class[r], if that is among the classes in the tile. Takes whole vectors of rows.
  void pick(const int64_t* row_class, int64_t rows, A* out) const;

  // Takes what has been written over the logits to memory.
  void store(const StoredMatrix<A>& matrix, const Chunk& chunk, int64_t first_class, int64_t classes);

 private:
  // Calls f(place in the tile, place in memory, distance of rows there, rows) for each run of rows.
  template <class Stored, class F>
  void each_run(const Stored& matrix, const Chunk& chunk, int64_t first_class, F f);

  // With room for the classes that fill the last block.
  alignas(64) A values_[kTileElements + kMaxChunkRows * V::kSize];
  const int64_t pitch_;  // rows, padded to whole vectors
  int64_t first_class_ = 0, classes_ = 0;
};

}  // namespace ce_ext::cpu
