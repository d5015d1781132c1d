// The kernels of cross entropy for short rows, one after another: they go through tiles in shared memory.
#pragma once

#include "cuda/rows/cross_entropy_rows.cuh"
#include "cuda/rows/tiles.cuh"

namespace ce_ext::cuda {

// A stage of shared memory: logits of a tile, which may become gradients, the targets of its rows, and for the backward
// pass what was kept of them.
template <class S>
struct CrossEntropyStage {
  using A = opmath_t<S>;
  static constexpr int kSaved = sizeof(SavedRow<A>) / sizeof(A);

  Tile<S> tile;
  Tile<int64_t> targets;
  Tile<A> saved;

  __device__ __forceinline__ CrossEntropyStage(unsigned char* memory, const TileShape& shape,
                                               const CrossEntropyProblem& p, const void* saved_rows, int64_t first,
                                               int rows)
      : tile(memory, logits_row<S>(p, first), int(p.classes), rows),
        targets(memory + Tile<S>::bytes(shape.rows(), int(p.classes)), p.target + first, 1, rows),
        saved(memory + bytes(shape, p.classes, /*has_saved=*/false), static_cast<const A*>(saved_rows) + first * kSaved,
              kSaved, rows) {}

  static __host__ __device__ int bytes(const TileShape& shape, int64_t classes, bool has_saved) {
    const int of_saved = has_saved ? Tile<A>::bytes(shape.rows(), kSaved) : 0;
    return Tile<S>::bytes(shape.rows(), int(classes)) + Tile<int64_t>::bytes(shape.rows(), 1) + of_saved;
  }

  // Starts the copies of the rows from `first` on.
  __device__ __forceinline__ void start(const CrossEntropyProblem& p, const void* saved_rows, int64_t first) const {
    tile.start_load(logits_row<S>(p, first));
    targets.start_load(p.target + first);
    if (saved_rows) saved.start_load(static_cast<const A*>(saved_rows) + first * kSaved);
  }

  __device__ __forceinline__ RowTarget<A> target(const CrossEntropyProblem& p, int r) const {
    return look_up_target<A>(p, *targets.row(r), [&](int64_t c) { return load(tile.row(r) + c); });
  }
  __device__ __forceinline__ SavedRow<A> saved_row(int r) const {
    const A* row = saved.row(r);
    return {{row[0], row[1]}, row[2]};
  }
};

// The logits of the warp's rows become gradients: each lane gives that of the row that it finishes.
template <int kWord, class S, class A, class Form>
__device__ __forceinline__ void write_gradients(const WarpRows& rows, const Tile<S>& tile,
                                                const RowGradient<A, Form>& gradient, const RowTarget<A>& target) {
  __syncwarp();  // the logits of targets have been read
  rows.write(gradient, [&](int r, const RowGradient<A, Form>& of_row) {
    rows.template words_of<kWord>(tile, r).for_each([&](auto& word, int c) {
      constexpr int kCount = kWord / int(sizeof(S));
      A values[kCount];
      convert(word, values);
#pragma unroll
      for (int i = 0; i < kCount; ++i) values[i] = of_row.reads_logits() ? values[i] : A(0);
      of_row.apply(c, values);
      convert(values, word);
    });
  });
  __syncwarp();
  if (rows.has_own(tile.rows()) && gradient.reads_logits()) {
    store(tile.row(rows.own()) + target.index, gradient.at_target(target.x));
  }
}

template <class S, class Form>
constexpr int kTileRegisters = sizeof(S) == 8   ? 168
                               : kIsPlain<Form> ? 64
                                                : 128;

template <class S, class Form, int kWord>
__global__ void __launch_bounds__(kTileThreads, resident_blocks(kTileThreads, kTileRegisters<S, Form>))
    cross_entropy_forward_in_tiles(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss, TileShape shape, Shares shares,
                                   RowTotals* of_shares) {
  using A = opmath_t<S>;
  using Stage = CrossEntropyStage<S>;
  const AddLogits<S, Form> add(p, loss);
  const WarpRows rows(shape);
  RowTotals totals;
  for_each_tile(
      shares, shape, Stage::bytes(shape, p.classes, /*has_saved=*/false),
      [&](int64_t first, int count, unsigned char* memory) {
        Stage(memory, shape, p, nullptr, first, count).start(p, nullptr, first);
      },
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage(memory, shape, p, nullptr, first, count);
        const auto sums = rows.sum_up(
            [&](int r) { return rows.template words_of<kWord>(stage.tile, r).template sum<RowSums<A, Form>>(add); });
        if (!rows.has_own(count)) return;
        const RowTarget<A> target = stage.target(p, rows.own());
        const int64_t row = first + rows.own();
        totals.merge(store_row<S>(p, loss, row, target, finish_row<S>(p, loss, row, target, sums), sums));
      });
  finish_share<S>(p, shares, blockIdx.x, totals, of_shares);
}

template <class S, class Form, int kWord>
__global__ void __launch_bounds__(kTileThreads, resident_blocks(kTileThreads, kTileRegisters<S, Form>))
    cross_entropy_backward_in_tiles(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> loss, TileShape shape,
                                    Shares shares) {
  using A = opmath_t<S>;
  using Stage = CrossEntropyStage<S>;
  const WarpRows rows(shape);
  const GroupScale<S, CrossEntropyBackward> scale(p, loss.loss_scale);
  for_each_tile(
      shares, shape, Stage::bytes(shape, p.classes, /*has_saved=*/true),
      [&](int64_t first, int count, unsigned char* memory) {
        Stage(memory, shape, p, p.saved, first, count).start(p, p.saved, first);
      },
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage(memory, shape, p, p.saved, first, count);
        RowTarget<A> target{};
        RowGradient<A, Form> gradient{};
        if (rows.has_own(count)) {
          const int64_t row = first + rows.own();
          target = stage.target(p, rows.own());
          report_if_bad(p, loss.bad_target, row, target);
          const A scale_of_row = product(sample_weight<A>(p, row), scale(row));
          gradient = row_gradient<S, Form>(p, loss, target, stage.saved_row(rows.own()), scale_of_row);
        }
        write_gradients<kWord>(rows, stage.tile, gradient, target);
        __syncthreads();
        stage.tile.store(grad_row<S>(p, first));
      });
}

template <class S, class Form, int kWord>
__global__ void __launch_bounds__(kTileThreads, resident_blocks(kTileThreads, kTileRegisters<S, Form>))
    cross_entropy_with_grad_in_tiles(CrossEntropyWithGrad p, DeviceLoss<opmath_t<S>> loss, TileShape shape,
                                     Shares shares, RowTotals* of_shares) {
  using A = opmath_t<S>;
  using Stage = CrossEntropyStage<S>;
  const AddLogits<S, Form> add(p.forward, loss);
  const WarpRows rows(shape);
  const A scale = share_scale<S>(p.backward, loss.loss_scale, shares);
  RowTotals totals;
  for_each_tile(
      shares, shape, Stage::bytes(shape, p.forward.classes, /*has_saved=*/false),
      [&](int64_t first, int count, unsigned char* memory) {
        Stage(memory, shape, p.forward, nullptr, first, count).start(p.forward, nullptr, first);
      },
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage(memory, shape, p.forward, nullptr, first, count);
        const auto sums = rows.sum_up(
            [&](int r) { return rows.template words_of<kWord>(stage.tile, r).template sum<RowSums<A, Form>>(add); });
        RowTarget<A> target{};
        RowGradient<A, Form> gradient{};
        if (rows.has_own(count)) {
          const int64_t row = first + rows.own();
          target = stage.target(p.forward, rows.own());
          const FinishedRow<A> finished = finish_row<S>(p.forward, loss, row, target, sums);
          totals.merge(store_row<S>(p.forward, loss, row, target, finished, sums));
          const A scale_of_row = product(sample_weight<A>(p.backward, row), scale);
          gradient = row_gradient<S, Form>(p.backward, loss, target, finished.saved, scale_of_row);
        }
        write_gradients<kWord>(rows, stage.tile, gradient, target);
        __syncthreads();
        stage.tile.store(grad_row<S>(p.backward, first));
      });
  finish_share<S>(p.forward, shares, blockIdx.x, totals, of_shares);
}

}  // namespace ce_ext::cuda
