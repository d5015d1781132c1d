// What the losses of softmax do with rows, whatever the target: where results go, and what gradients are multiplied by.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "cpu/chunks.h"
#include "cpu/dtypes.h"
#include "cpu/lanes.h"
#include "host/softmax_loss_problem.h"
#include "losses/softmax.h"

namespace ce_ext::cpu {

// out[i] = {first_i, others_i ...}
template <class Row, class T, class... V>
void store_rows(Row* out, int64_t n, Lanes<T> first, V... others) {
  struct Column {
    T values[Lanes<T>::kSize];

    explicit Column(Lanes<T> lanes) { lanes.store(values); }
  };
  const auto store = [&](const auto&... columns) {
    for (int64_t i = 0; i < n; ++i) out[i] = {columns.values[i]...};
  };
  store(Column(first), Column(others)...);
}

// Calls f with the memory of the loss, which is computed in A, in its type.
template <class A, class Problem, class F>
void with_loss(const Problem& p, F f) {
  dispatch_stored<A>(opmath_if(p.loss_is_opmath, p.dtype), [&](auto s) { f(static_cast<decltype(s)*>(p.loss)); });
}

// The losses of the rows of a chunk, where they are not reduced.
template <class A, class Problem>
void store_losses(const Problem& p, const Chunk& chunk, const A* losses) {
  if (p.reduction != Reduction::kNone) return;
  with_loss<A>(p, [&](auto* out) { copy_run(out + chunk.first, 1, losses, 1, chunk.rows); });
}

// From the totals of the chunks to the losses of the groups.
template <class A, class Problem>
void reduce_groups(const Problem& p, const Chunks& chunks, const std::vector<RowTotals>& totals) {
  for (int64_t g = 0; g < p.groups && p.reduction != Reduction::kNone; ++g) {
    RowTotals total;
    for (int64_t i = g; i < chunks.count; i += p.groups) total.merge(totals[i]);
    const double divisor = p.mean_divisor.of(total.weight);
    const bool mean = p.reduction == Reduction::kMean;
    const double loss = mean ? total.loss / divisor : total.loss;
    with_loss<A>(p, [&](auto* out) { out[g] = static_cast<std::remove_pointer_t<decltype(out)>>(loss); });
    if (mean) static_cast<A*>(p.denominator)[g] = A(divisor);
  }
}

// scale[r] = what the gradient of the loss of row r is multiplied by, sample weights included: whole vectors of rows,
// as of those.
template <class A, class Problem>
void read_scale(const Problem& p, const Chunk& chunk, const A* sample_weight, A* scale) {
  using V = Lanes<A>;
  const int64_t padded_rows = V::round_up(chunk.rows);
  std::fill(scale + chunk.rows, scale + padded_rows, A(0));
  const auto read = [&](const auto* values) { read_rows(values, p.row_dims, p.grad_output_rows, chunk, scale); };
  if (!p.grad_output) {
    std::fill(scale, scale + chunk.rows, A(p.loss_scale));
  } else {
    dispatch_stored<A>(opmath_if(p.loss_is_opmath, p.dtype),
                       [&](auto s) { read(static_cast<const decltype(s)*>(p.grad_output)); });
  }
  if (p.denominator) {
    alignas(64) A denominator[kMaxChunkRows];
    read_rows(static_cast<const A*>(p.denominator), p.row_dims, p.denominator_rows, chunk, denominator);
    std::fill(denominator + chunk.rows, denominator + padded_rows, A(1));
    for (int64_t r = 0; r < chunk.rows; r += V::kSize) (V::load(scale + r) / V::load(denominator + r)).store(scale + r);
  }
  for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
    product(V::load(sample_weight + r), V::load(scale + r)).store(scale + r);
  }
}

}  // namespace ce_ext::cpu
