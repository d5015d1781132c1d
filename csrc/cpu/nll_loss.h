// Cross entropy of log-probabilities, of which only those of the targets are read.
#pragma once

#include <vector>

#include "cpu/cross_entropy_rows.h"
#include "cpu/memory.h"
#include "cpu/row_losses.h"

namespace ce_ext::cpu {

// What fetching one number from anywhere in memory costs, in elements that lie one after another.
constexpr int64_t kElementsToFetch = 16;

// Gradients of a chunk, where its rows are not longer: more than of others, since zeros are written without a look.
constexpr int64_t kChunkZeros = 65536;

// rows x classes of zeros, one contiguous run after another if there are such.
template <class S>
void fill_zero(S* p, int64_t row_stride, int64_t rows, int64_t class_stride, int64_t classes) {
  if (class_stride == 1 && row_stride == classes) {
    std::fill(p, p + rows * classes, S(0));
  } else if (row_stride == 1) {
    for (int64_t c = 0; c < classes; ++c) std::fill(p + c * class_stride, p + c * class_stride + rows, S(0));
  } else {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < classes; ++c) p[r * row_stride + c * class_stride] = S(0);
    }
  }
}

template <class A>
int64_t nll_forward(const CrossEntropyForward& p) {
  using V = Lanes<A>;
  const StoredMatrix<const A> input{p.dtype, p.input, p.row_dims, p.input_rows, p.input_class_stride};
  const Chunks chunks(p.rows, p.groups, kMaxChunkRows, kElementsToFetch);
  std::vector<RowTotals> totals(chunks.count);
  const int64_t bad_row =
      for_each_chunk<A>(p, chunks, [&](int64_t index, const Chunk& chunk, const ChunkTargets<A>& targets) {
        alignas(64) A x_target[kMaxChunkRows] = {};
        alignas(64) A losses[kMaxChunkRows];
        if (p.classes > 0) read_targets(input, chunk, targets.target, x_target);
        V loss_sum, weight_sum;
        for (int64_t r = 0; r < chunk.rows; r += V::kSize) {
          const V weight = V::load(targets.weight + r), sample_weight = V::load(targets.sample_weight + r);
          const V row_losses = product(sample_weight, nll_loss(V::load(x_target + r), weight));
          const V loss = targets.where_there_is_one(r, row_losses);
          loss.store(losses + r);
          loss_sum = loss_sum + loss;
          weight_sum = weight_sum + sample_weight * weight;
        }
        store_losses(p, chunk, losses);
        totals[index] = {double(loss_sum.sum()), double(weight_sum.sum())};
      });
  if (bad_row < 0) reduce_groups<A>(p, chunks, totals);
  return bad_row;
}

// Zeros but at the targets.
template <class A>
int64_t nll_backward(const CrossEntropyBackward& p) {
  const StoredMatrix<A> grad_input{p.dtype, p.grad_input, p.row_dims, p.grad_input_rows, p.grad_input_class_stride};
  advise_huge_pages(p.grad_input, p.rows * p.classes * size_of(p.dtype));
  const int64_t chunk_rows = std::clamp<int64_t>(kChunkZeros / std::max<int64_t>(p.classes, 1), 1, kMaxChunkRows);
  const Chunks chunks(p.rows, 1, chunk_rows, p.classes);
  return for_each_chunk<A>(p, chunks, [&](int64_t, const Chunk& chunk, const ChunkTargets<A>& targets) {
    alignas(64) A scale[kMaxChunkRows];
    read_scale<A>(p, chunk, targets.sample_weight, scale);
    grad_input.visit([&](const auto& grad) {
      for_each_run(p.row_dims, chunk.first, chunk.rows, [&](int64_t row, int64_t n) {
        const int64_t row_stride = run_stride(p.row_dims, grad.rows);
        auto* rows = grad.row(row);
        fill_zero(rows, row_stride, n, grad.class_stride, p.classes);
        for (int64_t r = row - chunk.first; n > 0; ++r, --n, rows += row_stride) {
          if (targets.target[r] == kNoTarget) continue;
          const A gradient = nll_gradient(targets.weight[r], scale[r]);
          rows[targets.target[r] * grad.class_stride] = static_cast<std::decay_t<decltype(*rows)>>(gradient);
        }
      });
    });
  });
}

}  // namespace ce_ext::cpu
