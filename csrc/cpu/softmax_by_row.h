// Softmax over rows that are short or whose classes lie apart: the lanes are rows. A chunk of rows is brought into
// a tile, one block of classes after another.
#pragma once

#include <algorithm>

#include "cpu/chunks.h"
#include "cpu/lanes.h"
#include "cpu/tile.h"
#include "losses/logits.h"
#include "losses/softmax.h"

namespace ce_ext::cpu {

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
  template <class T>
  SoftmaxSums<T, kGaps, kEntropy> get(int64_t r) const {
    SoftmaxSums<T, kGaps, kEntropy> row;
    visit(*this, row, [&](const auto& column, T& value) { value = read<T>(&column[r]); });
    return row;
  }
  template <class T>
  void set(int64_t r, const SoftmaxSums<T, kGaps, kEntropy>& row) {
    visit(*this, row, [&](auto& column, const T& value) { write(&column[r], value); });
  }

 private:
  struct alignas(64) Column {
    A values[kMaxChunkRows];

    const A& operator[](int64_t r) const { return values[r]; }
    A& operator[](int64_t r) { return values[r]; }
  };

  // Calls f(column, value) for those that are in use.
  template <class Sums, class Row, class F>
  static void visit(Sums& sums, Row& row, F f) {
    f(sums.max_, row.max);
    f(sums.exp_sum_, row.exp_sum);
    if constexpr (kGaps != Gaps::kNone) f(sums.gap_sum_, row.gap_sum);
    if constexpr (kGaps != Gaps::kNone) f(sums.weight_sum_, row.weight_sum);
    if constexpr (kGaps == Gaps::kSumAndWeights) f(sums.tie_weight_, row.tie_weight);
    if constexpr (kEntropy) f(sums.entropy_sum_, row.entropy_sum);
  }

  Column max_, exp_sum_, gap_sum_, weight_sum_, tie_weight_, entropy_sum_;
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
template <class A, Gaps kGaps, bool kEntropy, bool kLogitsChange, class Weights>
void softmax_sums(Tile<A>& tile, const StoredMatrix<const A>& matrix, const Logits<Lanes<A>, kLogitsChange>& logits,
                  const Chunk& chunk, int64_t classes, Weights& weights, ChunkSums<A, kGaps, kEntropy>& sums,
                  const WantedLogits<A>& wanted) {
  using V = Lanes<A>;
  const RowsAhead<const A> next(matrix, chunk.first + chunk.rows);
  if (classes == 0) {
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) sums.set(r, SoftmaxSums<V, kGaps, kEntropy>());
  }
  if (wanted.argmax) std::fill(wanted.argmax, wanted.argmax + chunk.rows, 0);
  if (wanted.target) std::fill(wanted.z_target, wanted.z_target + V::round_up(chunk.rows), A(0));
  for (int64_t begin = 0; begin < classes; begin += tile.max_classes()) {
    const int64_t n = std::min(tile.max_classes(), classes - begin);
    tile.load(matrix, chunk, begin, n);
    if (wanted.target) tile.pick(wanted.target, chunk.rows, wanted.z_target);
    if constexpr (kLogitsChange) tile.apply(logits, n);
    if constexpr (kGaps != Gaps::kNone) weights.load(begin, n);
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      auto row = begin > 0 ? sums.template get<V>(r) : SoftmaxSums<V, kGaps, kEntropy>();
      const V max_before = row.max;
      V max = row.max;
      for (int64_t c = 0; c < n; ++c) max = maximum(max, V::load(tile[c] + r));
      V champion = row.max;
      if (begin > 0) row.measure_from(max, V());
      row.max = max;
      for_each_part(n, [&](int64_t first, int64_t last) {
        SoftmaxSums<V, kGaps, kEntropy> part;
        part.max = max;
        for (int64_t c = first; c < last; ++c) {
          part.add_loser(match(champion, V::load(tile[c] + r)));
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

// Of at most so many classes, the target's gradient is chosen as the others are written: a comparison for every class
// then costs less than a number stored for every row.
constexpr int64_t kMaxComparedClasses = 16;

// Stores the gradients of the targets in a tile of n classes from `begin` on, and zeros in rows without a target. If
// `all_here`, every row has one, and it is among these classes.
template <class A>
void store_targets(Tile<A>& tile, int64_t begin, int64_t n, int64_t rows, const int64_t* target, bool all_here,
                   const A* grad_target) {
  if (all_here) {
    for (int64_t r = 0; r < rows; ++r) tile[target[r]][r] = grad_target[r];
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    if (target[r] == kNoTarget) {
      for (int64_t c = 0; c < n; ++c) tile[c][r] = A(0);
    } else if (target[r] >= begin && target[r] < begin + n) {
      tile[target[r] - begin][r] = grad_target[r];
    }
  }
}

// The gradient of every class of every row of a chunk, that of the targets given; zeros for rows without a target.
template <class A, class Gradients>
void write_gradient(Tile<A>& tile, const StoredMatrix<const A>& logits, const StoredMatrix<A>& grad, const Chunk& chunk,
                    int64_t classes, const int64_t* target, bool all_have_target, const A* grad_target,
                    WeightsByRow<A> weights, const Gradients& gradients) {
  using V = Lanes<A>;
  const RowsAhead<const A> next(logits, chunk.first + chunk.rows);
  const RowsAhead<A> results(grad, chunk.first);
  const bool compares = all_have_target && classes <= kMaxComparedClasses;
  alignas(64) A target_class[kMaxChunkRows];
  if (compares) std::copy_n(target, V::round_up(chunk.rows), target_class);
  for (int64_t begin = 0; begin < classes; begin += tile.max_classes()) {
    const int64_t n = std::min(tile.max_classes(), classes - begin);
    tile.load(logits, chunk, begin, n);
    weights.load(begin, n);
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
      const auto row = gradients.template get<V>(r);
      const auto write = [&](auto choose) {
        for (int64_t c = 0; c < n; ++c) {
          choose(c, row.at(V::load(tile[c] + r), weights(c, r))).store(tile[c] + r);
          next.prefetch(r, begin + c);
          results.prefetch(r, begin + c);
        }
      };
      if (compares) {
        const V y = V::load(target_class + r), of_target = V::load(grad_target + r);
        write([&](int64_t c, V of_class) { return where(y == V(A(c)), of_target, of_class); });
      } else {
        write([](int64_t, V of_class) { return of_class; });
      }
    }
    if (!compares) {
      store_targets(tile, begin, n, chunk.rows, target, n == classes && all_have_target, grad_target);
    }
    tile.store(grad, chunk, begin, n);
  }
}

}  // namespace ce_ext::cpu
