// Cross entropy of log-probabilities, of which only those of the targets are read.
#pragma once

#include <vector>

#include "cpu/cross_entropy_rows.h"
#include "cpu/memory.h"
#include "cpu/row_losses.h"

namespace ce_ext::cpu {

template <class S>
int64_t nll_forward(const CrossEntropyForward& p) {
  using A = opmath_t<S>;
  const Matrix<const S> input{static_cast<const S*>(p.input), p.row_dims, p.input_rows, p.input_class_stride};
  const Chunks chunks(p.rows, p.groups, kMaxChunkRows);
  std::vector<RowTotals> totals(chunks.count);
  const int64_t bad_row =
      for_each_chunk<A>(p, chunks, [&](int64_t index, const Chunk& chunk, const ChunkTargets<A>& targets) {
        A loss[kMaxChunkRows] = {};
        for (int64_t r = 0; r < chunk.rows; ++r) {
          if (targets.target[r] == kNoTarget) continue;
          const S* x = input.row(chunk.first + r) + targets.target[r] * p.input_class_stride;
          loss[r] = product(targets.sample_weight[r], nll_loss(static_cast<A>(*x), targets.weight[r]));
          totals[index].merge({double(loss[r]), double(targets.sample_weight[r] * targets.weight[r])});
        }
        if (p.reduction != Reduction::kNone) return;
        with_loss<S>(p, [&](auto* out) { std::copy(loss, loss + chunk.rows, out + chunk.first); });
      });
  if (bad_row < 0) reduce_groups<S>(p, chunks, totals);
  return bad_row;
}

// Zeros but at the targets. (The memory of a new gradient is dense, whatever its strides.)
template <class S>
int64_t nll_backward(const CrossEntropyBackward& p) {
  using A = opmath_t<S>;
  S* memory = static_cast<S*>(p.grad_input);
  advise_huge_pages(memory, p.rows * p.classes * sizeof(S));
  at::parallel_for(0, p.rows * p.classes, kElementsPerTask,
                   [&](int64_t begin, int64_t end) { std::fill(memory + begin, memory + end, S(0)); });
  const Matrix<S> grad{memory, p.row_dims, p.grad_input_rows, p.grad_input_class_stride};
  const Chunks chunks(p.rows, 1, kMaxChunkRows);
  return for_each_chunk<A>(p, chunks, [&](int64_t, const Chunk& chunk, const ChunkTargets<A>& targets) {
    alignas(64) A scale[kMaxChunkRows];
    read_scale<S>(p, chunk, targets.sample_weight, scale);
    for (int64_t r = 0; r < chunk.rows; ++r) {
      if (targets.target[r] == kNoTarget) continue;
      S* grad_x = grad.row(chunk.first + r) + targets.target[r] * grad.class_stride;
      *grad_x = static_cast<S>(nll_gradient(targets.weight[r], scale[r]));
    }
  });
}

}  // namespace ce_ext::cpu
