// Small kernels for the tests of the emulator. Each writes one int a thread, or does what CUDA leaves undefined.
#include <algorithm>
#include <map>
#include <string>

#include "cuda/device/cluster.cuh"
#include "cuda/device/packs.cuh"
#include "cuda/device/portability.cuh"
#include "cuda/device/reduce.cuh"
#include "losses/math.h"
#include "selftest.h"

namespace {

constexpr unsigned kAll = ~0u;
constexpr unsigned kFirstHalf = 0xffff;

using ce_ext::RowTotals;
using namespace ce_ext::cuda;

int counter;

// A value that no other thread of the launch has.
int number() { return blockIdx.x * blockDim.x + threadIdx.x; }

// The smaller and the larger of two of eight halves, of which the first is NaN: another pair for each of 64 threads.
template <class Half2, class Half>
int packed_extremes(const Half (&halves)[8]) {
  const Half2 a{halves[thread() / 8], halves[7]}, b{halves[thread() % 8], halves[7]};
  return __hmin2_nan(a, b).x.bits << 16 | __hmax2_nan(a, b).x.bits;
}

int shared_exchange(int* array, void (*wait)(), int partner) {
  array[thread()] = thread();
  wait();
  return array[partner];
}

const Kernels kernels = {
    {"shfl", [] { return __shfl_sync(kAll, thread(), 7); }},
    {"shfl beyond the warp", [] { return __shfl_sync(kAll, thread(), 33); }},
    {"shfl width 8", [] { return __shfl_sync(kAll, thread(), 1, 8); }},
    {"shfl_up", [] { return __shfl_up_sync(kAll, thread(), 4); }},
    {"shfl_down", [] { return __shfl_down_sync(kAll, thread(), 4); }},
    {"shfl_down width 8", [] { return __shfl_down_sync(kAll, thread(), 4, 8); }},
    {"shfl_xor width 8", [] { return __shfl_xor_sync(kAll, thread(), 3, 8); }},
    {"shfl double", [] { return int(__shfl_sync(kAll, thread() * 1.5, 2) * 2); }},
    {"half warps apart",
     [] {
       const unsigned mask = lane() < 16 ? kFirstHalf : ~kFirstHalf;
       int sum = lane();
       for (int offset = 8; offset > 0; offset /= 2) sum += __shfl_xor_sync(mask, sum, offset);
       return sum;
     }},
    {"some lanes alone", [] { return lane() < 7 ? __reduce_add_sync(0x7fu, lane()) : -1; }},
    {"the others have exited",
     [] {
       if (lane() >= 7) return -1;
       return __reduce_add_sync(kAll, lane());
     }},
    {"ballot", [] { return int(__ballot_sync(kAll, lane() % 3 == 0)); }},
    {"any", [] { return __any_sync(kAll, thread() == 40); }},
    {"all", [] { return __all_sync(kAll, thread() < 40); }},
    {"reduce_add", [] { return __reduce_add_sync(kAll, thread()); }},
    {"reduce_min", [] { return __reduce_min_sync(kAll, 5 - thread()); }},
    {"reduce_min unsigned", [] { return int(__reduce_min_sync(kAll, unsigned(5 - thread()))); }},
    {"reduce_max", [] { return __reduce_max_sync(kAll, 5 - thread()); }},
    {"reduce_and", [] { return int(__reduce_and_sync(kAll, thread() | 64u)); }},
    {"reduce_or", [] { return int(__reduce_or_sync(kAll, unsigned(thread()))); }},
    {"reduce_xor", [] { return int(__reduce_xor_sync(kAll, 1u << lane())); }},
    {"syncthreads_count", [] { return __syncthreads_count(thread() % 3); }},
    {"syncthreads_or", [] { return __syncthreads_or(thread() == 5); }},
    {"syncthreads_and", [] { return __syncthreads_and(thread() == 5); }},
    {"shared memory across a warp",
     [] {
       SHARED_ARRAY(int, array, 64);
       return shared_exchange(array, [] { __syncwarp(); }, thread() ^ 1);
     }},
    {"shared memory across the block",
     [] {
       SHARED_ARRAY(int, array, 64);
       return shared_exchange(array, [] { __syncthreads(); }, 63 - thread());
     }},
    {"dynamic shared memory",
     [] {
       DYNAMIC_SHARED_ARRAY(int, array);
       return shared_exchange(array, [] { __syncthreads(); }, 63 - thread());
     }},
    {"shared memory before it is written",
     [] {
       SHARED_ARRAY(int, array, 64);
       const int before = array[thread()];
       array[thread()] = 1;
       return before;
     }},
    {"atomicAdd", [] { return atomicAdd(&counter, 1); }},
    {"the last block sees the others",
     [] {
       SHARED_ARRAY(bool, is_last, 1);
       static int sums[2];
       const int sum = __reduce_add_sync(kAll, thread());
       if (thread() == 0) {
         sums[blockIdx.x] = sum;
         __threadfence();
         is_last[0] = atomicAdd(&counter, 1) == int(gridDim.x) - 1;
       }
       __syncthreads();
       if (!is_last[0] || thread() != 0) return -1;
       __threadfence();
       return sums[0] + sums[1];
     }},
    {"split of a row that begins anywhere",
     [] {
       const float* row = reinterpret_cast<const float*>(uintptr_t(4 * thread()));
       const RowSplit<float> split(row, 5);
       return int(100 * split.head + split.packs_end);
     }},
    {"block_reduce twice",
     [] {
       const RowTotals first = block_reduce(RowTotals{double(thread()), 1.0});
       const RowTotals second = block_reduce(RowTotals{2.0 * thread(), 1.0});
       return thread() == 0 ? int(first.loss * 10000 + second.loss) : -1;
     }},
    {"min and max of __half2",
     [] {
       return packed_extremes<__half2>(
           {__half{0xfe01}, {0xfc00}, {0xbc00}, {0x8000}, {0x0000}, {0x0001}, {0x3c00}, {0x7c00}});
     }},
    {"min and max of __nv_bfloat162",
     [] {
       return packed_extremes<__nv_bfloat162>(
           {__nv_bfloat16{0xff81}, {0xff80}, {0xbf80}, {0x8000}, {0x0000}, {0x0001}, {0x3f80}, {0x7f80}});
     }},
    {"rank in the cluster", [] { return int(10 * cluster_rank() + cluster_size()); }},
    {"shared memory across the cluster",
     [] {
       SHARED_ARRAY(int, array, 64);
       const int* theirs = map_to_rank(array + thread(), (cluster_rank() + 1) % cluster_size());
       array[thread()] = number();
       sync_cluster();
       const int result = *theirs;
       sync_cluster();  // before the block is gone that is read
       return result;
     }},

    {"barrier that half of the threads reach",
     [] {
       if (thread() < 32) __syncthreads();
       return 0;
     }},
    {"different barriers",
     [] {
       if (thread() < 32) {
         __syncthreads();
       } else {
         __syncthreads();
       }
       return 0;
     }},
    {"half a warp shuffles for all", [] { return lane() < 16 ? __shfl_down_sync(kAll, lane(), 1) : 0; }},
    {"different collectives", [] { return lane() < 16 ? __any_sync(kAll, 1) : __all_sync(kAll, 1); }},
    {"lane outside of its own mask", [] { return __any_sync(kFirstHalf, 1); }},
    {"shuffle from a lane that is not there", [] { return lane() < 16 ? __shfl_sync(kFirstHalf, lane(), 20) : 0; }},
    {"shuffle of width 5", [] { return __shfl_sync(kAll, lane(), 0, 5); }},
    {"sync_cluster that half of a block reaches",
     [] {
       if (cluster_rank() == 0 || thread() < 32) sync_cluster();
       return 0;
     }},
    {"different sync_clusters",
     [] {
       if (cluster_rank() == 0) {
         sync_cluster();
       } else {
         sync_cluster();
       }
       return 0;
     }},
    {"sync_cluster or barrier",
     [] {
       if (thread() < 32) {
         sync_cluster();
       } else {
         __syncthreads();
       }
       return 0;
     }},
    {"shared memory of a block outside of the cluster",
     [] {
       SHARED_ARRAY(int, array, 1);
       return *map_to_rank(array, 2);
     }},
    {"shared memory of a block that has exited",
     [] {
       SHARED_ARRAY(int, array, 1);
       if (cluster_rank() == 0) return 0;
       return *map_to_rank(array, 0);
     }},
    {"memory that is not shared", [] { return *map_to_rank(&counter, 1); }},
};

__global__ void run_and_store(int (*kernel)(), int* out) {
  const int result = kernel();
  out[number()] = result;
}

}  // namespace

// Runs it, and returns what went wrong or an empty string.
extern "C" const char* run_selftest(const char* kernel, int blocks, int threads, int cluster, int dynamic_shared_bytes,
                                    int* out) {
  static std::string error;
  const auto found = kernels.find(kernel);
  const auto run = found == kernels.end() ? copy_kernels().at(kernel) : found->second;
  error.clear();
  counter = 0;
  try {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {unsigned(cluster), 1, 1};
    const cudaLaunchConfig_t config{blocks, threads, size_t(dynamic_shared_bytes), nullptr, &attribute, 1};
    cudaLaunchKernelEx(&config, run_and_store, run, out);
  } catch (const std::exception& e) {
    error = e.what();
  }
  return error.c_str();
}

// What a word of losses/math.h makes of numbers: as on a GPU, but for what that only approximates.
extern "C" void compute(const char* word, const float* x, float* results, int64_t count) {
  static const std::map<std::string, float (*)(float)> words{
      {"exp_nonpositive", ce_ext::exp_nonpositive},
      {"log1p_unit", ce_ext::log1p_unit<float>},
      {"neg_log1m_half", ce_ext::neg_log1m_half<float>},
  };
  std::transform(x, x + count, results, words.at(word));
}

extern "C" void allow_dynamic_shared(int bytes) {
  cudaFuncSetAttribute(run_and_store, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

extern "C" int take_last_error() { return cudaGetLastError(); }

extern "C" int max_active_clusters() {
  const cudaLaunchConfig_t config{};
  int clusters;
  cudaOccupancyMaxActiveClusters(&clusters, run_and_store, &config);
  return clusters;
}
