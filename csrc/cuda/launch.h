// Launches the kernels of any problem: raw pointers, sizes and a stream, nothing of torch.
#pragma once

#include <cstdint>

#include "host/binary_cross_entropy_problem.h"
#include "host/cross_entropy_problem.h"
#include "host/log_softmax_problem.h"
#include "host/soft_cross_entropy_problem.h"

struct CUstream_st;  // what cudaStream_t points to, so that host code needs no CUDA header here

namespace ce_ext::cuda {

// Device memory that a launch needs besides its problem, in bytes.
int64_t workspace_size(const CrossEntropyForward& problem);
int64_t workspace_size(const CrossEntropyBackward& problem);
int64_t workspace_size(const CrossEntropyWithGrad& problem);
int64_t workspace_size(const SoftCrossEntropyForward& problem);
int64_t workspace_size(const SoftCrossEntropyBackward& problem);
int64_t workspace_size(const LogSoftmaxForward& problem);
int64_t workspace_size(const LogSoftmaxBackward& problem);
int64_t workspace_size(const BinaryCrossEntropyForward& problem);
int64_t workspace_size(const BinaryCrossEntropyBackward& problem);

void launch(const CrossEntropyForward& problem, void* workspace, CUstream_st* stream);
void launch(const CrossEntropyBackward& problem, void* workspace, CUstream_st* stream);
void launch(const CrossEntropyWithGrad& problem, void* workspace, CUstream_st* stream);
void launch(const SoftCrossEntropyForward& problem, void* workspace, CUstream_st* stream);
void launch(const SoftCrossEntropyBackward& problem, void* workspace, CUstream_st* stream);
void launch(const LogSoftmaxForward& problem, void* workspace, CUstream_st* stream);
void launch(const LogSoftmaxBackward& problem, void* workspace, CUstream_st* stream);
void launch(const BinaryCrossEntropyForward& problem, void* workspace, CUstream_st* stream);
void launch(const BinaryCrossEntropyBackward& problem, void* workspace, CUstream_st* stream);

}  // namespace ce_ext::cuda
