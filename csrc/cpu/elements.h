// The elements of tensors, whatever their strides and dtypes, as tiles of the compute type: contiguous, and small
// enough for those of all operands to stay in the caches of a core.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/dtypes.h"
#include "cpu/lanes.h"
#include "cpu/tiling.h"
#include "cpu/transpose.h"
#include "host/binary_cross_entropy_problem.h"

namespace ce_ext::cpu {

// Calls f with a value of the type of the numbers of an operand, where those of the input, of `dtype`, are computed in
// A. Where A is an integer type, so is that.
template <class A, class F>
void dispatch_number(const Operand& operand, DType dtype, F f) {
  if constexpr (std::is_integral_v<A>) {
    dispatch<A>(operand.type, [&](auto number) {
      if constexpr (std::is_integral_v<decltype(number)>) f(number);
    });
  } else {
    operand.type == NumberType::kInput ? dispatch_stored<A>(dtype, f) : dispatch<A>(operand.type, f);
  }
}

// Numbers of an operand.
template <class A>
class InputTile {
 public:
  // Those of the elements, converted, or where they lie. The input is of `dtype`.
  const A* load(const Operand& operand, DType dtype, const TileElements& tile) {
    const RowStrides& strides = operand.strides;
    const A* result = values_;
    dispatch_number<A>(operand, dtype, [&](auto number) {
      const auto* data = static_cast<const decltype(number)*>(operand.data);
      if (tile.is_dense(strides)) {
        const auto* numbers = data + tile.offset(strides);
        if constexpr (std::is_same_v<decltype(number), A>) {
          result = numbers;
        } else {
          copy_run(values_, 1, numbers, 1, tile.n);
        }
      } else if (tile.is_transposed(strides)) {
        copy_transposed(values_, tile.columns, data + tile.offset(strides), tile.stride(strides), tile.columns,
                        tile.rows);
      } else {
        A* values = values_;
        tile.for_each_run(strides, [&](int64_t offset, int64_t count) {
          copy_run(values, 1, data + offset, tile.stride(strides), count);
          values += count;
        });
      }
    });
    return result;
  }

  A* values() { return values_; }

 private:
  alignas(64) A values_[kMaxTileElements];
};

// Numbers of a result, of `dtype` in memory.
template <class A>
class OutputTile {
 public:
  OutputTile(void* data, DType dtype, const RowStrides& strides) : data_(data), dtype_(dtype), strides_(strides) {}

  // Where to write those of the elements, for store() to bring to their place.
  A* open(const TileElements& tile) {
    if (size_of(dtype_) != sizeof(A) || !tile.is_dense(strides_)) return values_;
    return static_cast<A*>(data_) + tile.offset(strides_);
  }

  void store(const TileElements& tile) {
    dispatch_stored<A>(dtype_, [&](auto number) {
      auto* data = static_cast<decltype(number)*>(data_);
      if (tile.is_dense(strides_)) {
        constexpr bool kIsThere = std::is_same_v<decltype(number), A>;
        if constexpr (!kIsThere) copy_run(data + tile.offset(strides_), 1, values_, 1, tile.n);
      } else if (tile.is_transposed(strides_)) {
        copy_transposed(data + tile.offset(strides_), tile.stride(strides_), values_, tile.columns, tile.rows,
                        tile.columns);
      } else {
        const A* values = values_;
        tile.for_each_run(strides_, [&](int64_t offset, int64_t count) {
          copy_run(data + offset, tile.stride(strides_), values, 1, count);
          values += count;
        });
      }
    });
  }

 private:
  void* data_;
  DType dtype_;
  const RowStrides& strides_;
  alignas(64) A values_[kMaxTileElements];
};

}  // namespace ce_ext::cpu
