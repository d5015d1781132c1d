// All that the kernels know of CUDA: what is not plain C++ in them goes through here, and they include nothing of
// torch. So nvcc takes seconds, and tests/cuda_emu can run the same files on the CPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#if defined(__CUDACC__)  // the emulator's headers, which stand in for those above, bring their own
#define SHARED_ARRAY(T, name, size) __shared__ T name[size]
#define LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<(blocks), (threads), 0, (stream)>>>(__VA_ARGS__)
#endif

namespace ce_ext::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

// Memory holds S, arithmetic is in opmath.
__device__ __forceinline__ double load(const double* p) { return *p; }
__device__ __forceinline__ float load(const float* p) { return *p; }
__device__ __forceinline__ float load(const __half* p) { return __half2float(*p); }
__device__ __forceinline__ float load(const __nv_bfloat16* p) { return __bfloat162float(*p); }

__device__ __forceinline__ void store(double* p, double value) { *p = value; }
__device__ __forceinline__ void store(float* p, float value) { *p = value; }
__device__ __forceinline__ void store(__half* p, float value) { *p = __float2half_rn(value); }
__device__ __forceinline__ void store(__nv_bfloat16* p, float value) { *p = __float2bfloat16_rn(value); }

}  // namespace ce_ext::cuda
