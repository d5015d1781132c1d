// What the files of small kernels for the tests of the emulator have in common.
#pragma once

#include <map>
#include <string>

#include "cuda/device/portability.cuh"

using Kernels = std::map<std::string, int (*)()>;

const Kernels& copy_kernels();  // those that copy asynchronously

inline int lane() { return threadIdx.x % 32; }
inline int thread() { return threadIdx.x; }
