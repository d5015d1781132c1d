// The CPU drivers of cross entropy: forward, backward, and both at once.
#include "cpu/backend.h"
#include "cpu/cross_entropy_backward.h"
#include "cpu/cross_entropy_forward.h"
#include "cpu/nll_loss.h"

namespace ce_ext::cpu {
namespace {

template <class A, class Form>
int64_t forward(const CrossEntropyForward& p) {
  const CrossEntropyForwardRows<A, Form> rows(p);
  std::vector<RowTotals> totals(rows.chunks().count);
  const int64_t bad_row =
      for_each_chunk<A>(p, rows.chunks(), [&](int64_t index, const Chunk& chunk, const ChunkTargets<A>& targets) {
        prefetch_next_targets(p, chunk);
        auto* saved = static_cast<SavedRow<A>*>(p.saved);
        totals[index] = rows.run(chunk, targets, saved ? saved + chunk.first : nullptr);
      });
  if (bad_row < 0) reduce_groups<A>(p, rows.chunks(), totals);
  return bad_row;
}

template <class A, bool kLogitsChange>
int64_t backward(const CrossEntropyBackward& p) {
  const CrossEntropyBackwardRows<A, kLogitsChange> rows(p);
  return for_each_chunk<A>(p, rows.chunks(), [&](int64_t, const Chunk& chunk, const ChunkTargets<A>& targets) {
    prefetch_next_targets(p, chunk);
    rows.run(chunk, targets, static_cast<const SavedRow<A>*>(p.saved) + chunk.first);
  });
}

// What the rows of every chunk weigh.
template <class A>
int64_t sum_weights(const CrossEntropyForward& p, const Chunks& chunks, std::vector<RowTotals>& totals) {
  return for_each_chunk<A>(p, chunks, [&](int64_t index, const Chunk& chunk, const ChunkTargets<A>& targets) {
    for (int64_t r = 0; r < chunk.rows; ++r) {
      totals[index].weight += double(targets.sample_weight[r] * targets.weight[r]);
    }
  });
}

// The gradient of a chunk follows its loss while its logits are in the cache.
template <class A, class Form>
int64_t with_grad(const CrossEntropyWithGrad& p) {
  const CrossEntropyForwardRows<A, Form> forward(p.forward);
  const CrossEntropyBackwardRows<A, Form::kLogitsChange> backward(p.backward);
  const Chunks& chunks = forward.chunks();
  std::vector<RowTotals> totals(chunks.count);
  const int64_t bad_row = sum_weights<A>(p.forward, chunks, totals);
  if (bad_row != kNoBadRow) return bad_row;
  reduce_groups<A>(p.forward, chunks, totals);  // gradients need the divisor first
  for_each_chunk<A>(p.forward, chunks, [&](int64_t index, const Chunk& chunk, const ChunkTargets<A>& targets) {
    prefetch_next_targets(p.forward, chunk);
    SavedRow<A> saved[kMaxChunkRows];
    totals[index] = forward.run(chunk, targets, saved);
    backward.run(chunk, targets, saved);
  });
  reduce_groups<A>(p.forward, chunks, totals);
  return kNoBadRow;
}

}  // namespace

int64_t Backend::run(const CrossEntropyForward& p) {
  return dispatch_opmath(p.dtype, [&](auto a) {
    using A = decltype(a);
    if (p.input_is_log_prob) return nll_forward<A>(p);
    return dispatch_form(p, [&](auto form) { return forward<A, decltype(form)>(p); });
  });
}

int64_t Backend::run(const CrossEntropyBackward& p) {
  return dispatch_opmath(p.dtype, [&](auto a) {
    using A = decltype(a);
    if (p.input_is_log_prob) return nll_backward<A>(p);
    return p.options.logits.change() ? backward<A, true>(p) : backward<A, false>(p);
  });
}

int64_t Backend::run(const CrossEntropyWithGrad& p) {
  return dispatch_opmath(p.forward.dtype, [&](auto a) {
    return dispatch_form(p.forward, [&](auto form) { return with_grad<decltype(a), decltype(form)>(p); });
  });
}

}  // namespace ce_ext::cpu
