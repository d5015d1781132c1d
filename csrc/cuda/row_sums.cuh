// Goes over the logits of one row, with a block for the row (by class) or a thread (by row), and adds them up.
#pragma once

#include "cuda/block_reduce.cuh"
#include "cuda/packs.cuh"
#include "cuda/policy.cuh"
#include "host/softmax_loss_problem.h"

namespace ce_ext::cuda {

template <class S, int kCount>
__device__ __forceinline__ void load_strided(const S* p, int64_t stride, opmath_t<S> (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = load(p + i * stride);
}

// add(sums, values, c) takes in the logits from class c on. All threads of the block call this; the result is valid in
// thread 0 only.
template <class Sums, class S, class Add>
__device__ __forceinline__ Sums sum_row_by_class(const RowSplit<S>& split, const S* x, int64_t classes,
                                                 const Add& add) {
  Sums sums;
  for_each_pack<kThreadsByClass>(split, classes, [&](int64_t c, auto n) {
    opmath_t<S> values[n.value];
    load_pack(x + c, values);
    add(sums, values, c);
  });
  return block_reduce<kThreadsByClass>(sums);
}

template <class Sums, class S, class Add>
__device__ __forceinline__ Sums sum_row_by_row(const S* x, int64_t stride, int64_t classes, const Add& add) {
  Sums sums;
  for (int64_t c = 0; c < classes;) {
    const int64_t end = classes - c < kClassesPerSum ? classes : c + kClassesPerSum;
    Sums part;
    for (; c + kClassesInFlight <= end; c += kClassesInFlight) {
      opmath_t<S> values[kClassesInFlight];
      load_strided(x + c * stride, stride, values);
      add(part, values, c);
    }
    for (; c < end; ++c) {
      opmath_t<S> value[1] = {load(x + c * stride)};
      add(part, value, c);
    }
    sums.merge(part);
  }
  return sums;
}

// What the losses gather of a row.
template <class A, class Form>
struct RowSums {
  SoftmaxSums<A, Form::kGaps, Form::kReport> softmax;
  ArgMax<A> top;  // kReport only

  // Takes in kCount logits from class c on.
  template <int kCount>
  __device__ __forceinline__ void add(const Logits<A, Form::kLogitsChange>& logits, A (&x)[kCount],
                                      const A (&weights)[kCount], int64_t c) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      x[i] = logits(x[i]);
      if constexpr (Form::kReport) top.add(x[i], c + i);
    }
    softmax.add(x, weights);
  }

  __device__ void merge(const RowSums& other) {
    softmax.merge(other.softmax);
    if constexpr (Form::kReport) top.merge(other.top);
  }
};

template <class A, class Form>
__device__ __forceinline__ RowSums<A, Form> shuffle_down(const RowSums<A, Form>& x, int offset) {
  RowSums<A, Form> result{shuffle_down(x.softmax, offset), {}};
  if constexpr (Form::kReport) result.top = shuffle_down(x.top, offset);
  return result;
}

template <class S, class Form>
constexpr bool kManyRegisters = sizeof(S) == 8 || Form::kReport;

// What is reported of a row, if anything is.
template <class A, class Form>
__device__ __forceinline__ void store_report(const LossForward& p, int64_t row, const RowStats<A>& stats,
                                             const RowSums<A, Form>& sums, A target_log_prob) {
  if constexpr (Form::kReport) {
    if (!p.report) return;
    static_cast<RowReport<A>*>(p.report)[row] = {log_sum_exp(stats), sums.softmax.entropy(stats), target_log_prob};
    p.argmax[row] = sums.top.index;
  }
}

}  // namespace ce_ext::cuda
