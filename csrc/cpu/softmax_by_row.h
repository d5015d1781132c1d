// Softmax over rows that are short or whose classes lie apart: the lanes are rows. A chunk of rows is brought into
// a tile of the compute type, classes x rows, one block of classes after another; there every class is one load.
#pragma once

#include <algorithm>

#include "cpu/chunks.h"
#include "cpu/lanes.h"
#include "losses/softmax.h"

namespace ce_ext::cpu {

// 32 KiB of floats, so that a tile stays in the first-level cache.
constexpr int64_t kTileElements = 8192;
// Enough adjacent rows to use whole cache lines of every class.
constexpr int64_t kMinTileRows = 64;

constexpr int64_t kNoTarget = -1;

// SoftmaxSums of every row of a chunk, and the logit of its target.
template <class A>
struct ChunkSums {
  alignas(64) A x_target[kMaxChunkRows];
  alignas(64) A max[kMaxChunkRows];
  alignas(64) A exp_sum[kMaxChunkRows];
  alignas(64) A gap_sum[kMaxChunkRows];
  alignas(64) A weight_sum[kMaxChunkRows];

  template <class T, bool kGaps>
  SoftmaxSums<T, kGaps> get(int64_t r) const {
    return {read<T>(max + r), read<T>(exp_sum + r), read<T>(gap_sum + r), read<T>(weight_sum + r)};
  }
  template <class T, bool kGaps>
  void set(int64_t r, const SoftmaxSums<T, kGaps>& row) {
    write(max + r, row.max);
    write(exp_sum + r, row.exp_sum);
    write(gap_sum + r, row.gap_sum);
    write(weight_sum + r, row.weight_sum);
  }
};

// Logits or gradients in memory, as rows x classes.
template <class S>
struct Matrix {
  S* data;
  const RowDims& dims;
  const RowStrides& rows;
  int64_t class_stride;
};

template <class A>
class Tile {
 public:
  explicit Tile(int64_t rows) : pitch_((rows + Lanes<A>::kSize - 1) / Lanes<A>::kSize * Lanes<A>::kSize) {}

  int64_t max_classes() const { return kTileElements / pitch_; }
  A* operator[](int64_t c) { return values_ + c * pitch_; }

  template <class S>
  void load(const Matrix<const S>& m, const Chunk& chunk, int64_t first_class, int64_t classes) {
    each_line(m, chunk, first_class, classes,
              [](A* cell, int64_t pitch, const S* p, int64_t stride, int64_t n) { copy(cell, pitch, p, stride, n); });
    // The rows that pad the last vector: any number will do, but not whatever the stack held.
    for (int64_t c = 0; c < classes; ++c) std::fill((*this)[c] + chunk.rows, (*this)[c + 1], A(0));
  }

  template <class S>
  void store(const Matrix<S>& m, const Chunk& chunk, int64_t first_class, int64_t classes) {
    each_line(m, chunk, first_class, classes,
              [](A* cell, int64_t pitch, S* p, int64_t stride, int64_t n) { copy(p, stride, cell, pitch, n); });
  }

 private:
  // Calls f(place in the tile, stride there, place in memory, stride there, length) for lines that cover the tile,
  // in the direction in which memory is denser.
  template <class S, class F>
  void each_line(const Matrix<S>& m, const Chunk& chunk, int64_t first_class, int64_t classes, F f) {
    const int64_t row_stride = run_stride(m.dims, m.rows);
    for_each_run(m.dims, chunk.first, chunk.rows, [&](int64_t row, int64_t n) {
      S* base = m.data + m.rows.offset(m.dims, row) + first_class * m.class_stride;
      A* cell = values_ + (row - chunk.first);
      if (m.class_stride < row_stride) {
        for (int64_t r = 0; r < n; ++r) f(cell + r, pitch_, base + r * row_stride, m.class_stride, classes);
      } else {
        for (int64_t c = 0; c < classes; ++c) f(cell + c * pitch_, 1, base + c * m.class_stride, row_stride, n);
      }
    });
  }

  template <class To, class From>
  static void copy(To* to, int64_t to_stride, const From* from, int64_t from_stride, int64_t n) {
    int64_t i = 0;
    if (to_stride == 1 && from_stride == 1) {
      for (; i + Lanes<A>::kSize <= n; i += Lanes<A>::kSize) Lanes<A>::load(from + i).store(to + i);
    }
    for (; i < n; ++i) to[i * to_stride] = static_cast<To>(from[i * from_stride]);
  }

  alignas(64) A values_[kTileElements];
  const int64_t pitch_;  // rows, padded to whole vectors
};

// The sums of every row of a chunk. `weight` may be null, for ones; it matters for the gaps only.
template <bool kGaps, class A, class S>
void softmax_sums(const Matrix<const S>& logits, const Chunk& chunk, int64_t classes, const int64_t* target,
                  const A* weight, ChunkSums<A>& sums) {
  using V = Lanes<A>;
  Tile<A> tile(chunk.rows);
  for (int64_t r = 0; r < chunk.rows; r += V::kSize) sums.set(r, SoftmaxSums<V, kGaps>());
  for (int64_t begin = 0; begin < classes; begin += tile.max_classes()) {
    const int64_t n = std::min(tile.max_classes(), classes - begin);
    tile.load(logits, chunk, begin, n);
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      auto row = sums.template get<V, kGaps>(r);
      V max = row.max;
      for (int64_t c = 0; c < n; ++c) max = maximum(max, V::load(tile[c] + r));
      row.raise_max(max);
      if constexpr (kGaps) {
        for (int64_t c = 0; c < n; ++c) {
          const V w(weight ? weight[begin + c] : A(1));
          row.gap_sum = row.gap_sum + product(w, row.pivot() - V::load(tile[c] + r));
          row.weight_sum = row.weight_sum + w;
        }
      }
      sums.set(r, row);
    }
    // The target's own e^{x_y} stays out of the sum.
    for (int64_t r = 0; r < chunk.rows; ++r) {
      if (target[r] < begin || target[r] >= begin + n) continue;
      sums.x_target[r] = tile[target[r] - begin][r];
      tile[target[r] - begin][r] = A(-INFINITY);
    }
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      auto row = sums.template get<V, kGaps>(r);
      const V pivot = row.pivot();
      for (int64_t c = 0; c < n; ++c) row.exp_sum = row.exp_sum + exp(V::load(tile[c] + r) - pivot);
      sums.set(r, row);
    }
  }
}

// The gradient of every class of every row of a chunk; zeros for rows without a target. `weight` may be null, for ones.
template <class A, class S, class Gradients>
void write_gradient(const Matrix<const S>& logits, const Matrix<S>& grad, const Chunk& chunk, int64_t classes,
                    const int64_t* target, const A* weight, const Gradients& gradients) {
  using V = Lanes<A>;
  Tile<A> tile(chunk.rows);
  alignas(64) A target_values[kMaxChunkRows] = {};  // logits, then their gradients
  for (int64_t begin = 0; begin < classes; begin += tile.max_classes()) {
    const int64_t n = std::min(tile.max_classes(), classes - begin);
    tile.load(logits, chunk, begin, n);
    for (int64_t r = 0; r < chunk.rows; ++r) {
      if (target[r] >= begin && target[r] < begin + n) target_values[r] = tile[target[r] - begin][r];
    }
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      const auto row = gradients.template get<V>(r);
      for (int64_t c = 0; c < n; ++c) {
        const V w(weight ? weight[begin + c] : A(1));
        row.at(V::load(tile[c] + r), w).store(tile[c] + r);
      }
      row.at_target(V::load(target_values + r)).store(target_values + r);
    }
    for (int64_t r = 0; r < chunk.rows; ++r) {
      if (target[r] == kNoTarget) {
        for (int64_t c = 0; c < n; ++c) tile[c][r] = A(0);
      } else if (target[r] >= begin && target[r] < begin + n) {
        tile[target[r] - begin][r] = target_values[r];
      }
    }
    tile.store(grad, chunk, begin, n);
  }
}

}  // namespace ce_ext::cpu
