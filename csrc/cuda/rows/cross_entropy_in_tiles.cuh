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

  Tile<S> tile;
  int64_t* targets;
  SavedRow<A>* saved;

  __device__ __forceinline__ CrossEntropyStage(unsigned char* memory, const TileShape& shape, const S* first,
                                               int64_t classes, int rows)
      : tile(memory, first, int(classes), rows),
        targets(reinterpret_cast<int64_t*>(memory + Tile<S>::bytes(shape.rows(), int(classes)))),
        saved(reinterpret_cast<SavedRow<A>*>(targets + shape.rows())) {}

  static __host__ __device__ int bytes(const TileShape& shape, int64_t classes, bool has_saved) {
    return Tile<S>::bytes(shape.rows(), int(classes)) +
           shape.rows() * int(sizeof(int64_t) + (has_saved ? sizeof(SavedRow<A>) : 0));
  }

  // Starts the copies of the tile of the rows from `first` on.
  __device__ __forceinline__ void start(const CrossEntropyProblem& p, int64_t first) const {
    tile.start_load(logits_row<S>(p, first));
    if (int(threadIdx.x) < tile.rows()) copy_async<8>(targets + threadIdx.x, p.target + first + threadIdx.x);
  }
  __device__ __forceinline__ void start_saved(const CrossEntropyBackward& p, int64_t first) const {
    if (int(threadIdx.x) >= tile.rows()) return;
    const auto* from = static_cast<const SavedRow<A>*>(p.saved) + first + threadIdx.x;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      copy_async<sizeof(A)>(reinterpret_cast<A*>(saved + threadIdx.x) + i, reinterpret_cast<const A*>(from) + i);
    }
  }

  __device__ __forceinline__ RowTarget<A> target(const CrossEntropyProblem& p, int r) const {
    return look_up_target<A>(p, targets[r], [&](int64_t c) { return load(tile.row(r) + c); });
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
                                   Scratch scratch) {
  using A = opmath_t<S>;
  using Stage = CrossEntropyStage<S>;
  const AddLogits<S, Form> add(p, loss);
  const WarpRows rows(shape);
  const auto stage_of = [&](int64_t first, int count, unsigned char* memory) {
    return Stage(memory, shape, logits_row<S>(p, first), p.classes, count);
  };
  RowTotals totals;
  for_each_tile(
      shares, shape, Stage::bytes(shape, p.classes, /*has_saved=*/false),
      [&](int64_t first, int count, unsigned char* memory) { stage_of(first, count, memory).start(p, first); },
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        const auto sums = rows.sum_up(
            [&](int r) { return rows.template words_of<kWord>(stage.tile, r).template sum<RowSums<A, Form>>(add); });
        if (!rows.has_own(count)) return;
        const RowTarget<A> target = stage.target(p, rows.own());
        const int64_t row = first + rows.own();
        totals.merge(store_row<S>(p, loss, row, target, finish_row<S>(p, loss, row, target, sums), sums));
      });
  finish_share<S>(p, shares, blockIdx.x, totals, scratch);
}

template <class S, class Form, int kWord>
__global__ void __launch_bounds__(kTileThreads, resident_blocks(kTileThreads, kTileRegisters<S, Form>))
    cross_entropy_backward_in_tiles(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> loss, TileShape shape,
                                    Shares shares) {
  using A = opmath_t<S>;
  using Stage = CrossEntropyStage<S>;
  const WarpRows rows(shape);
  const auto stage_of = [&](int64_t first, int count, unsigned char* memory) {
    return Stage(memory, shape, logits_row<S>(p, first), p.classes, count);
  };
  for_each_tile(
      shares, shape, Stage::bytes(shape, p.classes, /*has_saved=*/true),
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        stage.start(p, first);
        stage.start_saved(p, first);
      },
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        RowTarget<A> target{};
        RowGradient<A, Form> gradient{};
        if (rows.has_own(count)) {
          const int64_t row = first + rows.own();
          target = stage.target(p, rows.own());
          report_if_bad(p, loss.bad_target, row, target);
          gradient = row_gradient<S, Form>(p, loss, row, target, stage.saved[rows.own()]);
        }
        write_gradients<kWord>(rows, stage.tile, gradient, target);
        __syncthreads();
        stage.tile.store(grad_row<S>(p, first));
      });
}

template <class S, class Form, int kWord>
__global__ void __launch_bounds__(kTileThreads, resident_blocks(kTileThreads, kTileRegisters<S, Form>))
    cross_entropy_with_grad_in_tiles(CrossEntropyWithGrad p, DeviceLoss<opmath_t<S>> loss, TileShape shape,
                                     Shares shares, Scratch scratch) {
  using A = opmath_t<S>;
  using Stage = CrossEntropyStage<S>;
  const AddLogits<S, Form> add(p.forward, loss);
  const WarpRows rows(shape);
  const auto stage_of = [&](int64_t first, int count, unsigned char* memory) {
    return Stage(memory, shape, logits_row<S>(p.forward, first), p.forward.classes, count);
  };
  RowTotals totals;
  for_each_tile(
      shares, shape, Stage::bytes(shape, p.forward.classes, /*has_saved=*/false),
      [&](int64_t first, int count, unsigned char* memory) { stage_of(first, count, memory).start(p.forward, first); },
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        const auto sums = rows.sum_up(
            [&](int r) { return rows.template words_of<kWord>(stage.tile, r).template sum<RowSums<A, Form>>(add); });
        RowTarget<A> target{};
        RowGradient<A, Form> gradient{};
        if (rows.has_own(count)) {
          const int64_t row = first + rows.own();
          target = stage.target(p.forward, rows.own());
          const FinishedRow<A> finished = finish_row<S>(p.forward, loss, row, target, sums);
          totals.merge(store_row<S>(p.forward, loss, row, target, finished, sums));
          gradient = row_gradient<S, Form>(p.backward, loss, row, target, finished.saved);
        }
        write_gradients<kWord>(rows, stage.tile, gradient, target);
        __syncthreads();
        stage.tile.store(grad_row<S>(p.backward, first));
      });
  finish_share<S>(p.forward, shares, blockIdx.x, totals, scratch);
}

}  // namespace ce_ext::cuda
