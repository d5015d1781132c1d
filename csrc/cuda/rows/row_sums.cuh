// Goes over the logits of a row, by a team whose threads share the classes, or over several rows, by a thread for
// itself, and adds them up.
#pragma once

#include "cuda/rows/row_parts.cuh"
#include "cuda/rows/thread_rows.cuh"
#include "host/softmax_loss_problem.h"

namespace ce_ext::cuda {

// add(sums, values, c) takes in the values from class c on. The result is that of this thread; `held` then has what it
// loaded last, which of a row of one chunk is all.
template <class Sums, int kPacks, class S, class T, class Held, class Add>
__device__ __forceinline__ Sums sum_row(const Team& team, const RowSplit<S>& split, const T* x, Held& held,
                                        const Add& add) {
  Sums sums;
  const int64_t chunks = chunks_of_row<kPacks, S>(split.size, team.size());
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const RowPart<S, kPacks> part(split, team, chunk);
    part.load(x, held);
    part.for_each([&](int i, int64_t c, auto n) {
      opmath_t<T> values[n.value];
      convert(held.at(i, n), values);
      add(sums, values, c);
    });
  }
  return sums;
}

// The same of kRows rows at once, each by itself: rows.load(c, values) gives the values of class c of each, which are
// numbers, or pairs of them.
template <class A, int kRows, class Sums, class Rows, class Add>
__device__ __forceinline__ void sum_rows(const Rows& rows, int64_t classes, Sums (&sums)[kRows], const Add& add) {
  static_assert(kMostClasses<Rows> <= kClassesPerSum, "rows with a bound are added up at once");
  for (int64_t begin = 0; begin < classes; begin += kClassesPerSum) {
    const int64_t end = classes - begin < kClassesPerSum ? classes : begin + kClassesPerSum;
    Sums parts[kRows];
    for_each_classes<A, kRows>(rows, begin, end, [&](int64_t c, const auto& values) {
      constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(values)>>;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        A of_row[kCount];
#pragma unroll
        for (int i = 0; i < kCount; ++i) of_row[i] = values[i][r];
        add(parts[r], of_row, c);
      }
    });
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (begin == 0) {
        sums[r] = parts[r];
      } else {
        sums[r].merge(parts[r]);
      }
    }
  }
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

template <class A, class Form, class F>
__device__ __forceinline__ RowSums<A, Form> transform(const RowSums<A, Form>& x, const F& f) {
  RowSums<A, Form> result{transform(x.softmax, f), {}};
  if constexpr (Form::kReport) result.top = transform(x.top, f);
  return result;
}

template <class A, class Form, class F>
__device__ __forceinline__ void agree(RowSums<A, Form>& sums, const F& max_of) {
  agree(sums.softmax, max_of);
}

template <class A, class Form>
__device__ __forceinline__ void add_agreed(RowSums<A, Form>& sums, const RowSums<A, Form>& other) {
  add_agreed(sums.softmax, other.softmax);
  if constexpr (Form::kReport) sums.top.merge(other.top);
}

// What a form takes of registers: whether it is much for a team; for threads with rows of their own how many, and how
// many of such rows a thread has.
template <class S, class Form>
constexpr bool kManyRegisters = sizeof(S) == 8 || Form::kReport;
template <class S, class Form>
constexpr int kRowRegisters = sizeof(S) == 8               ? 168
                              : Form::kReport              ? 128
                              : Form::kGaps != Gaps::kNone ? 96
                                                           : 64;
template <class S, class Form>
constexpr int kRowPack = kManyRegisters<S, Form> ? 1 : kRowsPerThread;

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
