// What both passes of soft cross entropy know of its rows on the CPU: their weights, and the targets as the weights of
// their classes.
#pragma once

#include "cpu/softmax_by_class.h"
#include "cpu/softmax_by_row.h"
#include "host/soft_cross_entropy_problem.h"

namespace ce_ext::cpu {

template <class A>
SoftCrossEntropy<Lanes<A>> make_loss(const SoftCrossEntropyProblem& p) {
  return SoftCrossEntropy<Lanes<A>>::template make<A>(p.options, p.classes);
}

// The probabilities of a row as WeightsByClass.
template <class A, class Q>
struct MassesByClass {
  const Q* q;
  WeightsByClass<A> weights;
  const SoftCrossEntropy<Lanes<A>>& loss;

  Lanes<A> operator()(int64_t i, int64_t n) const { return loss.mass(Lanes<A>::load(q + i, n, A(0)), weights(i, n)); }
  MassesByClass from(int64_t i) const { return {q + i, weights.from(i), loss}; }
};

// Those of a chunk as WeightsByRow.
template <class A>
class MassesByRow {
 public:
  MassesByRow(const StoredMatrix<const A>& targets, const Chunk& chunk, const A* weight,
              const SoftCrossEntropy<Lanes<A>>& loss)
      : targets_(targets),
        chunk_(chunk),
        loss_(loss),
        weights_(weight),
        tile_(chunk.rows),
        next_(targets, chunk.first + chunk.rows) {}

  void load(int64_t begin, int64_t n) {
    begin_ = begin;
    tile_.load(targets_, chunk_, begin, n);
    weights_.load(begin, n);
  }
  Lanes<A> operator()(int64_t c, int64_t r) {
    next_.prefetch(r, begin_ + c);
    return loss_.mass(Lanes<A>::load(tile_[c] + r), weights_(c, r));
  }

 private:
  const StoredMatrix<const A>& targets_;
  const Chunk& chunk_;
  const SoftCrossEntropy<Lanes<A>>& loss_;
  WeightsByRow<A> weights_;
  Tile<A> tile_;
  RowsAhead<const A> next_;
  int64_t begin_ = 0;
};

// One factor for every row of a chunk, and 0 for those that pad the last vector.
template <class A>
void read_sample_weights(const SoftCrossEntropyProblem& p, const Chunk& chunk, A* out) {
  const A* weight = static_cast<const A*>(p.sample_weight);
  for (int64_t r = 0; r < Lanes<A>::round_up(chunk.rows); ++r) {
    out[r] = r >= chunk.rows ? A(0) : weight ? weight[chunk.first + r] : A(1);
  }
}

}  // namespace ce_ext::cpu
