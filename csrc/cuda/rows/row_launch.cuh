// Which kernels take the rows of a problem, by how they lie in memory, and what their launches have in common.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "cuda/device/shares.cuh"
#include "cuda/host/launch.h"
#include "cuda/rows/few_rows.cuh"
#include "cuda/rows/policy.cuh"
#include "cuda/rows/teams.cuh"
#include "cuda/rows/tiles.cuh"
#include "host/rows.h"

namespace ce_ext::cuda {

enum class RowWay {
  kInTiles,    // short rows, one after another
  kByClass,    // classes side by side
  kByRowPack,  // rows side by side, in packs
  kByRow,      // everything else
};

// How rows lie in one of the tensors of a problem.
struct RowTensor {
  const void* data;
  const RowStrides& rows;
  int64_t class_stride;
};

// `group_rows` are worked on together. There are kernels for packs of so many rows side by side, and for tiles of rows
// of so many classes.
template <class S>
RowWay way_of(std::initializer_list<RowTensor> tensors, const RowDims& dims, int64_t classes, int64_t group_rows,
              int pack, int64_t max_tile_classes) {
  const int innermost = dims.ndim - 1;
  bool side_by_side = dims.sizes[innermost] % pack == 0 && group_rows % pack == 0;
  bool by_class = true;
  bool one_after_another = classes <= max_tile_classes && dims.ndim == 1;
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

// Calls f with the team of so many threads, or with the next larger one, or with the largest.
template <class F, int kSize, int... kLarger>
void dispatch_team(int threads, TeamSizes<kSize, kLarger...>, const F& f) {
  if constexpr (sizeof...(kLarger) > 0) {
    if (threads > kSize) return dispatch_team(threads, TeamSizes<kLarger...>(), f);
  }
  f(Team<kSize>());
}

// Calls f with the team that the policy has for such rows. Kernels that are seldom used have few.
template <bool kOften, class Teams, class Few, class F>
void dispatch_team(Pass pass, int64_t row_bytes, Teams, Few, const F& f) {
  dispatch_team(row_threads(pass, row_bytes), std::conditional_t<kOften, Teams, Few>(), f);
}

template <class S>
constexpr int64_t kMaxTileClasses = kMaxTileRowBytes / int64_t(sizeof(S));

// Launches a kernel whose teams go through shares of the rows.
template <class S, class Team, class Forward, class Problem, class Loss>
void launch_teams(void (*kernel)(Problem, Loss, Shares, RowTotals*), Team, const Forward& forward,
                  const Problem& problem, const Loss& loss, const LaunchContext& context) {
  const Shares shares(forward.rows, forward.groups, Team::kCount);
  launch_shares<S>(forward, shares, context, [&](RowTotals* of_shares) {
    LAUNCH(kernel, shares.count, Team::kThreads, context.stream, problem, loss, shares, of_shares);
  });
}

}  // namespace ce_ext::cuda
