// The order in which the elements of tensors are visited: tile by tile.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "host/rows.h"

namespace ce_ext::cpu {

constexpr int64_t kMaxTileElements = 4096;

// Which elements a tile has: n of them in the order of the dimensions, or a block of rows along the last dimension that
// lie side by side along another one.
struct TileElements {
  const RowDims& dims;
  int64_t place[kMaxRowDims] = {};  // of the first
  int64_t n = 0;
  int row_dim = kNoBlock;
  int64_t rows = 0, columns = 0;

  static constexpr int kNoBlock = -1;

  bool is_block() const { return row_dim != kNoBlock; }

  // Where the first of them is in a tensor, and the distance from one to the next in a run.
  int64_t offset(const RowStrides& strides) const {
    int64_t result = 0;
    for (int d = 0; d < dims.ndim; ++d) result += place[d] * strides.strides[d];
    return result;
  }
  int64_t stride(const RowStrides& strides) const { return strides.strides[dims.ndim - 1]; }

  // Whether they lie one after another.
  bool is_dense(const RowStrides& strides) const {
    if (is_block()) return stride(strides) == 1 && strides.strides[row_dim] == columns;
    int64_t dense = 1;
    for (int d = dims.ndim - 1; d >= 0; --d) {
      if (strides.strides[d] != dense) return false;
      dense *= dims.sizes[d];
    }
    return true;
  }

  // Whether they are a block whose columns, not its rows, are contiguous.
  bool is_transposed(const RowStrides& strides) const {
    return is_block() && strides.strides[row_dim] == 1 && stride(strides) > 1;
  }

  // Calls f(offset, count) for the runs that they make along the last dimension.
  template <class F>
  void for_each_run(const RowStrides& strides, F f) const {
    int64_t begin = offset(strides);
    if (is_block()) {
      for (int64_t r = 0; r < rows; ++r) f(begin + r * strides.strides[row_dim], columns);
      return;
    }
    const int last = dims.ndim - 1;
    int64_t at[kMaxRowDims];
    std::copy_n(place, dims.ndim, at);
    for (int64_t left = n;;) {
      const int64_t count = std::min(left, dims.sizes[last] - at[last]);
      f(begin, count);
      left -= count;
      if (left == 0) return;
      begin -= at[last] * strides.strides[last];
      at[last] = 0;
      for (int d = last - 1;; --d) {
        begin += strides.strides[d];
        if (++at[d] < dims.sizes[d]) break;
        begin -= dims.sizes[d] * strides.strides[d];
        at[d] = 0;
      }
    }
  }
};

// All tiles of equal groups of elements, in an order that follows from sizes and strides alone. The dimensions are in
// the order of one tensor's memory; where another tensor's neighbours lie along another dimension than the last, tiles
// are blocks of these two, so that the cache lines of both are used whole.
class Tiling {
 public:
  Tiling(const RowDims& dims, int64_t elements, int64_t groups, int64_t element_bytes,
         std::initializer_list<const RowStrides*> tensors)
      : dims_(dims), grid_(dims), last_(dims.ndim - 1) {
    if (elements == 0) return;
    group_elements_ = elements / groups;
    group_tiles_ = count_blocks(group_elements_, kElementsInOrder);
    count = group_tiles_ * groups;
    row_dim_ = find_row_dim(groups, tensors);
    if (row_dim_ == TileElements::kNoBlock) return;
    const int64_t width = kWidthBytes / element_bytes;
    columns_ = dims.sizes[last_] < 2 * width ? dims.sizes[last_] : width;
    rows_ = side(row_dim_, kMaxTileElements / columns_);
    columns_ = side(last_, kMaxTileElements / rows_);
    tile_elements = rows_ * columns_;
    grid_.sizes[row_dim_] = count_blocks(dims.sizes[row_dim_], rows_);
    grid_.sizes[last_] = count_blocks(dims.sizes[last_], columns_);
    count = 1;
    for (int d = 0; d < dims.ndim; ++d) count *= grid_.sizes[d];
  }

  int64_t count = 0;
  int64_t tile_elements = kElementsInOrder;  // but for the last ones along a dimension

  TileElements operator[](int64_t index) const {
    TileElements tile{dims_};
    if (row_dim_ == TileElements::kNoBlock) {
      const int64_t group = index / group_tiles_, start = (index - group * group_tiles_) * kElementsInOrder;
      tile.n = std::min(kElementsInOrder, group_elements_ - start);
      locate(dims_, group * group_elements_ + start, tile.place);
      return tile;
    }
    locate(grid_, index, tile.place);
    int64_t &row = tile.place[row_dim_], &column = tile.place[last_];
    row *= rows_;
    column *= columns_;
    tile.row_dim = row_dim_;
    tile.rows = std::min(rows_, dims_.sizes[row_dim_] - row);
    tile.columns = std::min(columns_, dims_.sizes[last_] - column);
    tile.n = tile.rows * tile.columns;
    return tile;
  }

 private:
  // Of a tile that is no block. A few of them stay in the first-level cache.
  static constexpr int64_t kElementsInOrder = 1024;
  // The width of blocks, where there is room: of single cache lines memory delivers fewer bytes a second.
  static constexpr int64_t kWidthBytes = 256;
  // Sides are multiples of it, or all of a dimension: cache lines, whole vectors.
  static constexpr int64_t kSideUnit = 16;
  // Fewer elements along both dimensions stay in the second-level cache in whatever order they are visited.
  static constexpr int64_t kMinPlaneElements = 65536;

  static int64_t count_blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

  static void locate(const RowDims& dims, int64_t number, int64_t* place) {
    for (int d = dims.ndim - 1; d > 0; --d) {
      place[d] = number % dims.sizes[d];
      number /= dims.sizes[d];
    }
    place[0] = number;
  }

  // The dimension along which the first tensor to disagree with the order of the dimensions has its neighbours. It has
  // to be one of a group, as the last dimension then is.
  int find_row_dim(int64_t groups, std::initializer_list<const RowStrides*> tensors) const {
    int outermost = 0;
    for (; groups > 1; ++outermost) groups /= dims_.sizes[outermost];
    for (const RowStrides* tensor : tensors) {
      int nearest = last_;
      for (int d = outermost; d < last_; ++d) {
        const int64_t stride = tensor->strides[d];
        if (stride != 0 && stride < tensor->strides[nearest]) nearest = d;
      }
      const bool is_large = dims_.sizes[nearest] * dims_.sizes[last_] >= kMinPlaneElements;
      if (nearest != last_ && is_large) return nearest;
    }
    return TileElements::kNoBlock;
  }

  int64_t side(int d, int64_t limit) const {
    return dims_.sizes[d] <= limit ? dims_.sizes[d] : limit / kSideUnit * kSideUnit;
  }

  const RowDims& dims_;
  RowDims grid_;  // of blocks
  int last_;
  int64_t group_elements_ = 0, group_tiles_ = 0;
  int row_dim_ = TileElements::kNoBlock;
  int64_t rows_ = 1, columns_ = 1;  // of a block
};

}  // namespace ce_ext::cpu
