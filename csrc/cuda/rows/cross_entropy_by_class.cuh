// The kernels of cross entropy for rows whose classes lie side by side: teams of threads share the classes of a row.
#pragma once

#include "cuda/device/divisor.cuh"
#include "cuda/rows/cross_entropy_rows.cuh"
#include "cuda/rows/few_rows.cuh"

namespace ce_ext::cuda {

template <class S>
__device__ __forceinline__ RowTarget<opmath_t<S>> load_target(const CrossEntropyProblem& p, int64_t row, const S* x) {
  return load_target<opmath_t<S>>(p, row, [&](int64_t c) { return load(x + c); });
}

template <class S, class Form, int kSize>
__global__ void __launch_bounds__(Team<kSize>::kThreads,
                                  resident_blocks(Team<kSize>::kThreads,
                                                  kTeamRegisters<S, Form, Team<kSize>::kIsBlock ? 64 : 80, 80>))
    cross_entropy_forward_by_class(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss, Shares shares,
                                   RowTotals* of_shares) {
  using A = opmath_t<S>;
  using Chunks = RowChunks<S, kPacks, Team<kSize>>;
  const AddLogits<S, Form> add(p, loss);
  RowTotals totals;
  const int size = shares.size(blockIdx.x);
  for (int first = 0; first < size; first += Team<kSize>::kCount) {
    // Teams of a warp stay together, which makes it cheap to reduce: those that have no row repeat the last.
    const int i = first + Team<kSize>::index();
    const int64_t row = shares.begin(blockIdx.x) + (i < size ? i : size - 1);
    const S* x = logits_row<S>(p, row);
    const Chunks chunks(x, p.classes);
    typename Chunks::template Held<S> held;
    const auto load = [&](int chunk, auto& next) { chunks.load(chunk, x, next, add.kFill); };
    load(0, held);  // at once: whether the row is wanted, its target has to tell
    const RowTarget<A> target = load_target(p, row, x);
    RowSums<A, Form> sums;
    const bool wanted = is_wanted<Form>(target);
    if (wanted) sums = sum_row<RowSums<A, Form>>(chunks, held, load, add);
    if (wanted || !Team<kSize>::kIsBlock) sums = Team<kSize>::reduce(sums);
    if (Team<kSize>::leads() && i < size) {
      totals.merge(store_row<S>(p, loss, row, target, finish_row<S>(p, loss, row, target, sums), sums));
    }
  }
  finish_share<S, Team<kSize>::kIsBlock>(p, shares, blockIdx.x, totals, of_shares);
}

// Of few rows that are long: several blocks share a row, the last of which finishes it. Each row is a share.
template <class S, class Form>
__global__ void __launch_bounds__(kThreadsOfPart, resident_blocks(kThreadsOfPart, kTeamRegisters<S, Form, 64, 80>))
    cross_entropy_parts_by_class(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss, RowParts parts, Shares shares,
                                 RowTotals* of_shares, RowSums<opmath_t<S>, Form>* part_sums, unsigned* counters) {
  using A = opmath_t<S>;
  using Chunks = RowChunks<S, kPacks, Team<kThreadsOfPart>>;
  const AddLogits<S, Form> add(p, loss, parts.begin());
  const S* x = logits_row<S>(p, parts.row());
  const S* part = x + parts.begin();
  const Chunks chunks(part, parts.size(p.classes));
  typename Chunks::template Held<S> held;
  const auto load = [&](int chunk, auto& next) { chunks.load(chunk, part, next, add.kFill); };
  load(0, held);
  const RowTarget<A> target = load_target(p, parts.row(), x);
  RowSums<A, Form> sums;
  if (is_wanted<Form>(target)) sums = block_reduce(sum_row<RowSums<A, Form>>(chunks, held, load, add));
  if (!parts.add_up(sums, part_sums, counters)) return;
  RowTotals totals;
  if (threadIdx.x == 0) {
    const FinishedRow<A> finished = finish_row<S>(p, loss, parts.row(), target, sums);
    totals = store_row<S>(p, loss, parts.row(), target, finished, sums);
  }
  finish_share<S, /*kOneThread=*/true>(p, shares, parts.row(), totals, of_shares);
}

// Writes the gradient of a chunk of a row that is held; those of the target and of other classes alike.
template <class Chunks, class Held, class A, class Form, class S>
__device__ __forceinline__ void write_gradient(const Chunks& chunks, int chunk, Held& held,
                                               const RowGradient<A, Form>& gradient, S* grad_x, bool streams) {
  chunks.with_alignment(grad_x, [&](auto aligned) {
    chunks.for_each(chunk, [&](int i, int64_t c, auto n) {
      A values[n.value];
      convert(held.at(i, n), values);
      gradient.apply(c, values);
      store_pack(grad_x + c, values, aligned.value, streams);
    });
  });
}

// A team for a chunk of a row. Its thread that has the target overwrites what it has written there.
template <class S, class Form, int kSize>
__global__ void __launch_bounds__(Team<kSize>::kThreads,
                                  resident_blocks(Team<kSize>::kThreads, kBackwardRegisters<S, Form>))
    cross_entropy_backward_by_class(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> loss, Divisor chunks_of_row) {
  using A = opmath_t<S>;
  using Chunks = RowChunks<S, kPacks, Team<kSize>>;
  const unsigned team = blockIdx.x * Team<kSize>::kCount + Team<kSize>::index();
  const unsigned row = chunks_of_row.divide(team);
  const int chunk = int(team - row * chunks_of_row.value);
  if (row >= p.rows) return;
  const S* x = logits_row<S>(p, row);
  const Chunks chunks(x, p.classes);
  bool has_target = false;
  const RowTarget<A> target = load_target<A>(p, row, [&](int64_t c) {
    has_target = chunks.owns(chunk, c);
    return has_target || loss.on_host.is_focal ? load(x + c) : A(0);
  });
  if (chunk == 0 && Team<kSize>::leads()) report_if_bad(p, loss.bad_target, row, target);
  const auto gradient = row_gradient<S, Form>(p, loss, row, target, saved_row<S>(p, row));
  typename Chunks::template Held<S> held{};
  if (gradient.reads_logits()) chunks.load(chunk, x, held, A(0));
  S* grad_x = grad_row<S>(p, row);
  write_gradient(chunks, chunk, held, gradient, grad_x, /*streams=*/false);
  if (has_target) store(grad_x + target.index, gradient.at_target(target.x));
}

// Loss and gradient of a row, whose last chunk stays in registers; of short rows that is all. Other chunks are read
// again, the last ones first, from the second-level cache: the first time it is asked to keep them, the second time and
// for gradients not to. The gradient may lie over the logits: all that is wanted of other threads' is read before it is
// shared.
template <class S, class Form, int kSize>
__global__ void __launch_bounds__(Team<kSize>::kThreads,
                                  resident_blocks(Team<kSize>::kThreads,
                                                  kTeamRegisters<S, Form, Team<kSize>::kIsBlock ? 96 : 80, 160>))
    cross_entropy_with_grad_by_class(CrossEntropyWithGrad p, DeviceLoss<opmath_t<S>> loss, Shares shares,
                                     RowTotals* of_shares) {
  using A = opmath_t<S>;
  using Chunks = RowChunks<S, kPacks, Team<kSize>>;
  struct Shared {
    RowGradient<A, Form> gradient;
    A at_target;
  };
  const AddLogits<S, Form> add(p.forward, loss);
  RowTotals totals;
  const int size = shares.size(blockIdx.x);
  for (int i = Team<kSize>::index(); i < size; i += Team<kSize>::kCount) {
    const int64_t row = shares.begin(blockIdx.x) + i;
    const S* x = logits_row<S>(p.forward, row);
    const Chunks chunks(x, p.forward.classes);
    typename Chunks::template Held<S> held;
    const HintedLoad hinted{chunks.count() > 1 ? keep_in_cache() : drop_from_cache()};
    const auto load = [&](int chunk, auto& next) { chunks.load(chunk, x, next, add.kFill, hinted); };
    load(0, held);
    const RowTarget<A> target = load_target(p.forward, row, x);
    RowSums<A, Form> sums;
    if (is_wanted<Form>(target)) sums = Team<kSize>::reduce(sum_row<RowSums<A, Form>>(chunks, held, load, add));
    Shared shared;
    if (Team<kSize>::knows()) {
      const FinishedRow<A> finished = finish_row<S>(p.forward, loss, row, target, sums);
      shared.gradient = row_gradient<S, Form>(p.backward, loss, row, target, finished.saved);
      shared.at_target = shared.gradient.at_target(target.x);
      if (Team<kSize>::leads()) totals.merge(store_row<S>(p.forward, loss, row, target, finished, sums));
    }
    shared = Team<kSize>::share(shared);
    const RowGradient<A, Form>& gradient = shared.gradient;
    if (!gradient.reads_logits()) held = {};
    S* grad_x = grad_row<S>(p.backward, row);
    const int last = chunks.count() - 1;
    for (int chunk = last; chunk >= 0; --chunk) {
      if (chunk < last && gradient.reads_logits()) {
        chunks.load(chunk, x, held, A(0), HintedLoad{drop_from_cache()});
      }
      write_gradient(chunks, chunk, held, gradient, grad_x, /*streams=*/last > 0);
    }
    if (gradient.reads_logits() && chunks.owns(gradient.target)) store(grad_x + gradient.target, shared.at_target);
  }
  finish_share<S, Team<kSize>::kIsBlock>(p.forward, shares, blockIdx.x, totals, of_shares);
}

}  // namespace ce_ext::cuda
