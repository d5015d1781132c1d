// The CUDA kernels of cross entropy, each direction in two forms: a block for every row, whose threads share the
// classes (by class), and a thread for every row (by row). Targets that are neither a class nor ignored are never used
// as an index: their loss and gradient are NaN.
#pragma once

#include "cuda/block_reduce.cuh"
#include "cuda/packs.cuh"
#include "cuda/policy.cuh"
#include "cuda/portability.cuh"
#include "host/cross_entropy_problem.h"
#include "losses/cross_entropy.h"

namespace ce_ext::cuda {

enum class TargetKind { kClass, kIgnored, kOutOfBounds };

__device__ __forceinline__ TargetKind kind_of(const CrossEntropyProblem& p, int64_t target) {
  if (target == p.ignore_index) return TargetKind::kIgnored;
  return target >= 0 && target < p.classes ? TargetKind::kClass : TargetKind::kOutOfBounds;
}

// The arrays of a problem in their types.
template <class S>
struct Arrays {
  using A = opmath_t<S>;
  const CrossEntropyProblem& p;
  const A* weight_sum;  // null where every class weighs 1

  __device__ const S* logits(int64_t row) const {
    return static_cast<const S*>(p.input) + p.input_rows.offset(p.row_dims, row);
  }
  __device__ A weight(int64_t c) const { return p.weight ? static_cast<const A*>(p.weight)[c] : A(1); }
  __device__ CrossEntropy<A> loss() const {
    return CrossEntropy<A>(p.label_smoothing, p.classes, weight_sum ? *weight_sum : A(p.classes));
  }
};

// Takes in kCount classes from class c on.
template <int kCount, class S, bool kGaps>
__device__ __forceinline__ void add_classes(SoftmaxSums<opmath_t<S>, kGaps>& sums, const Arrays<S>& arrays,
                                            const opmath_t<S> (&x)[kCount], int64_t c, int64_t target) {
  opmath_t<S> weights[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) weights[i] = kGaps ? arrays.weight(c + i) : opmath_t<S>(1);
  sums.add(x, weights, target - c);
}

// Ends a row: its statistics, and its loss, which goes to the result for kNone and else to `row_loss`.
template <class S, bool kGaps>
__device__ __forceinline__ void finish_row(const CrossEntropyForward& p, const Arrays<S>& arrays, int64_t row,
                                           const S* x, const SoftmaxSums<opmath_t<S>, kGaps>& sums,
                                           opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  const int64_t target = p.target[row];
  const TargetKind kind = kind_of(p, target);
  RowStats<A> stats{A(0), A(0)};
  A loss = kind == TargetKind::kIgnored ? A(0) : A(NAN);
  if (kind == TargetKind::kClass) {
    const A x_target = load(x + target * p.input_class_stride);
    stats = sums.finish(x_target);
    loss = arrays.loss().loss(stats, x_target, sums.gap_sum, arrays.weight(target));
  }
  static_cast<RowStats<A>*>(p.stats)[row] = stats;
  if (p.reduction == Reduction::kNone) {
    store(static_cast<S*>(p.loss) + row, loss);
  } else {
    row_loss[row] = loss;
  }
}

template <class S, bool kGaps>
__global__ void __launch_bounds__(kThreadsByClass, kMinBlocksByClass)
    cross_entropy_forward_by_class(CrossEntropyForward p, const opmath_t<S>* weight_sum, opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  const Arrays<S> arrays{p, weight_sum};
  const int64_t row = blockIdx.x;
  const int64_t target = p.target[row];
  const S* x = arrays.logits(row);
  SoftmaxSums<A, kGaps> sums;
  if (kind_of(p, target) == TargetKind::kClass) {  // the same for the whole block
    const RowSplit<S> split(x, p.classes);
    const auto add_single = [&](int64_t c) {
      const A value[1] = {load(x + c)};
      add_classes(sums, arrays, value, c, target);
    };
    if (threadIdx.x < split.head) add_single(threadIdx.x);
    for (int64_t c = split.head + threadIdx.x * Pack<S>::kSize; c < split.packs_end;
         c += kThreadsByClass * Pack<S>::kSize) {
      A values[Pack<S>::kSize];
      load_pack(x + c, values);
      add_classes(sums, arrays, values, c, target);
    }
    if (threadIdx.x < p.classes - split.packs_end) add_single(split.packs_end + threadIdx.x);
    sums = block_reduce<kThreadsByClass>(sums);
  }
  if (threadIdx.x == 0) finish_row(p, arrays, row, x, sums, row_loss);
}

template <class S, bool kGaps>
__global__ void __launch_bounds__(kThreadsByRow, kMinBlocksByRow)
    cross_entropy_forward_by_row(CrossEntropyForward p, const opmath_t<S>* weight_sum, opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  const int64_t row = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (row >= p.rows) return;
  const Arrays<S> arrays{p, weight_sum};
  const int64_t target = p.target[row];
  const int64_t stride = p.input_class_stride;
  const S* x = arrays.logits(row);
  SoftmaxSums<A, kGaps> sums;
  int64_t c = 0;
  for (; c + kClassesInFlight <= p.classes; c += kClassesInFlight) {
    A values[kClassesInFlight];
#pragma unroll
    for (int i = 0; i < kClassesInFlight; ++i) values[i] = load(x + (c + i) * stride);
    add_classes(sums, arrays, values, c, target);
  }
  for (; c < p.classes; ++c) {
    const A value[1] = {load(x + c * stride)};
    add_classes(sums, arrays, value, c, target);
  }
  finish_row(p, arrays, row, x, sums, row_loss);
}

// The gradient of one row, class by class.
template <class S>
struct RowGradient {
  using A = opmath_t<S>;
  const Arrays<S>& arrays;
  int64_t target;
  TargetKind kind;
  CrossEntropyGradient<A> gradient;

  __device__ RowGradient(const CrossEntropyBackward& p, const Arrays<S>& arrays_, int64_t row)
      : arrays(arrays_), target(p.target[row]), kind(kind_of(p, target)), gradient{} {
    if (kind != TargetKind::kClass) return;
    A scale = load(static_cast<const S*>(p.grad_output) + p.grad_output_rows.offset(p.row_dims, row));
    if (p.denominator) scale /= static_cast<const A*>(p.denominator)[p.denominator_rows.offset(p.row_dims, row)];
    gradient = arrays.loss().gradient(static_cast<const RowStats<A>*>(p.stats)[row], arrays.weight(target), scale);
  }

  __device__ __forceinline__ A at(int64_t c, A x) const {
    if (kind != TargetKind::kClass) return kind == TargetKind::kIgnored ? A(0) : A(NAN);
    if (c == target) return gradient.at_target(x);
    return gradient.at(x, gradient.smoothing == A(0) ? A(0) : arrays.weight(c));
  }
};

template <class S>
__device__ __forceinline__ S* grad_row(const CrossEntropyBackward& p, int64_t row) {
  return static_cast<S*>(p.grad_input) + p.grad_input_rows.offset(p.row_dims, row);
}

template <class S>
__global__ void __launch_bounds__(kThreadsByClass, kMinBlocksByClass)
    cross_entropy_backward_by_class(CrossEntropyBackward p, const opmath_t<S>* weight_sum) {
  using A = opmath_t<S>;
  const int64_t row = blockIdx.x;
  const Arrays<S> arrays{p, weight_sum};
  const S* x = arrays.logits(row);
  const RowGradient<S> gradient(p, arrays, row);
  S* grad_x = grad_row<S>(p, row);
  RowSplit<S> split(x, p.classes);
  if ((reinterpret_cast<uintptr_t>(x) - reinterpret_cast<uintptr_t>(grad_x)) % sizeof(Pack<S>) != 0) {
    split.head = split.packs_end = p.classes;  // no split suits both rows
  }
  const auto write_single = [&](int64_t c) { store(grad_x + c, gradient.at(c, load(x + c))); };
  for (int64_t c = threadIdx.x; c < split.head; c += kThreadsByClass) write_single(c);
  for (int64_t c = split.head + threadIdx.x * Pack<S>::kSize; c < split.packs_end;
       c += kThreadsByClass * Pack<S>::kSize) {
    A values[Pack<S>::kSize];
    load_pack(x + c, values);
#pragma unroll
    for (int i = 0; i < Pack<S>::kSize; ++i) values[i] = gradient.at(c + i, values[i]);
    store_pack(grad_x + c, values);
  }
  if (threadIdx.x < p.classes - split.packs_end) write_single(split.packs_end + threadIdx.x);
}

template <class S>
__global__ void __launch_bounds__(kThreadsByRow, kMinBlocksByRow)
    cross_entropy_backward_by_row(CrossEntropyBackward p, const opmath_t<S>* weight_sum) {
  const int64_t row = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (row >= p.rows) return;
  const Arrays<S> arrays{p, weight_sum};
  const S* x = arrays.logits(row);
  const RowGradient<S> gradient(p, arrays, row);
  S* grad_x = grad_row<S>(p, row);
  for (int64_t c = 0; c < p.classes; ++c, x += p.input_class_stride, grad_x += p.grad_input_class_stride) {
    store(grad_x, gradient.at(c, load(x)));
  }
}

// One block a slice of at most kRowsPerSlice rows of a group: the losses and the weights of its rows.
template <class S>
__global__ void __launch_bounds__(kThreadsToSum)
    cross_entropy_sum_slices(CrossEntropyForward p, int64_t group_rows, int64_t slices, const opmath_t<S>* row_loss,
                             RowTotals* totals) {
  const Arrays<S> arrays{p, nullptr};
  const int64_t slice = blockIdx.x;
  const int64_t group_begin = slice / slices * group_rows;
  const int64_t begin = group_begin + slice % slices * kRowsPerSlice;
  const int64_t group_end = group_begin + group_rows;
  const int64_t end = begin + kRowsPerSlice < group_end ? begin + kRowsPerSlice : group_end;
  RowTotals sums;
  for (int64_t row = begin + threadIdx.x; row < end; row += kThreadsToSum) {
    const int64_t target = p.target[row];
    const bool weighs = kind_of(p, target) == TargetKind::kClass;
    sums.merge({double(row_loss[row]), weighs ? double(arrays.weight(target)) : 0.0});
  }
  sums = block_reduce<kThreadsToSum>(sums);
  if (threadIdx.x == 0) totals[slice] = sums;
}

// One block a group: adds up its slices, and divides for the mean.
template <class S>
__global__ void __launch_bounds__(kThreadsToSum)
    cross_entropy_finish_groups(CrossEntropyForward p, int64_t slices, const RowTotals* totals) {
  using A = opmath_t<S>;
  const int64_t group = blockIdx.x;
  RowTotals sums;
  for (int64_t i = threadIdx.x; i < slices; i += kThreadsToSum) sums.merge(totals[group * slices + i]);
  sums = block_reduce<kThreadsToSum>(sums);
  if (threadIdx.x == 0) {
    const bool mean = p.reduction == Reduction::kMean;
    store(static_cast<S*>(p.loss) + group, A(mean ? sums.loss / sums.weight : sums.loss));
    if (mean) static_cast<A*>(p.denominator)[group] = A(sums.weight);
  }
}

// One block: the sum of the class weights, which label smoothing needs.
template <class A>
__global__ void __launch_bounds__(kThreadsToSum) sum_weights(const A* weight, int64_t classes, A* weight_sum) {
  RowTotals sums;
  for (int64_t c = threadIdx.x; c < classes; c += kThreadsToSum) sums.merge({0.0, double(weight[c])});
  sums = block_reduce<kThreadsToSum>(sums);
  if (threadIdx.x == 0) *weight_sum = A(sums.weight);
}

}  // namespace ce_ext::cuda
