// Launches of teams that may be clusters of blocks, where the GPU takes them.
#pragma once

#include <map>
#include <mutex>
#include <tuple>

#include "cuda/rows/row_launch.cuh"

namespace ce_ext::cuda {

// Whether the device, which may be a part of a GPU, has room for a cluster of such blocks of the kernel.
template <class... Parameters>
bool has_room(void (*kernel)(Parameters...), const RowShape& shape) {
  if (shape.cluster == 1) return true;
  static std::mutex mutex;
  static std::map<std::tuple<int, const void*, int, int>, bool> known;  // the runtime takes microseconds to tell
  int device = 0;
  cudaGetDevice(&device);
  const std::lock_guard lock(mutex);
  const auto [place, is_new] =
      known.try_emplace({device, reinterpret_cast<const void*>(kernel), shape.threads, shape.cluster});
  if (is_new) {
    const ClusterConfig config(shape.cluster, shape.threads, shape.cluster, /*stream=*/nullptr);
    int clusters = 0;
    cudaFuncAttributes code{};  // that of older GPUs, which a newer one may run, knows nothing of clusters
    place->second = cudaFuncGetAttributes(&code, kernel) == cudaSuccess && code.ptxVersion >= 90 &&
                    cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess && clusters > 0;
    if (!place->second) cudaGetLastError();  // a query that has failed is no error of the launch to come
  }
  return place->second;
}

// The shape, with a block for a row where there is no room for its cluster.
template <class... Parameters>
RowShape with_room(void (*kernel)(Parameters...), RowShape shape) {
  if (!has_room(kernel, shape)) shape.cluster = 1;
  return shape;
}

// Launches a kernel whose teams go through shares of the rows.
template <class Problem, class Loss>
void launch_shares(void (*kernel)(Problem, Loss, RowShape, Shares, Scratch), const RowShape& wanted, int64_t rows,
                   const ReducedLoss& reduced, const Problem& problem, const Loss& loss, const LaunchContext& context) {
  const RowShape shape = with_room(kernel, wanted);
  const Shares shares(rows, reduced.groups, teams_of(shape));
  launch_teams(kernel, shares.count, shape, context.stream, problem, loss, shape, shares,
               scratch_for(reduced, shares, context));
}

}  // namespace ce_ext::cuda
