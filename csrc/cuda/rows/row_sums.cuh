// Goes over the logits of a row, by a team whose threads share the classes, or over several rows, by a thread for
// itself, and adds them up.
#pragma once

#include "cuda/rows/row_chunks.cuh"
#include "cuda/rows/thread_rows.cuh"
#include "host/softmax_loss_problem.h"

namespace ce_ext::cuda {

// The sums of a thread over a row of one tensor: add(sums, values, c) takes in the values from class c on, or, with
// kTakesNumbers, add(sums, packs) numbers as they lie in memory, and Add::kFill where the row has none.
template <class Sums, class Chunks, class Held, class Load, class Add>
__device__ __forceinline__ Sums sum_row(const Chunks& chunks, Held& held, const Load& load, const Add& add) {
  Sums sums;
  const auto add_values = [&](int i, int64_t c, auto n) {
    typename Add::Value values[n.value];
    convert(held.at(i, n), values);
    add(sums, values, c);
  };
  if (chunks.has_singles()) {
    if constexpr (Add::kTakesNumbers) {
      add(sums, held.singles);
    } else {
      chunks.for_each_single(add_values);
    }
  }
  for_each_chunk(chunks.count(), held, load, [&](int chunk) {
    if constexpr (Add::kTakesNumbers) {
      add(sums, held.packs);
    } else {
      chunks.for_each_pack(chunk, add_values);
    }
  });
  return sums;
}

// The sums of kRows rows of a thread, each by itself, in parts: add_part(begin, end, sums) adds up so many classes of
// all.
template <int kRows, class Sums, class AddPart>
__device__ __forceinline__ void sum_parts(int64_t classes, Sums (&sums)[kRows], const AddPart& add_part) {
  for (int64_t begin = 0; begin < classes; begin += kClassesPerSum) {
    const int64_t end = classes - begin < kClassesPerSum ? classes : begin + kClassesPerSum;
    Sums parts[kRows];
    add_part(begin, end, parts);
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

// rows.load(c, values) gives the values of class c of each row, which are numbers, or pairs of them.
template <class A, int kRows, class Sums, class Rows, class Add>
__device__ __forceinline__ void sum_rows(const Rows& rows, int64_t classes, Sums (&sums)[kRows], const Add& add) {
  sum_parts(classes, sums, [&](int64_t begin, int64_t end, Sums(&parts)[kRows]) {
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
  });
}

// The classes of each of the rows in these planes have their tournament: the champions are in the first plane then.
template <class S, int kRows, int kPlanes>
__device__ __forceinline__ void hold_tournaments(Numbers<S, kRows> (&planes)[kPlanes]) {
  using Word = typename Numbers<S, kRows>::Stored;
  constexpr int kWords = std::extent_v<decltype(planes[0].stored)>;
#pragma unroll
  for (int w = 0; w < kWords; ++w) {
    Word words[kPlanes];
#pragma unroll
    for (int c = 0; c < kPlanes; ++c) words[c] = planes[c].stored[w];
    hold_tournament(words);
#pragma unroll
    for (int c = 0; c < kPlanes; ++c) planes[c].stored[w] = words[c];
  }
}

// Logits that are read by themselves, for plain sums. Halves of neighbours play side by side.
template <class S, int kRows, class Sums, class Add>
__device__ __forceinline__ void sum_planes(const StridedRows<const S, kRows>& rows, int64_t classes,
                                           Sums (&sums)[kRows], const Add& add) {
  constexpr bool kHalf = sizeof(S) == 2 && kRows == 1;  // which plays by itself, as a number
  sum_parts(classes, sums, [&](int64_t begin, int64_t end, Sums(&parts)[kRows]) {
    for_each_planes<kForwardPlanes<S>>(rows, begin, end, add.kFill, [&](int64_t, auto& planes) {
      if constexpr (!kHalf) hold_tournaments(planes);
      opmath_t<S> values[kForwardPlanes<S>][kRows];
#pragma unroll
      for (int c = 0; c < kForwardPlanes<S>; ++c) convert(planes[c], values[c]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        opmath_t<S> of_row[kForwardPlanes<S>];
#pragma unroll
        for (int c = 0; c < kForwardPlanes<S>; ++c) of_row[c] = values[c][r];
        if constexpr (kHalf) hold_tournament(of_row);
        add.fought(parts[r], of_row);
      }
    });
  });
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
    ArgMax<A> of_these{A(-INFINITY), c};
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      x[i] = logits(x[i]);
      if constexpr (Form::kReport) (kCount > 1 ? of_these : top).add(x[i], c + i);
    }
    if constexpr (Form::kReport && kCount > 1) top.merge(of_these);  // a thread begins with what packs leave over
    softmax.add(x, weights);
  }

  __device__ void merge(const RowSums& other) {
    softmax.merge(other.softmax);
    if constexpr (Form::kReport) top.merge(other.top);
  }
};

template <class A, class Form>
__device__ __forceinline__ RowSums<A, Form> warp_reduce(const RowSums<A, Form>& sums, int lanes = kWarpSize) {
  RowSums<A, Form> result{warp_reduce(sums.softmax, lanes), {}};
  if constexpr (Form::kReport) result.top = warp_reduce(sums.top, lanes);
  return result;
}

// Takes logits into plain sums as they lie in memory. Halves play in pairs, one instruction for both matches.
template <class S, int kCount, int kPacks, class Sums>
__device__ __forceinline__ void add_numbers(Sums& sums, const Numbers<S, kCount> (&packs)[kPacks]) {
  auto all = join(packs);
  hold_tournament(all.stored);
  opmath_t<S> values[kCount * kPacks];
  convert(all, values);
  sums.template add_fought<all.kPaired ? 2 : 1>(values);
}

// Single ones are no pairs.
template <class S, int kPacks, class Sums>
__device__ __forceinline__ void add_numbers(Sums& sums, const Numbers<S, 1> (&singles)[kPacks]) {
  opmath_t<S> values[kPacks];
#pragma unroll
  for (int i = 0; i < kPacks; ++i) values[i] = load(singles[i].stored);
  hold_tournament(values);
  sums.template add_fought<1>(values);
}

// Forms that have kernels for every team.
template <class S, class Form>
constexpr bool kIsOften = kIsPlain<Form> && sizeof(S) < 8;

// What a form takes of registers: threads of teams, of which the plain form is known; backward; threads with rows of
// their own, and how many of such rows a thread has.
template <class S, class Form, int kOfPlain, int kOfGaps>
constexpr int kTeamRegisters = sizeof(S) == 8    ? (kIsPlain<Form> ? 168 : 224)
                               : Form::kReport   ? 128
                               : !kIsPlain<Form> ? kOfGaps
                                                 : kOfPlain;
template <class S, class Form>
constexpr int kBackwardRegisters = sizeof(S) == 8   ? 112
                                   : kIsPlain<Form> ? 64
                                                    : 72;
template <class S, class Form>
constexpr int kRowRegisters = sizeof(S) == 8               ? 168
                              : Form::kReport              ? 128
                              : Form::kGaps != Gaps::kNone ? 96
                                                           : 64;
template <class S, class Form>
constexpr int kRowPack = sizeof(S) == 8 || Form::kReport ? 1 : kRowsPerThread;

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
