// The kernels of soft cross entropy: teams of threads share rows whose classes lie side by side (by class), or threads
// have rows of their own, several neighbours whose classes lie apart (by row) or short ones (in tiles).
#pragma once

#include "cuda/device/divisor.cuh"
#include "cuda/rows/few_rows.cuh"
#include "cuda/rows/row_launch.cuh"
#include "cuda/rows/soft_cross_entropy_rows.cuh"

namespace ce_ext::cuda {

// What sums over logits and probabilities take of registers.
template <class S, class Form>
constexpr int kSoftRegisters = sizeof(S) == 8  ? 224
                               : Form::kReport ? 168
                                               : 112;

// Tiles of logits and probabilities.
template <class S, class Q>
TileShape tile_shape(const SoftCrossEntropyProblem& p) {
  const int64_t row_bytes = p.classes * sizeof(S);
  return TileShape(row_bytes, row_bytes + p.classes * sizeof(Q), sizeof(S), /*wider=*/false, p.input);
}

// What a thread of a team has in flight of both tensors: half of the packs of each.
template <class S, int kSize>
using ChunksOfTwo = RowChunks<S, kPacks / 2, Team<kSize>>;

template <class Chunks, class S, class Q>
struct HeldClasses {
  typename Chunks::template Held<S> logits;
  typename Chunks::template Held<Q> probabilities;

  __device__ __forceinline__ void load(const Chunks& chunks, int chunk, const S* x, const Q* q) {
    chunks.load(chunk, x, logits, opmath_t<S>(0));
    chunks.load_other(chunk, q, probabilities, opmath_t<Q>(0));
  }

  // Calls f(c, x, q) with the logits and probabilities from class c on.
  template <class F>
  __device__ __forceinline__ void for_each(const Chunks& chunks, int chunk, const F& f) {
    chunks.for_each(chunk, [&](int i, int64_t c, auto n) {
      opmath_t<S> x[n.value], q[n.value];
      convert(logits.at(i, n), x);
      convert(probabilities.at(i, n), q);
      f(c, x, q);
    });
  }
};

// What a thread adds up of a row, or of the part of one that begins with class `begin`.
template <class Form, class Chunks, class S, class Q>
__device__ __forceinline__ RowSums<opmath_t<S>, Form> add_classes(const SoftCrossEntropyForward& p,
                                                                  const SoftDeviceLoss<opmath_t<S>>& loss,
                                                                  const Chunks& chunks, const S* x, const Q* q,
                                                                  int64_t begin) {
  using Sums = RowSums<opmath_t<S>, Form>;
  using Held = HeldClasses<Chunks, S, Q>;
  const AddClasses<opmath_t<S>, Form> add{p, loss};
  Held held;
  Sums sums;
  held.load(chunks, 0, x, q);
  const auto load = [&](int chunk, Held& next) { next.load(chunks, chunk, x, q); };
  for_each_chunk(chunks.count(), held, load, [&](int chunk) {
    held.for_each(chunks, chunk,
                  [&](int64_t c, auto& logits, auto& probabilities) { add(sums, logits, probabilities, begin + c); });
  });
  return sums;
}

template <class S, class Q, class Form, int kSize>
__global__ void __launch_bounds__(Team<kSize>::kThreads,
                                  resident_blocks(Team<kSize>::kThreads, kSoftRegisters<S, Form>))
    soft_cross_entropy_forward_by_class(SoftCrossEntropyForward p, SoftDeviceLoss<opmath_t<S>> loss, Shares shares,
                                        RowTotals* of_shares) {
  using A = opmath_t<S>;
  RowTotals totals;
  const int64_t end = shares.end(blockIdx.x);
  for (int64_t row = shares.begin(blockIdx.x) + Team<kSize>::index(); row < end; row += Team<kSize>::kCount) {
    const S* x = logits_row<S>(p, row);
    const Q* q = target_row<Q>(p, row);
    const ChunksOfTwo<S, kSize> chunks(x, p.classes);
    const auto sums = Team<kSize>::reduce(add_classes<Form>(p, loss, chunks, x, q, /*begin=*/0));
    SecondSums<A, Form> second;
    if constexpr (Form::kReport) {
      if (second.needed(p)) {
        const RowStats<A> stats = Team<kSize>::share(sums.softmax.finish());
        for (int chunk = 0; chunk < chunks.count(); ++chunk) {
          HeldClasses<ChunksOfTwo<S, kSize>, S, Q> held;
          held.load(chunks, chunk, x, q);
          held.for_each(chunks, chunk, [&](int64_t c, auto& logits, auto& probabilities) {
            second.add(p, loss, stats, logits, probabilities, c);
          });
        }
        second = Team<kSize>::reduce(second);
      }
    }
    if (Team<kSize>::leads()) totals.merge(store_row<S>(p, loss, row, sums, second));
  }
  finish_share<S, Team<kSize>::kIsBlock>(p, shares, blockIdx.x, totals, of_shares);
}

// Of few rows that are long: several blocks share a row, the last of which finishes it. Each row is a share.
template <class S, class Q, class Form>
__global__ void __launch_bounds__(kThreadsOfPart, resident_blocks(kThreadsOfPart, kSoftRegisters<S, Form>))
    soft_cross_entropy_parts_by_class(SoftCrossEntropyForward p, SoftDeviceLoss<opmath_t<S>> loss, RowParts parts,
                                      Shares shares, RowTotals* of_shares, RowSums<opmath_t<S>, Form>* part_sums,
                                      unsigned* counters) {
  using A = opmath_t<S>;
  const int64_t row = parts.row(), begin = parts.begin();
  const S* x = logits_row<S>(p, row) + begin;
  const ChunksOfTwo<S, kThreadsOfPart> chunks(x, parts.size(p.classes));
  auto sums = block_reduce(add_classes<Form>(p, loss, chunks, x, target_row<Q>(p, row) + begin, begin));
  if (!parts.add_up(sums, part_sums, counters)) return;
  RowTotals totals;
  if (threadIdx.x == 0) totals = store_row<S>(p, loss, row, sums, SecondSums<A, Form>());
  finish_share<S, /*kOneThread=*/true>(p, shares, row, totals, of_shares);
}

// A team for a chunk of a row.
template <class S, class Q, bool kLogitsChange, bool kFocal, int kSize>
__global__ void __launch_bounds__(Team<kSize>::kThreads,
                                  resident_blocks(Team<kSize>::kThreads,
                                                  sizeof(S) == 8 || sizeof(Q) > sizeof(S) ? 128 : 80))
    soft_cross_entropy_backward_by_class(SoftCrossEntropyBackward p, SoftDeviceLoss<opmath_t<S>> loss,
                                         Divisor chunks_of_row) {
  const unsigned team = blockIdx.x * Team<kSize>::kCount + Team<kSize>::index();
  const unsigned row = chunks_of_row.divide(team);
  const int chunk = int(team - row * chunks_of_row.value);
  if (row >= p.rows) return;
  const auto gradient = row_gradient<S, kLogitsChange>(p, loss, row);
  const S* x = logits_row<S>(p, row);
  S* grad_x = grad_row<S>(p, p.grad_input, p.grad_input_rows, row);
  Q* grad_q = grad_row<Q>(p, p.grad_target, p.grad_target_rows, row);
  const ChunksOfTwo<S, kSize> chunks(x, p.classes);
  HeldClasses<ChunksOfTwo<S, kSize>, S, Q> held;
  held.load(chunks, chunk, x, target_row<Q>(p, row));
  held.for_each(chunks, chunk, [&](int64_t c, auto& logits, auto& probabilities) {
    differentiate<kFocal>(p, loss.loss, gradient, c, logits, probabilities);
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
    SecondSums<A, Form> second[1];
    if constexpr (Form::kReport) {
      if (second->needed(p)) {
        const RowStats<A> stats = sums[r].softmax.finish();
        sum_parts(p.classes, second, [&](int64_t begin, int64_t end, auto& part) {
          for (int64_t c = begin; c < end; ++c) {
            const A logit[1] = {x.at(r, c)}, probability[1] = {q.at(r, c)};
            part->add(p, loss, stats, logit, probability, c);
          }
        });
      }
    }
    totals.merge(store_row<S>(p, loss, row + r, sums[r], *second));
  }
  return totals;
}

// Their gradients. grad_x and grad_q may be where x and q are; of those that are not wanted, nothing is stored.
template <class S, bool kLogitsChange, bool kFocal, int kRows, class Rows, class Targets, class GradRows,
          class GradTargets>
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
      differentiate<kFocal>(p, loss.loss, gradients[r], c, logit, probability);
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
                                      RowTotals* of_shares) {
  RowTotals totals;
  const int64_t end = shares.end(blockIdx.x);
  for (int64_t row = shares.begin(blockIdx.x) + threadIdx.x * kRows; row < end; row += kThreadsByRow * kRows) {
    const StridedRows<const S, kRows> x{logits_row<S>(p, row), p.input_class_stride};
    const StridedRows<const Q, kRows> q{target_row<Q>(p, row), p.target_class_stride};
    totals.merge(rows_forward<S, Form, kRows>(p, loss, row, x, q));
  }
  finish_share<S>(p, shares, blockIdx.x, totals, of_shares);
}

template <class S, class Q, bool kLogitsChange, bool kFocal, int kRows>
__global__ void __launch_bounds__(kThreadsByRow, resident_blocks(kThreadsByRow, sizeof(S) == 8 ? 168
                                                                                : kRows > 1    ? 128
                                                                                               : 96))
    soft_cross_entropy_backward_by_row(SoftCrossEntropyBackward p, SoftDeviceLoss<opmath_t<S>> loss) {
  const int64_t row = (int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x) * kRows;
  if (row >= p.rows) return;
  const StridedRows<const S, kRows> x{logits_row<S>(p, row), p.input_class_stride};
  const StridedRows<const Q, kRows> q{target_row<Q>(p, row), p.target_class_stride};
  const StridedRows<S, kRows> grad_x{grad_row<S>(p, p.grad_input, p.grad_input_rows, row), p.grad_input_class_stride};
  const StridedRows<Q, kRows> grad_q{grad_row<Q>(p, p.grad_target, p.grad_target_rows, row),
                                     p.grad_target_class_stride};
  rows_backward<S, kLogitsChange, kFocal, kRows>(p, loss, row, x, q, grad_x, grad_q);
}

// A stage of shared memory: logits and probabilities of a tile, which may become their gradients.
template <class S, class Q>
struct SoftStage {
  Tile<S> x;
  Tile<Q> q;

  static __host__ __device__ int bytes(const TileShape& shape, int64_t classes) {
    return Tile<S>::bytes(shape.rows(), int(classes)) + Tile<Q>::bytes(shape.rows(), int(classes));
  }

  __device__ __forceinline__ SoftStage(unsigned char* memory, const TileShape& shape, const S* first_x,
                                       const Q* first_q, int classes, int rows)
      : x(memory, first_x, classes, rows), q(memory + Tile<S>::bytes(shape.rows(), classes), first_q, classes, rows) {}

  // Calls f(c, x, q, count) for the classes of row r that this lane takes: several from c on, a constant number of
  // them, where it takes neighbours, else one at a time.
  template <class F>
  __device__ __forceinline__ void for_each(const WarpRows& rows, int r, const F& f) const {
    S* logits = x.row(r);
    Q* probabilities = q.row(r);
    const auto words = rows.words_of<sizeof(S)>(x, r);
    words.for_each_words([&](int first, auto count) {
      if (words.lanes == 1) return f(first, logits + first, probabilities + first, count);
#pragma unroll
      for (int i = 0; i < count.value; ++i) {
        const int c = first + i * words.lanes;
        f(c, logits + c, probabilities + c, std::integral_constant<int, 1>());
      }
    });
  }
};

template <class S, class Q, class Form>
__global__ void __launch_bounds__(kTileThreads, resident_blocks(kTileThreads, sizeof(S) == 8 ? 255 : 128))
    soft_cross_entropy_forward_in_tiles(SoftCrossEntropyForward p, SoftDeviceLoss<opmath_t<S>> loss, TileShape shape,
                                        Shares shares, RowTotals* of_shares) {
  using A = opmath_t<S>;
  using Stage = SoftStage<S, Q>;
  using Sums = RowSums<A, Form>;
  const AddClasses<A, Form> add{p, loss};
  const WarpRows rows(shape);
  const auto stage_of = [&](int64_t first, int count, unsigned char* memory) {
    return Stage(memory, shape, logits_row<S>(p, first), target_row<Q>(p, first), int(p.classes), count);
  };
  RowTotals totals;
  for_each_tile(
      shares, shape, Stage::bytes(shape, p.classes),
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        stage.x.start_load(logits_row<S>(p, first));
        stage.q.start_load(target_row<Q>(p, first));
      },
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        const Sums sums = rows.sum_up([&](int r) {
          Sums of_row;
          stage.for_each(rows, r, [&](int64_t c, const S* x, const Q* q, auto count) {
            A logits[count.value], probabilities[count.value];
#pragma unroll
            for (int i = 0; i < count.value; ++i) {
              logits[i] = load(x + i);
              probabilities[i] = load(q + i);
            }
            add(of_row, logits, probabilities, c);
          });
          return of_row;
        });
        SecondSums<A, Form> second;
        if constexpr (Form::kReport) {
          if (second.needed(p)) {
            const RowStats<A> stats = sums.softmax.finish();
            const S* x = stage.x.row(rows.own());
            const Q* q = stage.q.row(rows.own());
            for (int c = 0; rows.has_own(count) && c < p.classes; ++c) {
              const A logit[1] = {load(x + c)}, probability[1] = {load(q + c)};
              second.add(p, loss, stats, logit, probability, c);
            }
          }
        }
        if (rows.has_own(count)) totals.merge(store_row<S>(p, loss, first + rows.own(), sums, second));
      });
  finish_share<S>(p, shares, blockIdx.x, totals, of_shares);
}

template <class S, class Q, bool kLogitsChange, bool kFocal>
__global__ void __launch_bounds__(kTileThreads, resident_blocks(kTileThreads, sizeof(S) == 8 ? 168 : 96))
    soft_cross_entropy_backward_in_tiles(SoftCrossEntropyBackward p, SoftDeviceLoss<opmath_t<S>> loss, TileShape shape,
                                         Shares shares) {
  using A = opmath_t<S>;
  using Stage = SoftStage<S, Q>;
  using Gradient = SoftCrossEntropyGradient<A, kLogitsChange>;
  const WarpRows rows(shape);
  const auto stage_of = [&](int64_t first, int count, unsigned char* memory) {
    return Stage(memory, shape, logits_row<S>(p, first), target_row<Q>(p, first), int(p.classes), count);
  };
  for_each_tile(
      shares, shape, Stage::bytes(shape, p.classes),
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        stage.x.start_load(logits_row<S>(p, first));
        stage.q.start_load(target_row<Q>(p, first));
      },
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        Gradient gradient{};
        if (rows.has_own(count)) gradient = row_gradient<S, kLogitsChange>(p, loss, first + rows.own());
        rows.write(gradient, [&](int r, const Gradient& of_row) {
          stage.for_each(rows, r, [&](int64_t c, S* x, Q* q, auto count) {
            A logits[count.value], probabilities[count.value];
#pragma unroll
            for (int i = 0; i < count.value; ++i) {
              logits[i] = load(x + i);
              probabilities[i] = load(q + i);
            }
            differentiate<kFocal>(p, loss.loss, of_row, c, logits, probabilities);
#pragma unroll
            for (int i = 0; i < count.value; ++i) {
              if (p.grad_input) store(x + i, logits[i]);
              if (p.grad_target) store(q + i, probabilities[i]);
            }
          });
        });
        __syncthreads();
        if (p.grad_input) stage.x.store(grad_row<S>(p, p.grad_input, p.grad_input_rows, first));
        if (p.grad_target) stage.q.store(grad_row<Q>(p, p.grad_target, p.grad_target_rows, first));
      });
}

}  // namespace ce_ext::cuda
