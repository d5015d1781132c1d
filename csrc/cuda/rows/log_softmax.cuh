// The kernels of log-softmax: teams of threads share rows whose classes lie side by side (by class), or threads have
// rows of their own, several neighbours whose classes lie apart (by row), or lanes share short ones (in tiles).
#pragma once

#include "cuda/rows/row_sums.cuh"
#include "cuda/rows/thread_rows.cuh"
#include "cuda/rows/tiles.cuh"
#include "host/log_softmax_problem.h"
#include "losses/log_softmax.h"

namespace ce_ext::cuda {

// Where a row of one of the tensors starts; S is const for those that are read.
template <class S, class Data>
__device__ __forceinline__ S* row_of(const LogSoftmaxProblem& p, Data* data, const RowStrides& rows, int64_t row) {
  return static_cast<S*>(data) + rows.offset(p.row_dims, row);
}

// Add values to the sums of their row, as row_sums.cuh has it.
template <class S>
struct AddLogits {
  using Value = opmath_t<S>;
  using Sums = SoftmaxSums<Value, Gaps::kNone>;
  static constexpr bool kTakesNumbers = true;
  static constexpr Value kFill = Value(-INFINITY);

  template <int kCount, int kPacks>
  __device__ __forceinline__ void operator()(Sums& sums, const Numbers<S, kCount> (&packs)[kPacks]) const {
    add_numbers(sums, packs);
  }
  static __device__ __forceinline__ Sums& softmax(Sums& sums) { return sums; }
  template <int kCount>
  __device__ __forceinline__ void fought(Sums& sums, Value (&values)[kCount]) const {
    sums.template add_fought<1>(values);
  }
  template <int kCount>
  __device__ __forceinline__ void operator()(Sums& sums, const Value (&x)[kCount], int64_t) const {
    constexpr Value kNoWeights[kCount] = {};
    sums.add(x, kNoWeights);
  }
};

template <class A>
struct AddGradients {
  using Value = A;
  static constexpr bool kTakesNumbers = false;

  template <int kCount>
  __device__ __forceinline__ void operator()(Sum<A>& sum, const A (&grads)[kCount], int64_t) const {
    A part(0);
#pragma unroll
    for (int i = 0; i < kCount; ++i) part += grads[i];
    sum.value += part;
  }
};

template <class S>
constexpr int kLogSoftmaxRegisters = sizeof(S) == 8 ? 168 : 96;

// The last chunk of a row stays in registers; other chunks are read again from the cache, the last ones first.
template <class S, class Out, int kSize>
__global__ void __launch_bounds__(Team<kSize>::kThreads,
                                  resident_blocks(Team<kSize>::kThreads, kLogSoftmaxRegisters<S>))
    log_softmax_forward_by_class(LogSoftmaxForward p) {
  using Chunks = RowChunks<S, kPacks, Team<kSize>>;
  const AddLogits<S> add;
  const int64_t row = int64_t(blockIdx.x) * Team<kSize>::kCount + Team<kSize>::index();
  if (row >= p.rows) return;
  const S* x = row_of<const S>(p, p.input, p.input_rows, row);
  Out* y = row_of<Out>(p, p.output, p.output_rows, row);
  const Chunks chunks(x, p.classes);
  typename Chunks::template Held<S> held;
  const HintedLoad hinted{chunks.count() > 1 ? keep_in_cache() : drop_from_cache()};
  const auto load = [&](int chunk, auto& next) { chunks.load(chunk, x, next, add.kFill, hinted); };
  load(0, held);
  const auto sums = Team<kSize>::reduce(sum_row<typename AddLogits<S>::Sums>(chunks, held, load, add));
  const LogSoftmax<opmath_t<S>> result{Team<kSize>::share(sums.finish())};
  const int count = chunks.count();
  chunks.with_alignment(y, [&](auto aligned) {
    for (int chunk = count - 1; chunk >= 0; --chunk) {
      if (chunk < count - 1) chunks.load(chunk, x, held, add.kFill, HintedLoad{drop_from_cache()});
      chunks.for_each(chunk, [&](int i, int64_t c, auto n) {
        opmath_t<S> values[n.value];
        convert(held.at(i, n), values);
#pragma unroll
        for (int j = 0; j < n.value; ++j) values[j] = result.at(values[j]);
        store_pack(y + c, values, aligned.value, /*streams=*/count > 1);
      });
    }
  });
}

// Likewise of two tensors.
template <class S, class Out, int kSize>
__global__ void __launch_bounds__(Team<kSize>::kThreads,
                                  resident_blocks(Team<kSize>::kThreads, kLogSoftmaxRegisters<S>))
    log_softmax_backward_by_class(LogSoftmaxBackward p) {
  using A = opmath_t<S>;
  using Chunks = RowChunks<S, kPacks / 2, Team<kSize>>;
  const int64_t row = int64_t(blockIdx.x) * Team<kSize>::kCount + Team<kSize>::index();
  if (row >= p.rows) return;
  const Out* grad_y = row_of<const Out>(p, p.grad_output, p.grad_output_rows, row);
  const Out* y = row_of<const Out>(p, p.output, p.output_rows, row);
  S* grad_x = row_of<S>(p, p.grad_input, p.grad_input_rows, row);
  const Chunks chunks(grad_x, p.classes);
  typename Chunks::template Held<Out> held_grads, held_outputs;
  const auto load = [&](int chunk, auto& held) { chunks.load_other(chunk, grad_y, held, A(0)); };
  load(0, held_grads);
  const auto sum = sum_row<Sum<A>>(chunks, held_grads, load, AddGradients<A>());
  const LogSoftmaxGradient<A> gradient(Team<kSize>::share(Team<kSize>::reduce(sum)).value);
  const int count = chunks.count();
  for (int chunk = count - 1; chunk >= 0; --chunk) {
    if (chunk < count - 1) load(chunk, held_grads);
    chunks.load_other(chunk, y, held_outputs, A(0));
    chunks.for_each(chunk, [&](int i, int64_t c, auto n) {
      A grads[n.value], outputs[n.value];
      convert(held_grads.at(i, n), grads);
      convert(held_outputs.at(i, n), outputs);
#pragma unroll
      for (int j = 0; j < n.value; ++j) grads[j] = gradient.at(grads[j], outputs[j]);
      store_pack(grad_x + c, grads, /*aligned=*/true, /*streams=*/count > 1);
    });
  }
}

// A thread's rows.
template <class S, int kRows, class Outputs>
__device__ __forceinline__ void rows_forward(int64_t classes, const StridedRows<const S, kRows>& x, const Outputs& y) {
  using A = opmath_t<S>;
  typename AddLogits<S>::Sums sums[kRows];
  sum_planes(x, classes, sums, AddLogits<S>());
  LogSoftmax<A> results[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) results[r] = {sums[r].finish()};
  for_each_class<A, kRows>(x, classes, [&](int64_t c, A(&values)[kRows]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) values[r] = results[r].at(values[r]);
    y.store(c, values);
  });
}

template <class A, int kRows, class Grads, class Outputs, class Results>
__device__ __forceinline__ void rows_backward(int64_t classes, const Grads& grad_y, const Outputs& y,
                                              const Results& grad_x) {
  Sum<A> sums[kRows];
  sum_rows<A>(grad_y, classes, sums, AddGradients<A>());
  const RowPairs<Grads, Outputs> pairs{grad_y, y};
  for_each_class<Pair<A>, kRows>(pairs, classes, [&](int64_t c, const Pair<A>(&values)[kRows]) {
    A grads[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const LogSoftmaxGradient<A> gradient(sums[r].value);
      grads[r] = gradient.at(values[r].first, values[r].second);
    }
    grad_x.store(c, grads);
  });
}

// kRows neighbours a thread. The second time, they are read from the cache.
template <class S, class Out, int kRows>
__global__ void __launch_bounds__(kThreadsByRow, resident_blocks(kThreadsByRow, 128))
    log_softmax_forward_by_row(LogSoftmaxForward p) {
  const int64_t row = (int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x) * kRows;
  if (row >= p.rows) return;
  const StridedRows<const S, kRows> x{row_of<const S>(p, p.input, p.input_rows, row), p.input_class_stride};
  const StridedRows<Out, kRows> y{row_of<Out>(p, p.output, p.output_rows, row), p.output_class_stride};
  rows_forward<S, kRows>(p.classes, x, y);
}

template <class S, class Out, int kRows>
__global__ void __launch_bounds__(kThreadsByRow, resident_blocks(kThreadsByRow, 128))
    log_softmax_backward_by_row(LogSoftmaxBackward p) {
  const int64_t row = (int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x) * kRows;
  if (row >= p.rows) return;
  const StridedRows<const Out, kRows> grad_y{row_of<const Out>(p, p.grad_output, p.grad_output_rows, row),
                                             p.grad_output_class_stride};
  const StridedRows<const Out, kRows> y{row_of<const Out>(p, p.output, p.output_rows, row), p.output_class_stride};
  const StridedRows<S, kRows> grad_x{row_of<S>(p, p.grad_input, p.grad_input_rows, row), p.grad_input_class_stride};
  rows_backward<opmath_t<S>, kRows>(p.classes, grad_y, y, grad_x);
}

// Of a stage of shared memory: the input, and where it is of another type the output behind it.
template <class S, class Out>
struct LogSoftmaxStage {
  static constexpr int64_t kClassBytes = std::is_same_v<S, Out> ? sizeof(S) : sizeof(S) + sizeof(Out);

  Tile<S> x;
  Tile<Out> y;

  static __host__ __device__ int bytes(const TileShape& shape, int64_t classes) {
    const int of_x = Tile<S>::bytes(shape.rows(), int(classes));
    return std::is_same_v<S, Out> ? of_x : of_x + Tile<Out>::bytes(shape.rows(), int(classes));
  }

  __device__ __forceinline__ LogSoftmaxStage(unsigned char* memory, const TileShape& shape, const S* first_x,
                                             const Out* first_y, int64_t classes, int rows)
      : x(memory, first_x, int(classes), rows), y(y_of(memory, shape, first_x, first_y, int(classes), rows)) {}

 private:
  static __device__ __forceinline__ Tile<Out> y_of(unsigned char* memory, const TileShape& shape, const S* first_x,
                                                   const Out* first_y, int classes, int rows) {
    if constexpr (std::is_same_v<S, Out>) {
      return {memory, first_x, classes, rows};
    } else {
      return {memory + Tile<S>::bytes(shape.rows(), classes), first_y, classes, rows};
    }
  }
};

template <class S, class Out, int kWord>
__global__ void __launch_bounds__(kTileThreads, resident_blocks(kTileThreads, sizeof(S) == 8 ? 128 : 64))
    log_softmax_forward_in_tiles(LogSoftmaxForward p, TileShape shape, Shares shares) {
  using A = opmath_t<S>;
  using Stage = LogSoftmaxStage<S, Out>;
  const AddLogits<S> add;
  const WarpRows rows(shape);
  const auto stage_of = [&](int64_t first, int count, unsigned char* memory) {
    return Stage(memory, shape, row_of<const S>(p, p.input, p.input_rows, first),
                 row_of<Out>(p, p.output, p.output_rows, first), p.classes, count);
  };
  for_each_tile(
      shares, shape, Stage::bytes(shape, p.classes),
      [&](int64_t first, int count, unsigned char* memory) {
        stage_of(first, count, memory).x.start_load(row_of<const S>(p, p.input, p.input_rows, first));
      },
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        const auto sums = rows.sum_up([&](int r) {
          return rows.template words_of<kWord>(stage.x, r).template sum<typename AddLogits<S>::Sums>(add);
        });
        __syncwarp();
        rows.write(LogSoftmax<A>{sums.finish()}, [&](int r, const LogSoftmax<A>& result) {
          rows.template words_of<kWord>(stage.x, r).for_each([&](const auto& word, int c) {
            constexpr int kCount = kWord / int(sizeof(S));
            A values[kCount];
            convert(word, values);
#pragma unroll
            for (int i = 0; i < kCount; ++i) values[i] = result.at(values[i]);
            convert(values, *reinterpret_cast<Numbers<Out, kCount>*>(stage.y.row(r) + c));
          });
        });
        __syncthreads();
        stage.y.store(row_of<Out>(p, p.output, p.output_rows, first));
      });
}

// Two tensors go in, and where their type is another one, the gradient is behind them.
template <class S, class Out>
struct LogSoftmaxBackwardStage {
  static constexpr int64_t kClassBytes = 2 * sizeof(Out) + (std::is_same_v<S, Out> ? 0 : sizeof(S));

  Tile<Out> grad_y, y;
  Tile<S> grad_x;

  static __host__ __device__ int bytes(const TileShape& shape, int64_t classes) {
    const int of_two = 2 * Tile<Out>::bytes(shape.rows(), int(classes));
    return std::is_same_v<S, Out> ? of_two : of_two + Tile<S>::bytes(shape.rows(), int(classes));
  }

  __device__ __forceinline__ LogSoftmaxBackwardStage(unsigned char* memory, const TileShape& shape,
                                                     const Out* first_grad_y, const Out* first_y, const S* first_grad_x,
                                                     int classes, int rows)
      : grad_y(memory, first_grad_y, classes, rows),
        y(memory + Tile<Out>::bytes(shape.rows(), classes), first_y, classes, rows),
        grad_x(memory + (std::is_same_v<S, Out> ? 0 : 2 * Tile<Out>::bytes(shape.rows(), classes)),
               std::is_same_v<S, Out> ? reinterpret_cast<const S*>(first_grad_y) : first_grad_x, classes, rows) {}
};

template <class S, class Out, int kWord>
__global__ void __launch_bounds__(kTileThreads, resident_blocks(kTileThreads, sizeof(S) == 8 ? 128 : 64))
    log_softmax_backward_in_tiles(LogSoftmaxBackward p, TileShape shape, Shares shares) {
  using A = opmath_t<S>;
  using Stage = LogSoftmaxBackwardStage<S, Out>;
  constexpr int kCount = kWord / int(sizeof(Out));
  const WarpRows rows(shape);
  const auto stage_of = [&](int64_t first, int count, unsigned char* memory) {
    return Stage(memory, shape, row_of<const Out>(p, p.grad_output, p.grad_output_rows, first),
                 row_of<const Out>(p, p.output, p.output_rows, first),
                 row_of<S>(p, p.grad_input, p.grad_input_rows, first), int(p.classes), count);
  };
  for_each_tile(
      shares, shape, Stage::bytes(shape, p.classes),
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        stage.grad_y.start_load(row_of<const Out>(p, p.grad_output, p.grad_output_rows, first));
        stage.y.start_load(row_of<const Out>(p, p.output, p.output_rows, first));
      },
      [&](int64_t first, int count, unsigned char* memory) {
        const Stage stage = stage_of(first, count, memory);
        const auto sum = rows.sum_up([&](int r) {
          return rows.template words_of<kWord>(stage.grad_y, r).template sum<Sum<A>>(AddGradients<A>());
        });
        __syncwarp();
        rows.write(sum, [&](int r, const Sum<A>& of_row) {
          const LogSoftmaxGradient<A> gradient(of_row.value);
          rows.template words_of<kWord>(stage.grad_y, r).for_each([&](const auto& word, int c) {
            A grads[kCount], outputs[kCount];
            convert(word, grads);
            convert(*reinterpret_cast<const Numbers<Out, kCount>*>(stage.y.row(r) + c), outputs);
#pragma unroll
            for (int i = 0; i < kCount; ++i) grads[i] = gradient.at(grads[i], outputs[i]);
            convert(grads, *reinterpret_cast<Numbers<S, kCount>*>(stage.grad_x.row(r) + c));
          });
        });
        __syncthreads();
        stage.grad_x.store(row_of<S>(p, p.grad_input, p.grad_input_rows, first));
      });
}

}  // namespace ce_ext::cuda
