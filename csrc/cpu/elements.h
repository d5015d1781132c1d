// The elements of tensors, whatever their strides and dtypes, as tiles of the compute type: contiguous, and small
// enough for those of all operands to stay in the first-level cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cpu/lanes.h"
#include "host/binary_cross_entropy_problem.h"

namespace ce_ext::cpu {

constexpr int64_t kElementsPerTile = 1024;

// Calls f(offset, n) for the runs that elements [first, first + count) make along the last dimension.
template <class F>
void for_each_run(const RowDims& dims, const RowStrides& strides, int64_t first, int64_t count, F f) {
  const int last = dims.ndim - 1;
  int64_t place[kMaxRowDims];
  int64_t offset = 0;
  for (int d = last; d >= 0; --d) {
    place[d] = d > 0 ? first % dims.sizes[d] : first;
    first /= dims.sizes[d];
    offset += place[d] * strides.strides[d];
  }
  while (true) {
    const int64_t n = std::min(count, dims.sizes[last] - place[last]);
    f(offset, n);
    count -= n;
    if (count == 0) return;
    offset -= place[last] * strides.strides[last];
    place[last] = 0;
    for (int d = last - 1;; --d) {
      offset += strides.strides[d];
      if (++place[d] < dims.sizes[d]) break;
      offset -= dims.sizes[d] * strides.strides[d];
      place[d] = 0;
    }
  }
}

// Whether elements lie one after another.
inline bool is_dense(const RowDims& dims, const RowStrides& strides) {
  int64_t stride = 1;
  for (int d = dims.ndim - 1; d >= 0; --d) {
    if (strides.strides[d] != stride) return false;
    stride *= dims.sizes[d];
  }
  return true;
}

// Numbers of an operand.
template <class A>
class InputTile {
 public:
  // Those of elements [first, first + n), converted, or where they lie. S is the type of the input.
  template <class S>
  const A* load(const Operand& operand, const RowDims& dims, int64_t first, int64_t n) {
    return dispatch<S>(operand.type, [&](auto number) -> const A* {
      const auto* data = static_cast<const decltype(number)*>(operand.data);
      if (is_dense(dims, operand.strides)) {
        if constexpr (std::is_same_v<decltype(number), A>) return data + first;
        copy_run(values_, 1, data + first, 1, n);
        return values_;
      }
      A* tile = values_;
      for_each_run(dims, operand.strides, first, n, [&](int64_t offset, int64_t count) {
        copy_run(tile, 1, data + offset, operand.strides.strides[dims.ndim - 1], count);
        tile += count;
      });
      return values_;
    });
  }

  A* values() { return values_; }

 private:
  alignas(64) A values_[kElementsPerTile];
};

// Numbers of a result in memory of type S.
template <class A, class S>
class OutputTile {
 public:
  // Where to write those of elements from `first` on, for store() to bring to their place.
  A* open(S* data, const RowDims& dims, const RowStrides& strides, int64_t first) {
    if constexpr (std::is_same_v<A, S>) {
      if (is_dense(dims, strides)) return data + first;
    }
    return values_;
  }

  void store(S* data, const RowDims& dims, const RowStrides& strides, int64_t first, int64_t n) {
    if (is_dense(dims, strides)) {
      if constexpr (!std::is_same_v<A, S>) copy_run(data + first, 1, values_, 1, n);
      return;
    }
    const A* tile = values_;
    for_each_run(dims, strides, first, n, [&](int64_t offset, int64_t count) {
      copy_run(data + offset, strides.strides[dims.ndim - 1], tile, 1, count);
      tile += count;
    });
  }

 private:
  alignas(64) A values_[kElementsPerTile];
};

}  // namespace ce_ext::cpu
