// Launches the kernels of any problem: raw pointers and sizes, nothing of torch.
#pragma once

#include <cstdint>

#include "cuda/rows/policy.cuh"
#include "host/binary_cross_entropy_problem.h"
#include "host/cross_entropy_problem.h"
#include "host/log_softmax_problem.h"
#include "host/scale_gradient_problem.h"
#include "host/soft_cross_entropy_problem.h"

struct CUstream_st;  // what cudaStream_t points to, so that host code needs no CUDA header here

namespace ce_ext::cuda {

struct BadTarget;

// Device memory for launches that need some besides their problem. Most do not, and ask for none: an allocation takes
// as long as a small launch, and to fill counters is one more node of a graph that is captured.
class LaunchMemory {
 public:
  // For the kernels of this launch.
  virtual void* allocate(int64_t bytes) = 0;

  // kCounters of them, 0 before and after every kernel; of this stream alone.
  virtual unsigned* counters() = 0;

 protected:
  ~LaunchMemory() = default;
};

// What a launch is given besides its problem.
struct LaunchContext {
  CUstream_st* stream;
  LaunchMemory& memory;
  BadTarget* bad_target;  // where kernels report a target out of bounds; of the device

  template <class T>
  T* allocate(int64_t count) const {
    return static_cast<T*>(memory.allocate(count * int64_t(sizeof(T))));
  }
};

void launch(const CrossEntropyForward& problem, const LaunchContext& context);
void launch(const CrossEntropyBackward& problem, const LaunchContext& context);
void launch(const CrossEntropyWithGrad& problem, const LaunchContext& context);
void launch(const ScaleGradient& problem, const LaunchContext& context);
void launch(const SoftCrossEntropyForward& problem, const LaunchContext& context);
void launch(const SoftCrossEntropyBackward& problem, const LaunchContext& context);
void launch(const LogSoftmaxForward& problem, const LaunchContext& context);
void launch(const LogSoftmaxBackward& problem, const LaunchContext& context);
void launch(const BinaryCrossEntropyForward& problem, const LaunchContext& context);
void launch(const BinaryCrossEntropyBackward& problem, const LaunchContext& context);

}  // namespace ce_ext::cuda
