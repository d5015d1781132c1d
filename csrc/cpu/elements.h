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

// A result in memory, its numbers of type S or of the compute type; none where `data` is null.
template <class S>
struct Result {
  void* data;
  bool is_opmath;
  const RowStrides& strides;

  int64_t bytes(int64_t elements) const { return elements * (is_opmath ? sizeof(opmath_t<S>) : sizeof(S)); }
};

// Numbers of a result.
template <class S>
class OutputTile {
  using A = opmath_t<S>;

 public:
  explicit OutputTile(const Result<S>& result) : result_(result) {}

  // Where to write those of the elements, for store() to bring to their place.
  A* open(const TileElements& tile) { return is_in_place(tile) ? first<A>(tile) : values_; }

  void store(const TileElements& tile) {
    if (!is_in_place(tile)) result_.is_opmath ? store(first<A>(tile), tile) : store(first<S>(tile), tile);
  }

 private:
  bool is_in_place(const TileElements& tile) const { return result_.is_opmath && tile.is_dense(result_.strides); }

  template <class T>
  T* first(const TileElements& tile) const {
    return static_cast<T*>(result_.data) + tile.offset(result_.strides);
  }

  template <class T>
  void store(T* numbers, const TileElements& tile) const {
    const RowStrides& strides = result_.strides;
    if (tile.is_dense(strides)) {
      copy_run(numbers, 1, values_, 1, tile.n);
    } else if (tile.is_transposed(strides)) {
      copy_transposed(numbers, tile.stride(strides), values_, tile.columns, tile.rows, tile.columns);
    } else {
      const A* values = values_;
      tile.for_each_run(strides, [&](int64_t offset, int64_t count) {
        copy_run(static_cast<T*>(result_.data) + offset, tile.stride(strides), values, 1, count);
        values += count;
      });
    }
  }

  const Result<S> result_;
  alignas(64) A values_[kMaxTileElements];
};

}  // namespace ce_ext::cpu
