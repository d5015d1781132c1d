// All that the kernels know of CUDA: what is not plain C++ in them goes through here, and they include nothing of
// torch. So nvcc takes seconds, and tests/cuda_emu can run the same files on the CPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "losses/math.h"

#if defined(__CUDACC__)  // the emulator's headers, which stand in for those above, bring their own
#define SHARED_ARRAY(T, name, size) __shared__ T name[size]
#define DYNAMIC_SHARED_ARRAY(T, name)                                   \
  extern __shared__ __align__(128) unsigned char ce_ext_shared_bytes[]; \
  T* const name = reinterpret_cast<T*>(ce_ext_shared_bytes)
// The number of bytes is that of the dynamic shared memory.
#define LAUNCH_WITH_SHARED(kernel, blocks, threads, bytes, stream, ...) \
  kernel<<<(blocks), (threads), (bytes), (stream)>>>(__VA_ARGS__)
#endif
#define LAUNCH(kernel, blocks, threads, stream, ...) LAUNCH_WITH_SHARED(kernel, blocks, threads, 0, stream, __VA_ARGS__)

// Whether the code that is compiled is for GPUs that have clusters of blocks.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define HAS_CLUSTERS 1
#else
#define HAS_CLUSTERS 0
#endif

namespace ce_ext::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

// The configuration of a launch of blocks in clusters.
struct ClusterConfig : cudaLaunchConfig_t {
  cudaLaunchAttribute cluster_dimension{};

  ClusterConfig(unsigned blocks, unsigned threads, unsigned cluster, cudaStream_t stream_) : cudaLaunchConfig_t{} {
    cluster_dimension.id = cudaLaunchAttributeClusterDimension;
    cluster_dimension.val.clusterDim.x = cluster;
    cluster_dimension.val.clusterDim.y = cluster_dimension.val.clusterDim.z = 1;
    gridDim = dim3(blocks);
    blockDim = dim3(threads);
    stream = stream_;
    attrs = &cluster_dimension;
    numAttrs = 1;
  }
};

template <class... Parameters, class... Arguments>
void launch_clusters(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, unsigned cluster,
                     cudaStream_t stream, const Arguments&... arguments) {
  const ClusterConfig config(blocks, threads, cluster, stream);
  cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

// Memory holds S, arithmetic is in opmath.
__device__ __forceinline__ double load(const double* p) { return *p; }
__device__ __forceinline__ float load(const float* p) { return *p; }
__device__ __forceinline__ float load(const __half* p) { return __half2float(*p); }
__device__ __forceinline__ float load(const __nv_bfloat16* p) { return __bfloat162float(*p); }

__device__ __forceinline__ void store(double* p, double value) { *p = value; }
__device__ __forceinline__ void store(float* p, float value) { *p = value; }
__device__ __forceinline__ void store(__half* p, float value) { *p = __float2half_rn(value); }
__device__ __forceinline__ void store(__nv_bfloat16* p, float value) { *p = __float2bfloat16_rn(value); }

// Two halves in a register, the first in its lower bits.
template <class S>
struct HalfPair {
  unsigned bits;
};

template <class S>
__device__ __forceinline__ void unpack_pair(HalfPair<S> pair, float& first, float& second) {
  if constexpr (std::is_same_v<S, __half>) {
    __half2 halves;
    memcpy(&halves, &pair, sizeof(halves));
    first = __low2float(halves);
    second = __high2float(halves);
  } else {
    const unsigned words[2] = {pair.bits << 16, pair.bits & 0xffff0000u};
    memcpy(&first, &words[0], sizeof(first));
    memcpy(&second, &words[1], sizeof(second));
  }
}

template <class S>
__device__ __forceinline__ HalfPair<S> pack_pair(float first, float second) {
  HalfPair<S> pair;
  if constexpr (std::is_same_v<S, __half>) {
    const __half2 halves = __floats2half2_rn(first, second);
    memcpy(&pair, &halves, sizeof(pair));
  } else {
    const __nv_bfloat162 halves = __floats2bfloat162_rn(first, second);
    memcpy(&pair, &halves, sizeof(pair));
  }
  return pair;
}

// Both halves at once, of numbers of CUDA's own type.
template <class S, class F>
__device__ __forceinline__ HalfPair<S> combine(HalfPair<S> a, HalfPair<S> b, const F& f) {
  using Halves = std::conditional_t<std::is_same_v<S, __half>, __half2, __nv_bfloat162>;
  Halves x, y;
  memcpy(&x, &a, sizeof(x));
  memcpy(&y, &b, sizeof(y));
  const Halves result = f(x, y);
  memcpy(&a, &result, sizeof(a));
  return a;
}

// As losses/math.h has them for numbers; NaN where either is.
using ce_ext::lesser;
using ce_ext::maximum;
template <class S>
__device__ __forceinline__ HalfPair<S> lesser(HalfPair<S> a, HalfPair<S> b) {
  return combine(a, b, [](auto x, auto y) { return __hmin2_nan(x, y); });
}
template <class S>
__device__ __forceinline__ HalfPair<S> maximum(HalfPair<S> a, HalfPair<S> b) {
  return combine(a, b, [](auto x, auto y) { return __hmax2_nan(x, y); });
}

}  // namespace ce_ext::cuda
