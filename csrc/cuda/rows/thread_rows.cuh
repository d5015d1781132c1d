// Rows that a thread has for itself, and goes over class by class.
#pragma once

#include "cuda/device/packs.cuh"
#include "cuda/rows/policy.cuh"

namespace ce_ext::cuda {

// kRows rows that lie side by side, so that those of a class are a pack, or a single number.
template <class Data, int kRows>
struct StridedRows {
  using S = std::remove_const_t<Data>;
  using A = opmath_t<S>;

  Data* data;
  int64_t stride;  // from class to class

  __device__ __forceinline__ void load(int64_t c, A (&values)[kRows]) const { load_pack(data + c * stride, values); }
  __device__ __forceinline__ void store(int64_t c, const A (&values)[kRows]) const {
    store_pack(data + c * stride, values);
  }
  __device__ __forceinline__ A at(int row, int64_t c) const { return cuda::load(data + row + c * stride); }
  __device__ __forceinline__ void store_at(int row, int64_t c, A value) const {
    cuda::store(data + row + c * stride, value);
  }
};

// A number of each of two tensors.
template <class A>
struct Pair {
  A first, second;
};

template <class A, int kCount>
__device__ __forceinline__ void split_pairs(const Pair<A> (&pairs)[kCount], A (&firsts)[kCount], A (&seconds)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    firsts[i] = pairs[i].first;
    seconds[i] = pairs[i].second;
  }
}

// Rows of two tensors.
template <class First, class Second>
struct RowPairs {
  const First& first;
  const Second& second;

  template <class A, int kRows>
  __device__ __forceinline__ void load(int64_t c, Pair<A> (&pairs)[kRows]) const {
    A firsts[kRows], seconds[kRows];
    first.load(c, firsts);
    second.load(c, seconds);
#pragma unroll
    for (int r = 0; r < kRows; ++r) pairs[r] = {firsts[r], seconds[r]};
  }
};

// The logits of strided rows of no more than kMost classes, in registers.
template <class S, int kRows, int kMost>
class HeldRows {
  using A = opmath_t<S>;

 public:
  __device__ __forceinline__ HeldRows(const StridedRows<const S, kRows>& rows, int64_t classes) : rows_(rows) {
#pragma unroll
    for (int c = 0; c < kMost; ++c) {
      const S* p = rows.data + c * rows.stride;
      if (c < classes) copy_in(p, is_aligned(p, Numbers<S, kRows>::kAlignment), held_[c]);
    }
  }

  __device__ __forceinline__ void load(int64_t c, A (&values)[kRows]) const { convert(held_[c], values); }
  __device__ __forceinline__ A at(int row, int64_t c) const { return rows_.at(row, c); }

 private:
  const StridedRows<const S, kRows>& rows_;
  Numbers<S, kRows> held_[kMost];
};

// The bound of the classes of rows, if the compiler has to know the class that it loads. Else 0.
template <class Rows>
constexpr int kMostClasses = 0;
template <class S, int kRows, int kMost>
constexpr int kMostClasses<HeldRows<S, kRows, kMost>> = kMost;

// Calls f(c, values) with values[kCount][kRows] of kCount classes from class c on, kClassesInFlight or one, until it
// has had those from `begin` to `end`. `begin` is 0 where the number of classes has a bound.
template <class A, int kRows, class Rows, class F>
__device__ __forceinline__ void for_each_classes(const Rows& rows, int64_t begin, int64_t end, const F& f) {
  const auto visit = [&](int64_t c, auto count) {
    A values[count.value][kRows];
#pragma unroll
    for (int i = 0; i < count.value; ++i) rows.load(c + i, values[i]);
    f(c, values);
  };
  constexpr std::integral_constant<int, kClassesInFlight> kMany;
  constexpr std::integral_constant<int, 1> kOne;
  if constexpr (constexpr int kMost = kMostClasses<Rows>; kMost > 0) {
#pragma unroll
    for (int c = 0; c < kMost; c += kClassesInFlight) {
      if (c + kClassesInFlight <= end) {
        visit(c, kMany);
      } else {
#pragma unroll
        for (int i = c; i < c + kClassesInFlight - 1; ++i) {
          if (i < end) visit(i, kOne);
        }
      }
    }
  } else {
    int64_t c = begin;
    for (; c + kClassesInFlight <= end; c += kClassesInFlight) visit(c, kMany);
    for (; c < end; ++c) visit(c, kOne);
  }
}

// Calls f(c, values) with the values of class c of each of kRows rows, some classes after they have been loaded: it may
// write where they lie.
template <class A, int kRows, class Rows, class F>
__device__ __forceinline__ void for_each_class(const Rows& rows, int64_t classes, const F& f) {
  for_each_classes<A, kRows>(rows, 0, classes, [&](int64_t c, auto& values) {
    constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(values)>>;
#pragma unroll
    for (int i = 0; i < kCount; ++i) f(c + i, values[i]);
  });
}

}  // namespace ce_ext::cuda
