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
struct ChunkTargets {
  int64_t padded_rows;
  int64_t first_bad = -1;  // the first row whose target is neither a class nor ignored
  int64_t target[kMaxChunkRows];
  alignas(64) A weight[kMaxChunkRows];         // of the target's class
  alignas(64) A sample_weight[kMaxChunkRows];  // of the row

  ChunkTargets(const CrossEntropyProblem& p, const Chunk& chunk) : padded_rows(Lanes<A>::round_up(chunk.rows)) {
    const int64_t* y = p.target + chunk.first;
    const uint64_t classes = p.classes;
    int64_t any_bad = 0;
    for (int64_t r = 0; r < chunk.rows; ++r) {  // without branches or bools, and so vectorized
      const int64_t checked = uint64_t(y[r]) < classes ? y[r] : kNoTarget;
      const int64_t is_bad = uint64_t(y[r]) < classes ? 0 : 1;
      target[r] = y[r] == p.ignore_index ? kNoTarget : checked;
      any_bad |= y[r] == p.ignore_index ? 0 : is_bad;
    }
    if (any_bad) first_bad = chunk.first + find_bad(p, y);
    std::fill(target + chunk.rows, target + padded_rows, kNoTarget);
    set(weight, chunk.rows, [](int64_t) { return A(1); });
    if (p.weight) set(weight, chunk.rows, [&](int64_t r) { return static_cast<const A*>(p.weight)[target[r]]; });
    set(sample_weight, chunk.rows, [](int64_t) { return A(1); });
    if (p.sample_weight) {
      const A* row_weight = static_cast<const A*>(p.sample_weight) + chunk.first;
      set(sample_weight, chunk.rows, [&](int64_t r) { return row_weight[r]; });
    }
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
};

// out[r] = what row r holds of its target; of rows without one, of any class.
template <class S, class A>
void read_targets(const Matrix<const S>& m, const Chunk& chunk, const int64_t* target, A* out) {
  const int64_t row_stride = run_stride(m.dims, m.rows);
  for_each_run(m.dims, chunk.first, chunk.rows, [&](int64_t row, int64_t n) {
    const S* rows = m.row(row);
    for (int64_t i = 0; i < n; ++i) {  // without branches, so that many are fetched at a time
      out[i] = static_cast<A>(rows[i * row_stride + (target[i] == kNoTarget ? 0 : target[i]) * m.class_stride]);
    }
    out += n;
    target += n;
  });
}

// Calls f(index, chunk, its targets) for every chunk whose targets are in bounds. Returns the first row that is not.
template <class A, class F>
int64_t for_each_chunk(const CrossEntropyProblem& p, const Chunks& chunks, F f) {
  FirstBadRow bad;
  chunks.parallel([&](int64_t index, const Chunk& chunk) {
    const ChunkTargets<A> targets(p, chunk);
    if (targets.first_bad >= 0) return bad.report(targets.first_bad);
    f(index, chunk, targets);
  });
  return bad.row();
}

}  // namespace ce_ext::cpu
