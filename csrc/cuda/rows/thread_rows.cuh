// Rows that a thread has for itself, and goes over class by class.
#pragma once

#include "cuda/device/packs.cuh"
#include "cuda/rows/policy.cuh"
#include "cuda/rows/row_chunks.cuh"

namespace ce_ext::cuda {

// kRows rows that lie side by side, so that those of a class are a pack, aligned as such, or a single number.
template <class Data, int kRows>
struct StridedRows {
  using S = std::remove_const_t<Data>;
  using A = opmath_t<S>;

  Data* data;
  int64_t stride;  // from class to class

  __device__ __forceinline__ Numbers<S, kRows> numbers(int64_t c) const {
    return *reinterpret_cast<const Numbers<S, kRows>*>(data + c * stride);
  }
  __device__ __forceinline__ void load(int64_t c, A (&values)[kRows]) const { convert(numbers(c), values); }
  __device__ __forceinline__ void store(int64_t c, const A (&values)[kRows]) const {
    store_pack(data + c * stride, values, /*aligned=*/true, /*streams=*/false);
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

// Calls f(c, values) with values[kCount][kRows] of kCount classes from class c on, kClassesInFlight or one, until it
// has had those from `begin` to `end`.
template <class A, int kRows, class Rows, class F>
__device__ __forceinline__ void for_each_classes(const Rows& rows, int64_t begin, int64_t end, const F& f) {
  const auto visit = [&](int64_t c, auto count) {
    A values[count.value][kRows];
#pragma unroll
    for (int i = 0; i < count.value; ++i) rows.load(c + i, values[i]);
    f(c, values);
  };
  int64_t c = begin;
  for (; c + kClassesInFlight <= end; c += kClassesInFlight) visit(c, std::integral_constant<int, kClassesInFlight>());
  for (; c < end; ++c) visit(c, std::integral_constant<int, 1>());
}

// Planes of an image are what its pixels have of a class. Calls f(c, planes) with kPlanes of them from class c on as
// they lie in memory, while the next ones are on their way, until it has had those from `begin` to `end`. Behind them,
// planes hold `fill`.
template <int kPlanes, class S, int kRows, class F>
__device__ __forceinline__ void for_each_planes(const StridedRows<const S, kRows>& rows, int64_t begin, int64_t end,
                                                opmath_t<S> fill, const F& f) {
  struct Held {
    Numbers<S, kRows> planes[kPlanes];
  };
  const auto load = [&](int chunk, Held& held) {
    const int64_t c = begin + chunk * kPlanes;
    if (c + kPlanes <= end) {
#pragma unroll
      for (int i = 0; i < kPlanes; ++i) held.planes[i] = rows.numbers(c + i);
    } else {
#pragma unroll
      for (int i = 0; i < kPlanes; ++i) held.planes[i] = c + i < end ? rows.numbers(c + i) : filled<S, kRows>(fill);
    }
  };
  Held held;
  load(0, held);
  for_each_chunk(int((end - begin + kPlanes - 1) / kPlanes), held, load,
                 [&](int chunk) { f(begin + chunk * kPlanes, held.planes); });
}

// Calls f(c, values) with the values of class c of each of kRows rows, after they have been loaded: it may write where
// they lie.
template <class A, int kRows, class Rows, class F>
__device__ __forceinline__ void for_each_class(const Rows& rows, int64_t classes, const F& f) {
  for_each_classes<A, kRows>(rows, 0, classes, [&](int64_t c, auto& values) {
    constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(values)>>;
#pragma unroll
    for (int i = 0; i < kCount; ++i) f(c + i, values[i]);
  });
}

template <class A, int kRows, class S, class F>
__device__ __forceinline__ void for_each_class(const StridedRows<const S, kRows>& rows, int64_t classes, const F& f) {
  for_each_planes<kGradPlanes>(rows, 0, classes, A(0), [&](int64_t c, const auto& planes) {
#pragma unroll
    for (int i = 0; i < kGradPlanes; ++i) {
      if (c + i >= classes) break;
      A values[kRows];
      convert(planes[i], values);
      f(c + i, values);
    }
  });
}

}  // namespace ce_ext::cuda
