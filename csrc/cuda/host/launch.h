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

// What a launch is given besides its problem.
struct LaunchContext {
  CUstream_st* stream;
  void* workspace;        // workspace_size(problem) bytes of device memory
  unsigned* counters;     // kCounters of them in device memory, 0 before and after every kernel; of this stream alone
  BadTarget* bad_target;  // where kernels report a target out of bounds; of the device
};

// Device memory that a launch needs besides its problem, in bytes.
int64_t workspace_size(const CrossEntropyForward& problem);
int64_t workspace_size(const CrossEntropyBackward& problem);
int64_t workspace_size(const CrossEntropyWithGrad& problem);
int64_t workspace_size(const ScaleGradient& problem);
int64_t workspace_size(const SoftCrossEntropyForward& problem);
int64_t workspace_size(const SoftCrossEntropyBackward& problem);
int64_t workspace_size(const LogSoftmaxForward& problem);
int64_t workspace_size(const LogSoftmaxBackward& problem);
int64_t workspace_size(const BinaryCrossEntropyForward& problem);
int64_t workspace_size(const BinaryCrossEntropyBackward& problem);

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
