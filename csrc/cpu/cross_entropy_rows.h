// What the drivers of cross entropy share: how rows are cut into chunks, and what is known of the rows of one.
#pragma once

#include <algorithm>
#include <numeric>

#include "cpu/chunks.h"
#include "cpu/lane_choice.h"
#include "cpu/lanes.h"
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
    const A* class_weight = static_cast<const A*>(p.weight);
    const A* row_weight = static_cast<const A*>(p.sample_weight);
    for (int64_t r = 0; r < padded_rows; ++r) {
      const int64_t y = r < chunk.rows ? p.target[chunk.first + r] : p.ignore_index;
      const bool is_class = y != p.ignore_index && y >= 0 && y < p.classes;
      if (!is_class && y != p.ignore_index && first_bad < 0) first_bad = chunk.first + r;
      target[r] = is_class ? y : kNoTarget;
      weight[r] = !is_class ? A(0) : class_weight ? class_weight[y] : A(1);
      sample_weight[r] = !is_class ? A(0) : row_weight ? row_weight[chunk.first + r] : A(1);
    }
  }
};

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
