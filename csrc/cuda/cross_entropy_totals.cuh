// The kernels that add up rows: the losses of each group, and the class weights.
#pragma once

#include "cuda/block_reduce.cuh"
#include "cuda/cross_entropy_forward.cuh"
#include "cuda/policy.cuh"

namespace ce_ext::cuda {

// One block a slice of at most kRowsPerSlice rows of a group: the losses, where there are any yet, and the weights of
// its rows.
template <class S>
__global__ void __launch_bounds__(kThreadsToSum)
    cross_entropy_sum_slices(CrossEntropyForward p, int64_t group_rows, int64_t slices, const opmath_t<S>* row_loss,
                             RowTotals* totals) {
  using A = opmath_t<S>;
  const int64_t slice = blockIdx.x;
  const int64_t group_begin = slice / slices * group_rows;
  const int64_t begin = group_begin + slice % slices * kRowsPerSlice;
  const int64_t group_end = group_begin + group_rows;
  const int64_t end = begin + kRowsPerSlice < group_end ? begin + kRowsPerSlice : group_end;
  RowTotals sums;
  for (int64_t row = begin + threadIdx.x; row < end; row += kThreadsToSum) {
    const int64_t target = p.target[row];
    const bool weighs = kind_of(p, target) == TargetKind::kClass;
    const A weight = weighs ? sample_weight<A>(p, row) * class_weight<A>(p, target) : A(0);
    sums.merge({row_loss ? double(row_loss[row]) : 0.0, double(weight)});
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
    const double divisor = sums.divisor(p.zero_if_empty);
    store_loss<S>(p, group, A(mean ? sums.loss / divisor : sums.loss));
    if (mean) static_cast<A*>(p.denominator)[group] = A(divisor);
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
