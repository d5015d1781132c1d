// The CPU drivers of cross entropy: forward, backward, and both at once.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "cpu/backend.h"
#include "cpu/cross_entropy_backward.h"
#include "cpu/cross_entropy_forward.h"

namespace ce_ext::cpu {
namespace {

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

template <class S, class Form>
int64_t forward(const CrossEntropyForward& p) {
  using A = opmath_t<S>;
  const CrossEntropyForwardRows<S, Form> rows(p);
  std::vector<RowTotals> totals(rows.chunks().count);
  const int64_t bad_row =
      for_each_chunk<A>(p, rows.chunks(), [&](int64_t index, const Chunk& chunk, const ChunkTargets<A>& targets) {
        auto* saved = static_cast<SavedRow<A>*>(p.saved);
        totals[index] = rows.run(chunk, targets, saved ? saved + chunk.first : nullptr);
      });
  if (bad_row < 0) reduce_groups<S>(p, rows.chunks(), totals);
  return bad_row;
}

template <class S, bool kLogitsChange>
int64_t backward(const CrossEntropyBackward& p) {
  using A = opmath_t<S>;
  const CrossEntropyBackwardRows<S, kLogitsChange> rows(p);
  return for_each_chunk<A>(p, rows.chunks(), [&](int64_t, const Chunk& chunk, const ChunkTargets<A>& targets) {
    rows.run(chunk, targets, static_cast<const SavedRow<A>*>(p.saved) + chunk.first);
  });
}

// Zeros but at the targets. (The memory of a new gradient is dense, whatever its strides.)
template <class S>
int64_t nll_backward(const CrossEntropyBackward& p) {
  using A = opmath_t<S>;
  S* memory = static_cast<S*>(p.grad_input);
  advise_huge_pages(memory, p.rows * p.classes * sizeof(S));
  at::parallel_for(0, p.rows * p.classes, kChunkElements * kChunksPerTask,
                   [&](int64_t begin, int64_t end) { std::fill(memory + begin, memory + end, S(0)); });
  const Matrix<S> grad{memory, p.row_dims, p.grad_input_rows, p.grad_input_class_stride};
  const Chunks chunks(p.rows, 1, kMaxChunkRows);
  return for_each_chunk<A>(p, chunks, [&](int64_t, const Chunk& chunk, const ChunkTargets<A>& targets) {
    alignas(64) A scale[kMaxChunkRows];
    read_scale<S>(p, chunk, targets.sample_weight, scale);
    for (int64_t r = 0; r < chunk.rows; ++r) {
      if (targets.target[r] == kNoTarget) continue;
      S* grad_x = grad.row(chunk.first + r);
      grad_x[targets.target[r] * grad.class_stride] = static_cast<S>(nll_gradient(targets.weight[r], scale[r]));
    }
  });
}

// The gradient of a chunk follows its loss while its logits are in the cache.
template <class S, class Form>
int64_t with_grad(const CrossEntropyWithGrad& p) {
  using A = opmath_t<S>;
  const CrossEntropyForwardRows<S, Form> forward(p.forward);
  const CrossEntropyBackwardRows<S, Form::kLogitsChange> backward(p.backward);
  const Chunks& chunks = forward.chunks();
  std::vector<RowTotals> totals(chunks.count);
  int64_t bad_row =
      for_each_chunk<A>(p.forward, chunks, [&](int64_t index, const Chunk& chunk, const ChunkTargets<A>& targets) {
        for (int64_t r = 0; r < chunk.rows; ++r) {
          totals[index].weight += double(targets.sample_weight[r] * targets.weight[r]);
        }
      });
  if (bad_row >= 0) return bad_row;
  reduce_groups<S>(p.forward, chunks, totals);  // gradients need the divisor first
  for_each_chunk<A>(p.forward, chunks, [&](int64_t index, const Chunk& chunk, const ChunkTargets<A>& targets) {
    SavedRow<A> saved[kMaxChunkRows];
    totals[index] = forward.run(chunk, targets, saved);
    backward.run(chunk, targets, saved);
  });
  reduce_groups<S>(p.forward, chunks, totals);
  return kNoBadRow;
}

}  // namespace

int64_t Backend::run(const CrossEntropyForward& p) {
  return dispatch<c10::Half, c10::BFloat16>(p.dtype, [&](auto s) {
    return dispatch_form(p, [&](auto form) { return forward<decltype(s), decltype(form)>(p); });
  });
}

int64_t Backend::run(const CrossEntropyBackward& p) {
  return dispatch<c10::Half, c10::BFloat16>(p.dtype, [&](auto s) {
    using S = decltype(s);
    if (p.input_is_log_prob) return nll_backward<S>(p);
    return p.options.logits.change() ? backward<S, true>(p) : backward<S, false>(p);
  });
}

int64_t Backend::run(const CrossEntropyWithGrad& p) {
  return dispatch<c10::Half, c10::BFloat16>(p.forward.dtype, [&](auto s) {
    return dispatch_form(p.forward, [&](auto form) { return with_grad<decltype(s), decltype(form)>(p); });
  });
}

}  // namespace ce_ext::cpu
