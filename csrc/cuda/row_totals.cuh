// From the losses of rows to those of groups: the kernels that add them up, and class weights, and their launch.
#pragma once

#include "cuda/cross_entropy_rows.cuh"
#include "cuda/group_totals.cuh"
#include "cuda/soft_cross_entropy_rows.cuh"

namespace ce_ext::cuda {

// How the forward pass shares out its workspace; every part is aligned for float64. In both directions it begins with
// the sum of the class weights, for those who need it.
constexpr int64_t kWeightSumBytes = sizeof(double);

struct Workspace {
  int64_t group_rows;
  int64_t slices;  // of a group
  int64_t totals = kWeightSumBytes;
  int64_t row_loss;
  int64_t end;

  template <class Problem>
  explicit Workspace(const Problem& p)
      : group_rows(p.groups > 0 ? p.rows / p.groups : 0), slices(divide_up(group_rows, kRowsPerSlice)) {
    const bool reduced = p.reduction != Reduction::kNone;
    row_loss = totals + (reduced ? p.groups * slices * int64_t(sizeof(RowTotals)) : 0);
    end = row_loss + (reduced ? p.rows * int64_t(p.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float)) : 0);
  }

  template <class T>
  static T* at(void* workspace, int64_t offset) {
    return reinterpret_cast<T*>(static_cast<char*>(workspace) + offset);
  }
};

// One block a slice of at most kRowsPerSlice rows of a group: the losses, where there are any yet, and the weights of
// its rows.
template <class S, class Problem>
__global__ void __launch_bounds__(kThreadsToSum)
    sum_slices(Problem p, int64_t group_rows, int64_t slices, const opmath_t<S>* row_loss, RowTotals* totals) {
  const int64_t slice = blockIdx.x;
  const int64_t group_begin = slice / slices * group_rows;
  const int64_t begin = group_begin + slice % slices * kRowsPerSlice;
  const int64_t group_end = group_begin + group_rows;
  const int64_t end = begin + kRowsPerSlice < group_end ? begin + kRowsPerSlice : group_end;
  RowTotals sums;
  for (int64_t row = begin + threadIdx.x; row < end; row += kThreadsToSum) {
    sums.merge({row_loss ? double(row_loss[row]) : 0.0, double(row_weight<opmath_t<S>>(p, row))});
  }
  sums = block_reduce<kThreadsToSum>(sums);
  if (threadIdx.x == 0) totals[slice] = sums;
}

// One block: the sum of the class weights, which label smoothing needs.
template <class A>
__global__ void __launch_bounds__(kThreadsToSum) sum_weights(const A* weight, int64_t classes, A* weight_sum) {
  RowTotals sums;
  for (int64_t c = threadIdx.x; c < classes; c += kThreadsToSum) sums.merge({0.0, double(weight[c])});
  sums = block_reduce<kThreadsToSum>(sums);
  if (threadIdx.x == 0) *weight_sum = A(sums.weight);
}

template <class S, class Problem>
void reduce(const Problem& p, void* workspace, const opmath_t<S>* row_loss, cudaStream_t stream) {
  if (p.reduction == Reduction::kNone || p.groups == 0) return;
  const Workspace parts(p);
  RowTotals* totals = Workspace::at<RowTotals>(workspace, parts.totals);
  if (p.rows > 0) {
    LAUNCH((sum_slices<S, Problem>), p.groups * parts.slices, kThreadsToSum, stream, p, parts.group_rows, parts.slices,
           row_loss, totals);
  }
  LAUNCH((finish_groups<S, Problem>), p.groups, kThreadsToSum, stream, p, parts.slices, totals);
}

}  // namespace ce_ext::cuda
