// The kernels of soft cross entropy: teams of threads share rows whose classes lie side by side (by class), or threads
// have rows of their own, several neighbours whose classes lie apart (by row) or short ones (in tiles).
#pragma once

#include "cuda/rows/row_launch.cuh"
#include "cuda/rows/soft_cross_entropy_rows.cuh"

namespace ce_ext::cuda {

// The dynamic shared memory of tiles of logits and of probabilities, in bytes.
template <class S, class Q>
constexpr int64_t tiles_bytes(int64_t classes) {
  return Tile<S>::bytes(kThreadsByTwoTiles<S>, classes) + Tile<Q>::bytes(kThreadsByTwoTiles<S>, classes);
}

// Calls f(c, x, q) with the logits and probabilities from class c on, of all classes of the part.
template <int kPacks, class S, class Q, class F>
__device__ __forceinline__ void for_each_class(const RowPart<S, kPacks>& part, const S* x, const Q* q, const F& f) {
  typename RowPart<S, kPacks>::template Held<S> held_x;
  typename RowPart<S, kPacks>::template Held<Q> held_q;
  part.load(x, held_x);
  part.load(q, held_q);
  part.for_each([&](int i, int64_t c, auto n) {
    opmath_t<S> logits[n.value], probabilities[n.value];
    convert(held_x.at(i, n), logits);
    convert(held_q.at(i, n), probabilities);
    f(c, logits, probabilities);
  });
}

// What a team adds up of a row, or of the part of one that begins with class `begin`.
template <class Form, class S, class Q>
__device__ __forceinline__ RowSums<opmath_t<S>, Form> add_classes(const SoftCrossEntropyForward& p,
                                                                  const SoftDeviceLoss<opmath_t<S>>& loss,
                                                                  const Team& team, const RowSplit<S>& split,
                                                                  const S* x, const Q* q, int64_t begin) {
  using A = opmath_t<S>;
  const AddClasses<A, Form> add{p, loss};
  const int64_t chunks = chunks_of_row<kPacksOfTwo, S>(split.size, team.size());
  RowSums<A, Form> sums;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for_each_class(RowPart<S, kPacksOfTwo>(split, team, chunk), x, q,
                   [&](int64_t c, auto& logits, auto& probabilities) { add(sums, logits, probabilities, begin + c); });
  }
  return team.reduce(sums);
}

template <class S, class Q, class Form>
__global__ void __launch_bounds__(max_row_threads(/*many_registers=*/true), 1)
    soft_cross_entropy_forward_by_class(SoftCrossEntropyForward p, SoftDeviceLoss<opmath_t<S>> loss, RowShape shape,
                                        Shares shares, Scratch scratch) {
  using A = opmath_t<S>;
  using Part = RowPart<S, kPacksOfTwo>;
  const Team team(shape);
  const int64_t share = blockIdx.x / shape.cluster;
  RowTotals totals;
  for (int64_t row = shares.begin(share) + team.index(); row < shares.end(share); row += team.count()) {
    const S* x = logits_row<S>(p, row);
    const Q* q = target_row<Q>(p, row);
    const RowSplit<S> split(x, p.classes);
    const RowSums<A, Form> sums = add_classes<Form>(p, loss, team, split, x, q, /*begin=*/0);
    Sum<A> log_prob;
    if constexpr (Form::kReport) {
      if (p.report) {
        const RowStats<A> stats = team.share(sums.softmax.finish());
        const int64_t chunks = chunks_of_row<kPacksOfTwo, S>(p.classes, team.size());
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
          for_each_class(Part(split, team, chunk), x, q, [&](int64_t, auto& logits, auto& probabilities) {
            log_prob.value += target_log_prob(stats, logits_of<true>(loss.logits), logits, probabilities);
          });
        }
        log_prob = team.reduce(log_prob);
      }
    }
    if (team.leads()) totals.merge(store_row<S>(p, loss, row, sums, log_prob.value));
  }
  if (team.ends_share()) finish_share<S>(p, shares, share, totals, scratch);
}

// Of few rows that are long: several blocks share a row, the last of which finishes it. Each row is a share.
template <class S, class Q, class Form>
__global__ void __launch_bounds__(max_row_threads(/*many_registers=*/true), 1)
    soft_cross_entropy_parts_by_class(SoftCrossEntropyForward p, SoftDeviceLoss<opmath_t<S>> loss, RowShape shape,
                                      RowParts parts, Shares shares, Scratch scratch,
                                      RowSums<opmath_t<S>, Form>* part_sums) {
  using A = opmath_t<S>;
  const Team team(shape);
  const int64_t row = parts.row(), begin = parts.begin();
  const S* x = logits_row<S>(p, row) + begin;
  const RowSplit<S> split(x, parts.size(p.classes));
  RowSums<A, Form> sums = add_classes<Form>(p, loss, team, split, x, target_row<Q>(p, row) + begin, begin);
  if (!parts.add_up(sums, part_sums, scratch)) return;
  RowTotals totals;
  if (threadIdx.x == 0) totals = store_row<S>(p, loss, row, sums, /*target_log_prob=*/A(0));
  finish_share<S>(p, shares, row, totals, scratch);
}

// A block, or team, for a chunk of a row.
template <class S, class Q, bool kLogitsChange>
__global__ void __launch_bounds__(kMaxBackwardThreads,
                                  resident_blocks(kMaxBackwardThreads,
                                                  sizeof(S) == 8 || sizeof(Q) > sizeof(S) ? 128 : 64))
    soft_cross_entropy_backward_by_class(SoftCrossEntropyBackward p, SoftDeviceLoss<opmath_t<S>> loss, RowShape shape,
                                         unsigned chunks) {
  const Team team(shape);
  const int64_t row = int64_t(blockIdx.x / chunks) * team.count() + team.index();
  if (row >= p.rows) return;
  const auto gradient = row_gradient<S, kLogitsChange>(p, loss, row);
  const S* x = logits_row<S>(p, row);
  S* grad_x = grad_row<S>(p, p.grad_input, p.grad_input_rows, row);
  Q* grad_q = grad_row<Q>(p, p.grad_target, p.grad_target_rows, row);
  const RowSplit<S> split(x, p.classes);
  const RowPart<S, kBackwardPacksOfTwo> part(split, team, blockIdx.x % chunks);
  for_each_class(part, x, target_row<Q>(p, row), [&](int64_t c, auto& logits, auto& probabilities) {
    differentiate(p, loss.loss, gradient, c, logits, probabilities);
    if (grad_x) store_pack(grad_x + c, logits);
    if (grad_q) store_pack(grad_q + c, probabilities);
  });
}

// The loss of a thread's rows, of which `row` is the first; returns what they add to their group.
template <class S, class Form, int kRows, class Rows, class Targets>
__device__ __forceinline__ RowTotals rows_forward(const SoftCrossEntropyForward& p,
                                                  const SoftDeviceLoss<opmath_t<S>>& loss, int64_t row, const Rows& x,
                                                  const Targets& q) {
  using A = opmath_t<S>;
  RowSums<A, Form> sums[kRows];
  sum_rows<Pair<A>>(RowPairs<Rows, Targets>{x, q}, p.classes, sums, AddClasses<A, Form>{p, loss});
  RowTotals totals;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    A log_prob(0);
    if constexpr (Form::kReport) {
      if (p.report) {
        const RowStats<A> stats = sums[r].softmax.finish();
        for (int64_t c = 0; c < p.classes; ++c) {
          const A logit[1] = {x.at(r, c)}, probability[1] = {q.at(r, c)};
          log_prob += target_log_prob(stats, logits_of<true>(loss.logits), logit, probability);
        }
      }
    }
    totals.merge(store_row<S>(p, loss, row + r, sums[r], log_prob));
  }
  return totals;
}

// Their gradients. grad_x and grad_q may be where x and q are; of those that are not wanted, nothing is stored.
template <class S, bool kLogitsChange, int kRows, class Rows, class Targets, class GradRows, class GradTargets>
__device__ __forceinline__ void rows_backward(const SoftCrossEntropyBackward& p,
                                              const SoftDeviceLoss<opmath_t<S>>& loss, int64_t row, const Rows& x,
                                              const Targets& q, const GradRows& grad_x, const GradTargets& grad_q) {
  using A = opmath_t<S>;
  SoftCrossEntropyGradient<A, kLogitsChange> gradients[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) gradients[r] = row_gradient<S, kLogitsChange>(p, loss, row + r);
  const RowPairs<Rows, Targets> pairs{x, q};
  for_each_class<Pair<A>, kRows>(pairs, p.classes, [&](int64_t c, const Pair<A>(&values)[kRows]) {
    A logits[kRows], probabilities[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      A logit[1] = {values[r].first}, probability[1] = {values[r].second};
      differentiate(p, loss.loss, gradients[r], c, logit, probability);
      logits[r] = logit[0];
      probabilities[r] = probability[0];
    }
    if (p.grad_input) grad_x.store(c, logits);
    if (p.grad_target) grad_q.store(c, probabilities);
  });
}

// kRows neighbours a thread.
template <class S, class Q, class Form, int kRows>
__global__ void __launch_bounds__(kThreadsByRow,
                                  resident_blocks(kThreadsByRow, kRows > 1 ? 128 : kRowRegisters<S, Form>))
    soft_cross_entropy_forward_by_row(SoftCrossEntropyForward p, SoftDeviceLoss<opmath_t<S>> loss, Shares shares,
                                      Scratch scratch) {
  RowTotals totals;
  const int64_t end = shares.end(blockIdx.x);
  for (int64_t row = shares.begin(blockIdx.x) + threadIdx.x * kRows; row < end; row += kThreadsByRow * kRows) {
    const StridedRows<const S, kRows> x{logits_row<S>(p, row), p.input_class_stride};
    const StridedRows<const Q, kRows> q{target_row<Q>(p, row), p.target_class_stride};
    totals.merge(rows_forward<S, Form, kRows>(p, loss, row, x, q));
  }
  finish_share<S>(p, shares, blockIdx.x, totals, scratch);
}

template <class S, class Q, bool kLogitsChange, int kRows>
__global__ void __launch_bounds__(kThreadsByRow, resident_blocks(kThreadsByRow, sizeof(S) == 8 || kRows > 1 ? 128 : 64))
    soft_cross_entropy_backward_by_row(SoftCrossEntropyBackward p, SoftDeviceLoss<opmath_t<S>> loss) {
  const int64_t row = (int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x) * kRows;
  if (row >= p.rows) return;
  const StridedRows<const S, kRows> x{logits_row<S>(p, row), p.input_class_stride};
  const StridedRows<const Q, kRows> q{target_row<Q>(p, row), p.target_class_stride};
  const StridedRows<S, kRows> grad_x{grad_row<S>(p, p.grad_input, p.grad_input_rows, row), p.grad_input_class_stride};
  const StridedRows<Q, kRows> grad_q{grad_row<Q>(p, p.grad_target, p.grad_target_rows, row),
                                     p.grad_target_class_stride};
  rows_backward<S, kLogitsChange, kRows>(p, loss, row, x, q, grad_x, grad_q);
}

// A thread a row, of those that are in shared memory.
template <class S, class Q, class Form>
__global__ void __launch_bounds__(kThreadsByTwoTiles<S>,
                                  resident_blocks(kThreadsByTwoTiles<S>, sizeof(S) == 8 ? 255 : 128))
    soft_cross_entropy_forward_in_tiles(SoftCrossEntropyForward p, SoftDeviceLoss<opmath_t<S>> loss, Shares shares,
                                        Scratch scratch) {
  constexpr int kThreads = kThreadsByTwoTiles<S>;
  RowTotals totals;
  const int64_t end = shares.end(blockIdx.x);
  for (int64_t first = shares.begin(blockIdx.x); first < end; first += kThreads) {
    const Tile<S> x(logits_row<S>(p, first), p.classes, end - first);
    const Tile<Q> q(target_row<Q>(p, first), p.classes, end - first, Tile<S>::bytes(kThreads, p.classes));
    x.load();
    q.load();
    __syncthreads();
    if (x.has_row()) totals.merge(rows_forward<S, Form, 1>(p, loss, first + threadIdx.x, x, q));
    __syncthreads();
  }
  finish_share<S>(p, shares, blockIdx.x, totals, scratch);
}

template <class S, class Q, bool kLogitsChange>
__global__ void __launch_bounds__(kThreadsByTwoTiles<S>,
                                  resident_blocks(kThreadsByTwoTiles<S>, sizeof(S) == 8 ? 168 : 96))
    soft_cross_entropy_backward_in_tiles(SoftCrossEntropyBackward p, SoftDeviceLoss<opmath_t<S>> loss) {
  constexpr int kThreads = kThreadsByTwoTiles<S>;
  const int64_t first = int64_t(blockIdx.x) * kThreads;
  const Tile<S> x(logits_row<S>(p, first), p.classes, p.rows - first);
  const Tile<Q> q(target_row<Q>(p, first), p.classes, p.rows - first, Tile<S>::bytes(kThreads, p.classes));
  x.load();
  q.load();
  __syncthreads();
  if (x.has_row()) rows_backward<S, kLogitsChange, 1>(p, loss, first + threadIdx.x, x, q, x, q);
  __syncthreads();
  if (p.grad_input) x.store(grad_row<S>(p, p.grad_input, p.grad_input_rows, first));
  if (p.grad_target) q.store(grad_row<Q>(p, p.grad_target, p.grad_target_rows, first));
}

}  // namespace ce_ext::cuda
