#include "cpu/tile.h"

#include "cpu/transpose.h"

namespace ce_ext::cpu {

template <class A>
template <class Stored, class F>
void Tile<A>::each_run(const Stored& matrix, const Chunk& chunk, int64_t first_class, F f) {
  matrix.visit([&](const auto& m) {
    for_each_run(m.dims, chunk.first, chunk.rows, [&](int64_t row, int64_t n) {
      auto* p = m.row(row) + first_class * m.class_stride;
      f(values_ + (row - chunk.first), p, run_stride(m.dims, m.rows), n);
    });
  });
}

template <class A>
void Tile<A>::load(const StoredMatrix<const A>& matrix, const Chunk& chunk, int64_t first_class, int64_t classes) {
  if (first_class == first_class_ && classes == classes_) return;
  first_class_ = first_class;
  classes_ = classes;
  each_run(matrix, chunk, first_class, [&](A* cell, const auto* p, int64_t row_stride, int64_t n) {
    if (row_stride == 1) {
      for (int64_t c = 0; c < classes; ++c) copy_run(cell + c * pitch_, 1, p + c * matrix.class_stride, 1, n);
    } else if (matrix.class_stride == 1) {
      load_transposed(cell, pitch_, p, row_stride, n, classes);
    } else {
      for (int64_t r = 0; r < n; ++r) copy_run(cell + r, pitch_, p + r * row_stride, matrix.class_stride, classes);
    }
  });
  // The rows that pad the last vector: any number will do, but not whatever the stack held.
  for (int64_t c = 0; c < classes; ++c) std::fill((*this)[c] + chunk.rows, (*this)[c + 1], A(0));
}

template <class A>
void Tile<A>::pick(const int64_t* row_class, int64_t rows, A* out) const {
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

template <class A>
void Tile<A>::store(const StoredMatrix<A>& matrix, const Chunk& chunk, int64_t first_class, int64_t classes) {
  classes_ = 0;
  each_run(matrix, chunk, first_class, [&](A* cell, auto* p, int64_t row_stride, int64_t n) {
    if (row_stride == 1) {
      for (int64_t c = 0; c < classes; ++c) copy_run(p + c * matrix.class_stride, 1, cell + c * pitch_, 1, n);
    } else if (matrix.class_stride == 1) {
      store_transposed(p, row_stride, cell, pitch_, n, classes);
    } else {
      for (int64_t r = 0; r < n; ++r) copy_run(p + r * row_stride, matrix.class_stride, cell + r, pitch_, classes);
    }
  });
}

template class Tile<float>;
template class Tile<double>;

}  // namespace ce_ext::cpu
