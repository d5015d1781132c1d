// Which kernels take the rows of a problem, by how they lie in memory, and what their launches have in common.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "cuda/device/shares.cuh"
#include "cuda/host/launch.h"
#include "cuda/rows/few_rows.cuh"
#include "cuda/rows/policy.cuh"
#include "cuda/rows/tile.cuh"
#include "host/rows.h"

namespace ce_ext::cuda {

enum class RowWay {
  kInTiles,    // short rows, one after another
  kByClass,    // classes side by side
  kByRowPack,  // rows side by side, in whole packs
  kByRow,      // everything else
};

// How rows lie in one of the tensors of a problem.
struct RowTensor {
  const void* data;
  const RowStrides& rows;
  int64_t class_stride;
};

// `group_rows` are worked on together. There are kernels for `pack` rows side by side, if that is more than one.
template <class S>
RowWay way_of(std::initializer_list<RowTensor> tensors, const RowDims& dims, int64_t classes, int64_t group_rows,
              int pack) {
  const int innermost = dims.ndim - 1;
  bool side_by_side = pack > 1 && dims.sizes[innermost] % pack == 0 && group_rows % pack == 0;
  bool by_class = true;
  bool one_after_another = classes <= kMaxTileClasses && dims.ndim == 1;
  for (const RowTensor& tensor : tensors) {
    by_class = by_class && tensor.class_stride == 1;
    one_after_another = one_after_another && tensor.rows.strides[0] == classes;
    side_by_side = side_by_side && is_aligned(tensor.data, pack * sizeof(S)) && tensor.class_stride % pack == 0 &&
                   tensor.rows.strides[innermost] == 1;
    for (int d = 0; d < innermost; ++d) side_by_side = side_by_side && tensor.rows.strides[d] % pack == 0;
  }
  if (by_class) return one_after_another ? RowWay::kInTiles : RowWay::kByClass;
  return side_by_side ? RowWay::kByRowPack : RowWay::kByRow;
}

// Calls f with a constant, the number of packs that the shape has.
template <bool kManyRegisters, class F>
void dispatch_packs(const RowShape& shape, const F& f) {
  if constexpr (!kManyRegisters) {
    if (shape.packs == 8) return f(std::integral_constant<int, 8>());
  }
  f(std::integral_constant<int, 4>());
}

// What the policy says, of blocks that are no larger than the kernel allows.
inline RowShape shape_of(Pass pass, int64_t row_bytes, int max_threads) {
  RowShape shape = row_shape(pass, row_bytes);
  if (shape.threads > max_threads) {
    if (shape.lanes == shape.threads) shape.lanes = max_threads;
    shape.threads = max_threads;
  }
  return shape;
}

// Its block, as the only team.
inline RowShape block_of(RowShape shape) {
  shape.lanes = shape.threads;
  shape.cluster = 1;
  return shape;
}

// Teams of a block.
inline int teams_of(const RowShape& shape) { return shape.threads / shape.lanes; }

// Launches a kernel of teams, on so many blocks, or clusters of them.
template <class... Parameters, class... Arguments>
void launch_teams(void (*kernel)(Parameters...), int64_t blocks, const RowShape& shape, cudaStream_t stream,
                  const Arguments&... arguments) {
  if (shape.cluster > 1) {
    launch_clusters(kernel, blocks * shape.cluster, shape.threads, shape.cluster, stream, arguments...);
  } else {
    LAUNCH(kernel, blocks, shape.threads, stream, arguments...);
  }
}

}  // namespace ce_ext::cuda
