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

template <class A>
class Tile {
 public:
  explicit Tile(int64_t rows) : pitch_(Lanes<A>::round_up(rows)) {}

  int64_t max_classes() const { return kTileElements / pitch_; }
  A* operator[](int64_t c) { return values_ + c * pitch_; }

  template <class S>
  void load(const Matrix<const S>& m, const Chunk& chunk, int64_t first_class, int64_t classes) {
    each_run(m, chunk, first_class, [&](A* cell, const S* p, int64_t row_stride, int64_t n) {
      copy(cell, 1, pitch_, p, row_stride, m.class_stride, n, classes);
    });
    // The rows that pad the last vector: any number will do, but not whatever the stack held.
    for (int64_t c = 0; c < classes; ++c) std::fill((*this)[c] + chunk.rows, (*this)[c + 1], A(0));
  }

  // Replaces x by f(x).
  template <class F>
  void apply(F f, int64_t classes) {
    for (A* p = values_; p < (*this)[classes]; p += Lanes<A>::kSize) f(Lanes<A>::load(p)).store(p);
  }

  template <class S>
  void store(const Matrix<S>& m, const Chunk& chunk, int64_t first_class, int64_t classes) {
    each_run(m, chunk, first_class, [&](A* cell, S* p, int64_t row_stride, int64_t n) {
      copy(p, row_stride, m.class_stride, cell, 1, pitch_, n, classes);
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

  // to = from, rows x classes, each with a stride for its rows and one for its classes. Where memory is not contiguous
  // along the rows it mostly is along the classes. (Transposing blocks in registers was no faster.)
  template <class To, class From>
  static void copy(To* to, int64_t to_row, int64_t to_class, const From* from, int64_t from_row, int64_t from_class,
                   int64_t rows, int64_t classes) {
    if (to_row == 1 && from_row == 1) {
      for (int64_t c = 0; c < classes; ++c, to += to_class, from += from_class) {
        int64_t r = 0;
        for (; r + Lanes<A>::kSize <= rows; r += Lanes<A>::kSize) Lanes<A>::load(from + r).store(to + r);
        for (; r < rows; ++r) to[r] = static_cast<To>(from[r]);
      }
    } else {
      for (int64_t r = 0; r < rows; ++r, to += to_row, from += from_row) {
        for (int64_t c = 0; c < classes; ++c) to[c * to_class] = static_cast<To>(from[c * from_class]);
      }
    }
  }

  alignas(64) A values_[kTileElements];
  const int64_t pitch_;  // rows, padded to whole vectors
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

// The sums of every row of a chunk, and where `argmax` is not null its largest class. `weights` matter for the gaps
// only.
template <class A, class S, Gaps kGaps, bool kEntropy, bool kLogitsChange, class Weights>
void softmax_sums(const Matrix<const S>& matrix, const Logits<Lanes<A>, kLogitsChange>& logits, const Chunk& chunk,
                  int64_t classes, Weights& weights, ChunkSums<A, kGaps, kEntropy>& sums, int64_t* argmax) {
  using V = Lanes<A>;
  Tile<A> tile(chunk.rows);
  for (int64_t r = 0; r < chunk.rows; r += V::kSize) sums.set(r, SoftmaxSums<V, kGaps, kEntropy>());
  if (argmax) std::fill(argmax, argmax + chunk.rows, 0);
  for (int64_t begin = 0; begin < classes; begin += tile.max_classes()) {
    const int64_t n = std::min(tile.max_classes(), classes - begin);
    tile.load(matrix, chunk, begin, n);
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
        for (int64_t c = first; c < last; ++c) part.add_below(V::load(tile[c] + r));
        if constexpr (kGaps != Gaps::kNone) {
          for (int64_t c = first; c < last; ++c) part.add_gap(V::load(tile[c] + r), weights(c, r));
        }
        row.add_sums(part);
      });
      sums.set(r, row);
      if (argmax) {
        V first(A(-1));  // where the maximum is in this tile, if it is above those before
        for (int64_t c = n - 1; c >= 0; --c) first = where(V::load(tile[c] + r) == max, V(A(c)), first);
        A places[V::kSize];
        where(max_before < max, first, V(A(-1))).store(places);
        for (int64_t i = r; i < std::min<int64_t>(r + V::kSize, chunk.rows); ++i) {
          if (places[i - r] >= 0) argmax[i] = begin + int64_t(places[i - r]);
        }
      }
    }
  }
}

// The gradient of every class of every row of a chunk, that of the targets given; zeros for rows without a target.
template <class A, class S, class Gradients>
void write_gradient(const Matrix<const S>& logits, const Matrix<S>& grad, const Chunk& chunk, int64_t classes,
                    const int64_t* target, const A* grad_target, WeightsByRow<A> weights, const Gradients& gradients) {
  using V = Lanes<A>;
  Tile<A> tile(chunk.rows);
  for (int64_t begin = 0; begin < classes; begin += tile.max_classes()) {
    const int64_t n = std::min(tile.max_classes(), classes - begin);
    tile.load(logits, chunk, begin, n);
    weights.load(begin, n);
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      const auto row = gradients.template get<V>(r);
      for (int64_t c = 0; c < n; ++c) {
        row.at(V::load(tile[c] + r), weights(c, r)).store(tile[c] + r);
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
