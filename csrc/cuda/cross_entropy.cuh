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

// The loss with its constants, made on the host, where float64 costs nothing; but the sum of the class weights is known
// to the device alone.
template <class A>
struct DeviceLoss {
  CrossEntropy<A> on_host;
  const A* weight_sum;  // null where every class weighs 1

  __device__ CrossEntropy<A> get() const {
    CrossEntropy<A> loss = on_host;
    if (weight_sum) loss.weight_sum = *weight_sum;
    return loss;
  }
};

template <class S>
__device__ __forceinline__ const S* logits_row(const CrossEntropyProblem& p, int64_t row) {
  return static_cast<const S*>(p.input) + p.input_rows.offset(p.row_dims, row);
}

template <class S>
__device__ __forceinline__ S* grad_row(const CrossEntropyBackward& p, int64_t row) {
  return static_cast<S*>(p.grad_input) + p.grad_input_rows.offset(p.row_dims, row);
}

template <class A>
__device__ __forceinline__ A class_weight(const CrossEntropyProblem& p, int64_t c) {
  return p.weight ? static_cast<const A*>(p.weight)[c] : A(1);
}

// Takes in kCount classes from class c on.
template <int kCount, class A, bool kGaps>
__device__ __forceinline__ void add_classes(SoftmaxSums<A, kGaps>& sums, const CrossEntropyProblem& p,
                                            const A (&x)[kCount], int64_t c) {
  A weights[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) weights[i] = kGaps ? class_weight<A>(p, c + i) : A(1);
  sums.add(x, weights);
}

// Ends a row: its statistics, and its loss, which goes to the result for kNone and else to `row_loss`.
template <class S, bool kGaps>
__device__ __forceinline__ void finish_row(const CrossEntropyForward& p, const DeviceLoss<opmath_t<S>>& loss_of,
                                           int64_t row, const S* x, const SoftmaxSums<opmath_t<S>, kGaps>& sums,
                                           opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  const int64_t target = p.target[row];
  const TargetKind kind = kind_of(p, target);
  RowStats<A> stats{A(0), A(0)};
  A loss = kind == TargetKind::kIgnored ? A(0) : A(NAN);
  if (kind == TargetKind::kClass) {
    const A x_target = load(x + target * p.input_class_stride);
    stats = sums.finish();
    loss = loss_of.get().loss(stats, x_target, sums.gap_sum, class_weight<A>(p, target));
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
    cross_entropy_forward_by_class(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss, opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  const int64_t row = blockIdx.x;
  const S* x = logits_row<S>(p, row);
  SoftmaxSums<A, kGaps> sums;
  if (kind_of(p, p.target[row]) == TargetKind::kClass) {  // the same for the whole block
    const RowSplit<S> split(x, p.classes);
    const auto add_single = [&](int64_t c) {
      const A value[1] = {load(x + c)};
      add_classes(sums, p, value, c);
    };
    if (threadIdx.x < split.head) add_single(threadIdx.x);
    for (int64_t c = split.head + threadIdx.x * Pack<S>::kSize; c < split.packs_end;
         c += kThreadsByClass * Pack<S>::kSize) {
      A values[Pack<S>::kSize];
      load_pack(x + c, values);
      add_classes(sums, p, values, c);
    }
    if (threadIdx.x < p.classes - split.packs_end) add_single(split.packs_end + threadIdx.x);
    sums = block_reduce<kThreadsByClass>(sums);
  }
  if (threadIdx.x == 0) finish_row(p, loss, row, x, sums, row_loss);
}

template <class S, bool kGaps>
__global__ void __launch_bounds__(kThreadsByRow, kMinBlocksByRow)
    cross_entropy_forward_by_row(CrossEntropyForward p, DeviceLoss<opmath_t<S>> loss, opmath_t<S>* row_loss) {
  using A = opmath_t<S>;
  const int64_t row = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (row >= p.rows) return;
  const int64_t stride = p.input_class_stride;
  const S* x = logits_row<S>(p, row);
  SoftmaxSums<A, kGaps> sums;
  int64_t c = 0;
  for (; c + kClassesInFlight <= p.classes; c += kClassesInFlight) {
    A values[kClassesInFlight];
#pragma unroll
    for (int i = 0; i < kClassesInFlight; ++i) values[i] = load(x + (c + i) * stride);
    add_classes(sums, p, values, c);
  }
  for (; c < p.classes; ++c) {
    const A value[1] = {load(x + c * stride)};
    add_classes(sums, p, value, c);
  }
  finish_row(p, loss, row, x, sums, row_loss);
}

// The gradient of one row, class by class.
template <class A>
struct RowGradient {
  int64_t target;
  TargetKind kind;
  const A* weight;  // of every class, or null where only the target's matters
  CrossEntropyGradient<A> gradient;

  __device__ __forceinline__ A at(int64_t c, A x) const {
    if (kind != TargetKind::kClass) return kind == TargetKind::kIgnored ? A(0) : A(NAN);
    if (c == target) return gradient.at_target(x);
    return gradient.at(x, weight ? weight[c] : A(1));
  }
};

template <class S>
__device__ __forceinline__ RowGradient<opmath_t<S>> row_gradient(const CrossEntropyBackward& p,
                                                                 const DeviceLoss<opmath_t<S>>& loss, int64_t row) {
  using A = opmath_t<S>;
  const A* weight = loss.on_host.smoothing > 0 ? static_cast<const A*>(p.weight) : nullptr;
  RowGradient<A> result{p.target[row], kind_of(p, p.target[row]), weight, {}};
  if (result.kind != TargetKind::kClass) return result;
  A scale = load(static_cast<const S*>(p.grad_output) + p.grad_output_rows.offset(p.row_dims, row));
  if (p.denominator) scale /= static_cast<const A*>(p.denominator)[p.denominator_rows.offset(p.row_dims, row)];
  const RowStats<A> stats = static_cast<const RowStats<A>*>(p.stats)[row];
  result.gradient = loss.get().gradient(stats, class_weight<A>(p, result.target), scale);
  return result;
}

template <class S>
__global__ void __launch_bounds__(kThreadsByClass, kMinBlocksByClass)
    cross_entropy_backward_by_class(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> loss) {
  using A = opmath_t<S>;
  const int64_t row = blockIdx.x;
  const RowGradient<A> gradient = row_gradient<S>(p, loss, row);
  const S* x = logits_row<S>(p, row);
  S* grad_x = grad_row<S>(p, row);
  RowSplit<S> split(x, p.classes);
  split.share(grad_x, p.classes);
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
    cross_entropy_backward_by_row(CrossEntropyBackward p, DeviceLoss<opmath_t<S>> loss) {
  using A = opmath_t<S>;
  const int64_t row = int64_t(blockIdx.x) * kThreadsByRow + threadIdx.x;
  if (row >= p.rows) return;
  const RowGradient<A> gradient = row_gradient<S>(p, loss, row);
  const S* x = logits_row<S>(p, row);
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
  const int64_t slice = blockIdx.x;
  const int64_t group_begin = slice / slices * group_rows;
  const int64_t begin = group_begin + slice % slices * kRowsPerSlice;
  const int64_t group_end = group_begin + group_rows;
  const int64_t end = begin + kRowsPerSlice < group_end ? begin + kRowsPerSlice : group_end;
  RowTotals sums;
  for (int64_t row = begin + threadIdx.x; row < end; row += kThreadsToSum) {
    const int64_t target = p.target[row];
    const bool weighs = kind_of(p, target) == TargetKind::kClass;
    sums.merge({double(row_loss[row]), weighs ? double(class_weight<opmath_t<S>>(p, target)) : 0.0});
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
