// Goes over the logits of one row, with a block for the row (by class) or a thread (by row), and adds them up.
#pragma once

#include "cuda/block_reduce.cuh"
#include "cuda/packs.cuh"
#include "cuda/policy.cuh"

namespace ce_ext::cuda {

// add(sums, values, c) takes in the logits from class c on. All threads of the block call this; the result is valid in
// thread 0 only.
template <class Sums, class S, class Add>
__device__ __forceinline__ Sums sum_row_by_class(const S* x, int64_t classes, const Add& add) {
  Sums sums;
  for_each_pack<kThreadsByClass>(RowSplit<S>(x, classes), classes, [&](int64_t c, auto n) {
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
#pragma unroll
      for (int i = 0; i < kClassesInFlight; ++i) values[i] = load(x + (c + i) * stride);
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

}  // namespace ce_ext::cuda
