// The elements of tensors, whatever their strides and dtypes, as tiles of the compute type: contiguous, and small
// enough for those of all operands to stay in the caches of a core.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/lanes.h"
#include "cpu/tiling.h"
#include "cpu/transpose.h"
#include "host/binary_cross_entropy_problem.h"

namespace ce_ext::cpu {

// Numbers of an operand.
template <class A>
class InputTile {
 public:
  // Those of the elements, converted, or where they lie. S is the type of the input.
  template <class S>
  const A* load(const Operand& operand, const TileElements& tile) {
    const RowStrides& strides = operand.strides;
    return dispatch<S>(operand.type, [&](auto number) -> const A* {
      const auto* data = static_cast<const decltype(number)*>(operand.data);
      if (tile.is_dense(strides)) {
        const auto* numbers = data + tile.offset(strides);
        if constexpr (std::is_same_v<decltype(number), A>) return numbers;
        copy_run(values_, 1, numbers, 1, tile.n);
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
      return values_;
    });
  }

  A* values() { return values_; }

 private:
  alignas(64) A values_[kMaxTileElements];
};

// Numbers of a result in memory of type S.
template <class A, class S>
class OutputTile {
 public:
  // Where to write those of the elements, for store() to bring to their place.
  A* open(S* data, const RowStrides& strides, const TileElements& tile) {
    if constexpr (std::is_same_v<A, S>) {
      if (tile.is_dense(strides)) return data + tile.offset(strides);
    }
    return values_;
  }

  void store(S* data, const RowStrides& strides, const TileElements& tile) {
    if (tile.is_dense(strides)) {
      if constexpr (!std::is_same_v<A, S>) copy_run(data + tile.offset(strides), 1, values_, 1, tile.n);
    } else if (tile.is_transposed(strides)) {
      copy_transposed(data + tile.offset(strides), tile.stride(strides), values_, tile.columns, tile.rows,
                      tile.columns);
    } else {
      const A* values = values_;
      tile.for_each_run(strides, [&](int64_t offset, int64_t count) {
        copy_run(data + offset, tile.stride(strides), values, 1, count);
        values += count;
      });
    }
  }

 private:
  alignas(64) A values_[kMaxTileElements];
};

}  // namespace ce_ext::cpu
