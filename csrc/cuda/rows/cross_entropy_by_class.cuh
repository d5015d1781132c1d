// The kernels of cross entropy for rows whose classes lie side by side: teams of threads share the classes of a row.
#pragma once

#include "cuda/rows/cross_entropy_rows.cuh"
#include "cuda/rows/row_launch.cuh"

namespace ce_ext::cuda {

template <class S>
__device__ __forceinline__ RowTarget<opmath_t<S>> load_target(const CrossEntropyProblem& p, int64_t row, const S* x) {
  return load_target<opmath_t<S>>(p, row, [&](int64_t c) { return load(x + c); });
}

template <class S, class Form, int kPacks>
__global__ void __launch_bounds__(max_row_threads(kManyRegisters<S, Form>), 1)
    cross_entropy_forward_by_class(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss, RowShape shape, Shares shares,
                                   Scratch scratch) {
  using A = opmath_t<S>;
  const Team team(shape);
  const int64_t share = blockIdx.x / shape.cluster;
  RowTotals totals;
  for (int64_t row = shares.begin(share) + team.index(); row < shares.end(share); row += team.count()) {
    const S* x = logits_row<S>(p, row);
    const RowTarget<A> target = load_target(p, row, x);
    RowSums<A, Form> sums;
    if (is_wanted<Form>(target)) {
      typename RowPart<S, kPacks>::template Held<S> held;
      const RowSplit<S> split(x, p.classes);
      sums = team.reduce(sum_row<RowSums<A, Form>, kPacks>(team, split, x, held, AddLogits<S, Form>(p, loss)));
    }
    if (team.leads()) totals.merge(store_row<S>(p, loss, row, target, finish_row<S>(p, loss, row, target, sums), sums));
  }
  if (team.ends_share()) finish_share<S>(p, shares, share, totals, scratch);
}

// Writes the gradient of a chunk of a row that is held, and may be overwritten by it.
template <int kPacks, class S, class Held, bool kLogitsChange>
__device__ __forceinline__ void write_gradient(const RowPart<S, kPacks>& part, Held& held,
                                               const RowGradient<opmath_t<S>, kLogitsChange>& gradient, S* grad_x,
                                               bool streams) {
  part.for_each([&](int i, int64_t c, auto n) {
    opmath_t<S> values[n.value];
    convert(held.at(i, n), values);
    gradient.apply(c, values);
    store_pack(grad_x + c, values, streams);
  });
}

// A block, or team, for a chunk of a row. The gradients of rows are computed, unless they are given.
template <class S, bool kLogitsChange>
__global__ void __launch_bounds__(kMaxBackwardThreads, resident_blocks(kMaxBackwardThreads, sizeof(S) == 8  ? 128
                                                                                            : kLogitsChange ? 80
                                                                                                            : 64))
    cross_entropy_backward_by_class(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> loss, RowShape shape,
                                    unsigned chunks, const RowGradient<opmath_t<S>, kLogitsChange>* gradients) {
  const Team team(shape);
  const int64_t row = int64_t(blockIdx.x / chunks) * team.count() + team.index();
  if (row >= p.rows) return;
  const S* x = logits_row<S>(p, row);
  RowGradient<opmath_t<S>, kLogitsChange> gradient;
  if (gradients) {
    gradient = gradients[row];
  } else {
    const RowTarget<opmath_t<S>> target = load_target(p, row, x);
    if (team.leads()) report_if_bad(p, loss.bad_target, row, target);
    gradient = row_gradient<S, kLogitsChange>(p, loss, row, target, saved_row<S>(p, row));
  }
  const RowSplit<S> split(x, p.classes);
  const RowPart<S, kBackwardPacks> part(split, team, blockIdx.x % chunks);
  typename RowPart<S, kBackwardPacks>::template Held<S> held;
  if (gradient.reads_logits()) part.load(x, held);
  write_gradient(part, held, gradient, grad_row<S>(p, row), /*streams=*/false);
}

// Loss and gradient of rows that teams hold in registers. Longer rows are read again from the cache, the last chunk
// first. The gradient may lie over the logits: all that is wanted of other threads' is read before it is shared.
template <class S, class Form, int kPacks>
__global__ void __launch_bounds__(max_row_threads(kManyRegisters<S, Form>), 1)
    cross_entropy_with_grad_by_class(CrossEntropyWithGrad p, DeviceLoss<opmath_t<S>> loss, RowShape shape,
                                     Shares shares, Scratch scratch) {
  using A = opmath_t<S>;
  const Team team(shape);
  const int64_t share = blockIdx.x / shape.cluster;
  const int64_t chunks = chunks_of_row<kPacks, S>(p.forward.classes, team.size());
  RowTotals totals;
  for (int64_t row = shares.begin(share) + team.index(); row < shares.end(share); row += team.count()) {
    const S* x = logits_row<S>(p.forward, row);
    const RowTarget<A> target = load_target(p.forward, row, x);
    const RowSplit<S> split(x, p.forward.classes);
    typename RowPart<S, kPacks>::template Held<S> held;
    RowSums<A, Form> sums;
    if (is_wanted<Form>(target)) {
      sums = team.reduce(sum_row<RowSums<A, Form>, kPacks>(team, split, x, held, AddLogits<S, Form>(p.forward, loss)));
    }
    RowGradient<A, Form::kLogitsChange> gradient;
    if (team.knows()) {
      const FinishedRow<A> finished = finish_row<S>(p.forward, loss, row, target, sums);
      gradient = row_gradient<S, Form::kLogitsChange>(p.backward, loss, row, target, finished.saved);
      if (team.leads()) totals.merge(store_row<S>(p.forward, loss, row, target, finished, sums));
    }
    gradient = team.share(gradient);
    S* grad_x = grad_row<S>(p.backward, row);
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const RowPart<S, kPacks> part(split, team, chunk);
      if (chunk < chunks - 1 && gradient.reads_logits()) part.load(x, held);
      write_gradient(part, held, gradient, grad_x, /*streams=*/chunks > 1);
    }
  }
  if (team.ends_share()) finish_share<S>(p.forward, shares, share, totals, scratch);
}

// Of few rows that are long: several blocks share a row, the last of which finishes it. Each row is a share. With the
// loss, their gradients but for the classes, where they are wanted.
template <class S, class Form, int kPacks, class Problem>
__global__ void __launch_bounds__(max_row_threads(kManyRegisters<S, Form>), 1)
    cross_entropy_parts_by_class(Problem problem, DeviceLoss<opmath_t<S>> loss, RowShape shape, RowParts parts,
                                 Shares shares, Scratch scratch, RowSums<opmath_t<S>, Form>* part_sums,
                                 RowGradient<opmath_t<S>, Form::kLogitsChange>* gradients) {
  using A = opmath_t<S>;
  using Sums = RowSums<A, Form>;
  const CrossEntropyForward& p = forward_of(problem);
  const Team team(shape);
  const int64_t row = parts.row(), begin = parts.begin();
  const S* x = logits_row<S>(p, row);
  const RowTarget<A> target = load_target(p, row, x);
  Sums sums;
  if (is_wanted<Form>(target)) {
    typename RowPart<S, kPacks>::template Held<S> held;
    const RowSplit<S> split(x + begin, parts.size(p.classes));
    const AddLogits<S, Form> add(p, loss);
    sums = team.reduce(sum_row<Sums, kPacks>(
        team, split, x + begin, held, [&](Sums& of_row, auto& values, int64_t c) { add(of_row, values, begin + c); }));
  }
  if (!parts.add_up(sums, part_sums, scratch)) return;
  RowTotals totals;
  if (threadIdx.x == 0) {
    const FinishedRow<A> finished = finish_row<S>(p, loss, row, target, sums);
    if constexpr (std::is_same_v<Problem, CrossEntropyWithGrad>) {
      gradients[row] = row_gradient<S, Form::kLogitsChange>(problem.backward, loss, row, target, finished.saved);
    }
    totals = store_row<S>(p, loss, row, target, finished, sums);
  }
  finish_share<S>(p, shares, row, totals, scratch);
}

}  // namespace ce_ext::cuda
