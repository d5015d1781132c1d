// Softmax over rows that are short or whose classes lie apart: the lanes are rows. A chunk of rows is brought into
// a tile of the compute type, classes x rows, one block of classes after another; there every class is one load.
#pragma once

#include <algorithm>

#include "cpu/chunks.h"
#include "cpu/lanes.h"
#include "losses/logits.h"
#include "losses/softmax.h"

namespace ce_ext::cpu {

// 32 KiB of floats: a tile never leaves the first two levels of cache. (Half of it was no faster.)
constexpr int64_t kTileElements = 8192;
// Enough adjacent rows to use whole cache lines of every class.
constexpr int64_t kMinTileRows = 64;

constexpr int64_t kNoTarget = -1;

// Calls f(begin, end) for classes that are added up in one sum.
template <class F>
void for_each_part(int64_t classes, F f) {
  for (int64_t begin = 0; begin < classes; begin += kClassesPerSum) f(begin, std::min(begin + kClassesPerSum, classes));
}

template <class V, class F>
V sum_in_parts(int64_t classes, F term) {
  V sum;
  for_each_part(classes, [&](int64_t begin, int64_t end) {
    V part;
    for (int64_t c = begin; c < end; ++c) part = part + term(c);
    sum = sum + part;
  });
  return sum;
}

// SoftmaxSums of every row of a chunk.
template <class A, Gaps kGaps, bool kEntropy>
struct ChunkSums {
  alignas(64) A max[kMaxChunkRows];
  alignas(64) A ties[kMaxChunkRows];
  alignas(64) A exp_sum[kMaxChunkRows];
  alignas(64) A gap_sum[kMaxChunkRows];
  alignas(64) A weight_sum[kMaxChunkRows];
  alignas(64) A tie_weight[kMaxChunkRows];
  alignas(64) A entropy_sum[kMaxChunkRows];

  template <class T>
  SoftmaxSums<T, kGaps, kEntropy> get(int64_t r) const {
    return {read<T>(max + r),        read<T>(ties + r),       read<T>(exp_sum + r),    read<T>(gap_sum + r),
            read<T>(weight_sum + r), read<T>(tie_weight + r), read<T>(entropy_sum + r)};
  }
  template <class T>
  void set(int64_t r, const SoftmaxSums<T, kGaps, kEntropy>& row) {
    write(max + r, row.max);
    write(ties + r, row.ties);
    write(exp_sum + r, row.exp_sum);
    write(gap_sum + r, row.gap_sum);
    write(weight_sum + r, row.weight_sum);
    write(tie_weight + r, row.tie_weight);
    write(entropy_sum + r, row.entropy_sum);
  }
};

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
        class_stride_(m.class_stride == 1 ? kLine : m.class_stride) {}

  void prefetch(int64_t r, int64_t c) const { cpu::prefetch(rows_ + r * row_stride_ + c * class_stride_); }

 private:
  static constexpr int64_t kLine = 64 / sizeof(S);

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
        for (int64_t c = 0; c < classes; ++c) copy(cell + c * pitch_, p + c * m.class_stride, n);
      } else if (m.class_stride == 1) {
        load_transposed(cell, p, row_stride, n, classes);
      } else {
        copy_each(cell, 1, pitch_, p, row_stride, m.class_stride, n, classes);
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

  // out[r] = what row r holds of class[r], if that is among the classes in the tile.
  void pick(const int64_t* row_class, int64_t rows, A* out) const {
    const A* cells = values_;
    const int64_t pitch = pitch_, first_class = first_class_;
    const uint64_t classes = classes_;
    for (int64_t r = 0; r < rows; ++r) {
      const uint64_t c = row_class[r] - first_class;
      const bool is_here = c < classes;
      const A value = cells[(is_here ? c : 0) * pitch + r];
      out[r] = is_here ? value : out[r];
    }
  }

  // Takes what has been written over the logits to memory.
  template <class S>
  void store(const Matrix<S>& m, const Chunk& chunk, int64_t first_class, int64_t classes) {
    classes_ = 0;
    each_run(m, chunk, first_class, [&](A* cell, S* p, int64_t row_stride, int64_t n) {
      if (row_stride == 1) {
        for (int64_t c = 0; c < classes; ++c) copy(p + c * m.class_stride, cell + c * pitch_, n);
      } else if (m.class_stride == 1) {
        store_transposed(p, row_stride, cell, n, classes);
      } else {
        copy_each(p, row_stride, m.class_stride, cell, 1, pitch_, n, classes);
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

  template <class To, class From>
  static void copy(To* to, const From* from, int64_t n) {
    int64_t i = 0;
    for (; i + V::kSize <= n; i += V::kSize) V::load(from + i).store(to + i);
    for (; i < n; ++i) to[i] = static_cast<To>(from[i]);
  }

  template <class To, class From>
  static void copy_each(To* to, int64_t to_row, int64_t to_class, const From* from, int64_t from_row,
                        int64_t from_class, int64_t rows, int64_t classes) {
    for (int64_t r = 0; r < rows; ++r, to += to_row, from += from_row) {
      for (int64_t c = 0; c < classes; ++c) to[c * to_class] = static_cast<To>(from[c * from_class]);
    }
  }

  // From and to rows of contiguous classes, in square blocks that are transposed in registers. Whole vectors are read
  // wherever the run has room for them. They are written where rows follow each other without a gap: what is too much
  // of one is overwritten by the block that it belongs to.
  template <class S>
  void load_transposed(A* cell, const S* p, int64_t row_stride, int64_t rows, int64_t classes) {
    const S* end = p + (rows - 1) * row_stride + classes;
    for (int64_t r = 0; r < rows; r += V::kSize) {
      for (int64_t c = 0; c < classes; c += V::kSize) {
        const int64_t m = std::min<int64_t>(V::kSize, rows - r), n = std::min<int64_t>(V::kSize, classes - c);
        const S* x = p + r * row_stride + c;
        const bool is_whole = m == V::kSize && x + (m - 1) * row_stride + V::kSize <= end;
        const auto load = is_whole ? load_block<true, S> : load_block<false, S>;
        load(cell + c * pitch_ + r, pitch_, x, row_stride, m, n);
      }
    }
  }
  template <class S>
  void store_transposed(S* p, int64_t row_stride, const A* cell, int64_t rows, int64_t classes) {
    const S* end = p + (rows - 1) * row_stride + classes;
    for (int64_t r = 0; r < rows; r += V::kSize) {
      for (int64_t c = (classes - 1) / V::kSize * V::kSize; c >= 0; c -= V::kSize) {
        const int64_t m = std::min<int64_t>(V::kSize, rows - r), n = std::min<int64_t>(V::kSize, classes - c);
        S* x = p + r * row_stride + c;
        const bool has_room = row_stride == classes && x + (m - 1) * row_stride + V::kSize <= end;
        const bool is_whole = m == V::kSize && (n == V::kSize || has_room);
        const auto store = is_whole ? store_block<true, S> : store_block<false, S>;
        store(x, row_stride, cell + c * pitch_ + r, pitch_, m, n);
      }
    }
  }

  template <bool kWhole, class S>
  static void load_block(A* to, int64_t pitch, const S* x, int64_t row_stride, int64_t rows, int64_t classes) {
    V block[V::kSize];
    unroll<V::kSize>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE {
      block[i] = kWhole ? V::load(x + i * row_stride)
                        : V::load(x + std::min<int64_t>(i, rows - 1) * row_stride, classes, A(0));
    });
    transpose(block);
    unroll<V::kSize>([&](auto i)
                         C10_ALWAYS_INLINE_ATTRIBUTE { block[i].store(to + i * pitch, kWhole ? V::kSize : rows); });
  }
  template <bool kWhole, class S>
  static void store_block(S* x, int64_t row_stride, const A* from, int64_t pitch, int64_t rows, int64_t classes) {
    V block[V::kSize];
    unroll<V::kSize>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE { block[i] = V::load(from + i * pitch); });
    transpose(block);
    unroll<V::kSize>([&](auto i) C10_ALWAYS_INLINE_ATTRIBUTE {
      if (kWhole || i < rows) block[i].store(x + i * row_stride, kWhole ? V::kSize : classes);
    });
  }

  // With room for the classes that fill the last block.
  alignas(64) A values_[kTileElements + kMaxChunkRows * V::kSize];
  const int64_t pitch_;  // rows, padded to whole vectors
  int64_t first_class_ = 0, classes_ = 0;
};

// What the classes of a chunk's rows weigh: after load(begin, n), weights(c, r) is what class begin + c < begin + n
// does in the rows from r on.
template <class A>
class WeightsByRow {
 public:
  // `weight` may be null, for ones.
  explicit WeightsByRow(const A* weight) : weight_(weight) {}

  void load(int64_t begin, int64_t) { block_ = weight_ ? weight_ + begin : nullptr; }
  Lanes<A> operator()(int64_t c, int64_t) const { return block_ ? block_[c] : A(1); }

 private:
  const A* weight_;
  const A* block_ = nullptr;
};

// What else than sums is looked for in the rows of a chunk. Either may be null.
template <class A>
struct WantedLogits {
  int64_t* argmax;        // out: the largest class of every row
  const int64_t* target;  // whose logits become z_target; 0 where there is none
  A* z_target;
};

// The sums of every row of a chunk. `weights` matter for the gaps only.
template <class A, class S, Gaps kGaps, bool kEntropy, bool kLogitsChange, class Weights>
void softmax_sums(Tile<A>& tile, const Matrix<const S>& matrix, const Logits<Lanes<A>, kLogitsChange>& logits,
                  const Chunk& chunk, int64_t classes, Weights& weights, ChunkSums<A, kGaps, kEntropy>& sums,
                  const WantedLogits<A>& wanted) {
  using V = Lanes<A>;
  const RowsAhead<const S> next(matrix, chunk.first + chunk.rows);
  for (int64_t r = 0; r < chunk.rows; r += V::kSize) sums.set(r, SoftmaxSums<V, kGaps, kEntropy>());
  if (wanted.argmax) std::fill(wanted.argmax, wanted.argmax + chunk.rows, 0);
  if (wanted.target) std::fill(wanted.z_target, wanted.z_target + V::round_up(chunk.rows), A(0));
  for (int64_t begin = 0; begin < classes; begin += tile.max_classes()) {
    const int64_t n = std::min(tile.max_classes(), classes - begin);
    tile.load(matrix, chunk, begin, n);
    if (wanted.target) tile.pick(wanted.target, chunk.rows, wanted.z_target);
    if constexpr (kLogitsChange) tile.apply(logits, n);
    if constexpr (kGaps != Gaps::kNone) weights.load(begin, n);
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      auto row = sums.template get<V>(r);
      const V max_before = row.max;
      V max = row.max;
      for (int64_t c = 0; c < n; ++c) max = maximum(max, V::load(tile[c] + r));
      row.raise_max(max);
      for_each_part(n, [&](int64_t first, int64_t last) {
        SoftmaxSums<V, kGaps, kEntropy> part;
        part.max = max;
        for (int64_t c = first; c < last; ++c) {
          part.add_below(V::load(tile[c] + r));
          next.prefetch(r, begin + c);
        }
        if constexpr (kGaps != Gaps::kNone) {
          for (int64_t c = first; c < last; ++c) part.add_gap(V::load(tile[c] + r), weights(c, r));
        }
        row.add_sums(part);
      });
      sums.set(r, row);
      if (wanted.argmax) {
        V first(A(-1));  // where the maximum is in this tile, if it is above those before
        for (int64_t c = n - 1; c >= 0; --c) first = where(V::load(tile[c] + r) == max, V(A(c)), first);
        A places[V::kSize];
        where(max_before < max, first, V(A(-1))).store(places);
        for (int64_t i = r; i < std::min<int64_t>(r + V::kSize, chunk.rows); ++i) {
          if (places[i - r] >= 0) wanted.argmax[i] = begin + int64_t(places[i - r]);
        }
      }
    }
  }
}

// The gradient of every class of every row of a chunk, that of the targets given; zeros for rows without a target.
template <class A, class S, class Gradients>
void write_gradient(Tile<A>& tile, const Matrix<const S>& logits, const Matrix<S>& grad, const Chunk& chunk,
                    int64_t classes, const int64_t* target, const A* grad_target, WeightsByRow<A> weights,
                    const Gradients& gradients) {
  using V = Lanes<A>;
  const RowsAhead<const S> next(logits, chunk.first + chunk.rows);
  const RowsAhead<S> results(grad, chunk.first);
  for (int64_t begin = 0; begin < classes; begin += tile.max_classes()) {
    const int64_t n = std::min(tile.max_classes(), classes - begin);
    tile.load(logits, chunk, begin, n);
    weights.load(begin, n);
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      const auto row = gradients.template get<V>(r);
      for (int64_t c = 0; c < n; ++c) {
        row.at(V::load(tile[c] + r), weights(c, r)).store(tile[c] + r);
        next.prefetch(r, begin + c);
        results.prefetch(r, begin + c);
      }
    }
    for (int64_t r = 0; r < chunk.rows; ++r) {
      if (target[r] == kNoTarget) {
        for (int64_t c = 0; c < n; ++c) tile[c][r] = A(0);
      } else if (target[r] >= begin && target[r] < begin + n) {
        tile[target[r] - begin][r] = grad_target[r];
      }
    }
    tile.store(grad, chunk, begin, n);
  }
}

}  // namespace ce_ext::cpu
