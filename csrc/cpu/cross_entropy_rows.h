// What the drivers of cross entropy share: how rows are cut into chunks, and what is known of the rows of one.
#pragma once

#include <algorithm>
#include <numeric>

#include "cpu/chunks.h"
#include "cpu/lanes.h"
#include "cpu/row_plan.h"
#include "cpu/softmax_by_row.h"
#include "host/cross_entropy_problem.h"

namespace ce_ext::cpu {

template <class A>
CrossEntropy<Lanes<A>> make_loss(const CrossEntropyProblem& p) {
  const A* weight = static_cast<const A*>(p.weight);
  double weight_sum = double(p.classes);
  if (weight && p.options.label_smoothing > 0) weight_sum = std::accumulate(weight, weight + p.classes, 0.0);
  return CrossEntropy<Lanes<A>>(p.options, p.classes, A(weight_sum));
}

// The targets and weights of the rows of a chunk. Rows that are ignored, and those that pad the last vector, have no
// target and weigh nothing.
template <class A>
class ChunkTargets {
 public:
  int64_t padded_rows;
  int64_t first_bad = -1;  // the first row whose target is neither a class nor ignored
  bool all_have_one;       // no row is ignored
  int64_t target[kMaxChunkRows];
  const A* weight;         // of the target's class
  const A* sample_weight;  // of the row

  ChunkTargets(const CrossEntropyProblem& p, const Chunk& chunk) : padded_rows(Lanes<A>::round_up(chunk.rows)) {
    const int64_t* y = p.target + chunk.first;
    const uint64_t classes = p.classes;
    const int64_t ignore_index = p.ignore_index;
    int64_t any_bad = 0, any_without = 0;
    // Without branches or bools, and so vectorized.
    for (int64_t r = 0; r < chunk.rows; ++r) {
      const int64_t is_none = uint64_t(y[r]) < classes ? 0 : kNoTarget;  // all of its bits
      const int64_t is_ignored = y[r] == ignore_index ? kNoTarget : 0;
      target[r] = y[r] | is_none | is_ignored;
      any_without |= is_none | is_ignored;
      any_bad |= is_none & ~is_ignored;
    }
    all_have_one = !any_without;
    if (any_bad) first_bad = chunk.first + find_bad(p, y);
    std::fill(target + chunk.rows, target + padded_rows, kNoTarget);
    set(ones_, chunk.rows, [](int64_t) { return A(1); });
    weight = sample_weight = ones_;
    if (p.weight) {
      set(weights_, chunk.rows, [&](int64_t r) { return static_cast<const A*>(p.weight)[target[r]]; });
      weight = weights_;
    }
    if (p.sample_weight) {
      const A* row_weight = static_cast<const A*>(p.sample_weight) + chunk.first;
      set(sample_weights_, chunk.rows, [&](int64_t r) { return row_weight[r]; });
      sample_weight = sample_weights_;
    }
  }

  ChunkTargets(const ChunkTargets&) = delete;

  // The losses of the rows from the r-th on, 0 for those without a target, whatever their logits are.
  Lanes<A> where_there_is_one(int64_t r, Lanes<A> losses) const {
    return where(Lanes<A>::load(ones_ + r) == Lanes<A>(A(0)), Lanes<A>(), losses);
  }

 private:
  template <class F>
  void set(A* out, int64_t rows, F f) {
    for (int64_t r = 0; r < rows; ++r) out[r] = target[r] == kNoTarget ? A(0) : f(r);
    std::fill(out + rows, out + padded_rows, A(0));
  }

  static int64_t find_bad(const CrossEntropyProblem& p, const int64_t* y) {
    int64_t r = 0;
    while (y[r] == p.ignore_index || uint64_t(y[r]) < uint64_t(p.classes)) ++r;
    return r;
  }

  alignas(64) A ones_[kMaxChunkRows];  // 0 for rows without a target
  alignas(64) A weights_[kMaxChunkRows];
  alignas(64) A sample_weights_[kMaxChunkRows];
};

// Asks for the targets of the chunk after this one. (The processor itself does not ask for the next page of memory, and
// of targets a chunk has up to a page.)
C10_ALWAYS_INLINE void prefetch_next_targets(const CrossEntropyProblem& p, const Chunk& chunk) {
  const int64_t* next = p.target + chunk.first + chunk.rows;
  for (int64_t r = 0; r < chunk.rows; r += kCacheLine / sizeof(*next)) prefetch(next + r);
}

// out[r] = what row r holds of its target; of rows without one, of any class.
template <class A>
void read_targets(const StoredMatrix<const A>& matrix, const Chunk& chunk, const int64_t* target, A* out) {
  const int64_t row_stride = run_stride(matrix.dims, matrix.rows);
  matrix.visit([&](const auto& m) {
    for_each_run(m.dims, chunk.first, chunk.rows, [&](int64_t row, int64_t n) {
      const auto* rows = m.row(row);
      for (int64_t i = 0; i < n; ++i) {  // without branches, so that many are fetched at a time
        out[i] = static_cast<A>(rows[i * row_stride + (target[i] == kNoTarget ? 0 : target[i]) * m.class_stride]);
      }
      out += n;
      target += n;
    });
  });
}

// Calls f(index, chunk, its targets) for every chunk whose targets are in bounds. Returns the first row that is not.
template <class A>
int64_t for_each_chunk(const CrossEntropyProblem& p, const Chunks& chunks,
                       c10::function_ref<void(int64_t, const Chunk&, const ChunkTargets<A>&)> f) {
  FirstBadRow bad;
  chunks.parallel([&](int64_t index, const Chunk& chunk) {
    const ChunkTargets<A> targets(p, chunk);
    if (targets.first_bad >= 0) return bad.report(targets.first_bad);
    f(index, chunk, targets);
  });
  return bad.row();
}

}  // namespace ce_ext::cpu
