#include <map>
#include <mutex>
#include <utility>

#include "cuda/rows/cross_entropy_launch.cuh"
#include "cuda/rows/cross_entropy_with_grad_by_cluster.cuh"

namespace ce_ext::cuda {
namespace {

// Shorter rows are read again, from the second-level cache.
constexpr int64_t kMinRowBytes = 100 * 1024;

// How many blocks share a row: so many that there is room to copy half of the next one, as far as that goes. 0 where no
// cluster has room for the row.
int blocks_of_cluster(int64_t row_bytes) {
  if (row_bytes <= kMinRowBytes || row_bytes > kMaxRingBlocks * kRingBytes) return 0;
  return row_bytes + row_bytes / 2 <= 2 * kRingBytes ? 2 : kMaxRingBlocks;
}

template <class S>
ClusterConfig config_of(int clusters, int blocks, cudaStream_t stream) {
  ClusterConfig config(clusters * blocks, kRingThreads + kWarpSize, blocks, stream);
  config.dynamicSmemBytes = sizeof(RowRing<S>);
  return config;
}

// How many clusters the device, which may be a part of a GPU, has at a time.
template <class S>
int resident_clusters(int blocks) {
  static std::mutex mutex;
  static std::map<std::pair<int, int>, int> known;  // the runtime takes microseconds to tell
  int device = 0;
  cudaGetDevice(&device);
  const std::lock_guard lock(mutex);
  const auto [place, is_new] = known.try_emplace({device, blocks}, 0);
  if (is_new) {
    const auto kernel = cross_entropy_with_grad_by_cluster<S>;
    const ClusterConfig config = config_of<S>(1, blocks, /*stream=*/nullptr);
    cudaFuncAttributes code{};  // that of older GPUs, which a newer one may run, knows nothing of clusters
    int clusters = 0;
    const bool known_to_device =
        cudaFuncGetAttributes(&code, kernel) == cudaSuccess && code.ptxVersion >= 90 &&
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(RowRing<S>)) == cudaSuccess &&
        cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess;
    if (known_to_device) {
      place->second = clusters;
    } else {
      cudaGetLastError();  // or the next launch would be taken to have failed
    }
  }
  return place->second;
}

// Calls f with a value of the dtype, if there are kernels for it.
template <class F>
void dispatch_dtype(DType dtype, const F& f) {
  dispatch<__half, __nv_bfloat16>(dtype, [&](auto s) {
    if constexpr (sizeof(s) < sizeof(double)) f(s);
  });
}

}  // namespace

bool fits_cluster(const CrossEntropyWithGrad& problem) {
  const CrossEntropyForward& p = problem.forward;
  const int blocks = blocks_of_cluster(p.classes * size_of(p.dtype));
  const bool is_plain = dispatch_form(p, [](auto form) { return std::is_same_v<decltype(form), PlainForm>; });
  if (blocks == 0 || !is_plain) return false;
  bool fits = false;
  dispatch_dtype(p.dtype, [&](auto s) { fits = resident_clusters<decltype(s)>(blocks) > 0; });
  return fits;
}

void launch_by_cluster(const CrossEntropyWithGrad& problem, const LaunchContext& context) {
  const CrossEntropyForward& p = problem.forward;
  const int blocks = blocks_of_cluster(p.classes * size_of(p.dtype));
  const Shares shares(p.rows, p.groups, 1);
  const auto loss = make_loss<float>(problem, context);
  dispatch_dtype(p.dtype, [&](auto s) {
    using S = decltype(s);
    const int clusters = int(std::min<int64_t>(resident_clusters<S>(blocks), shares.count));
    const ClusterConfig config = config_of<S>(clusters, blocks, context.stream);
    launch_shares<S>(p, shares, context, [&](RowTotals* of_shares) {
      cudaLaunchKernelEx(&config, cross_entropy_with_grad_by_cluster<S>, problem, loss, shares, of_shares);
    });
  });
}

}  // namespace ce_ext::cuda
