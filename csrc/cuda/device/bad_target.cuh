// The device's side of bad_target.h.
#pragma once

#include "cuda/device/portability.cuh"
#include "cuda/host/bad_target.h"

namespace ce_ext::cuda {

// To be called by one thread of the row. What is found before the host has raised the last one is not recorded.
__device__ __forceinline__ void report_bad_target(BadTarget* record, int64_t row, int64_t value, int64_t classes) {
  if (__ldcv(&record->state) != BadTarget::kFree) return;  // cheaper than an atomic, should all rows be bad
  // Device scope will do: no other device has this record, and the host takes only one that is reported.
  if (atomicCAS(&record->state, unsigned(BadTarget::kFree), unsigned(BadTarget::kClaimed)) != BadTarget::kFree) return;
  record->row = row;
  record->value = value;
  record->classes = classes;
  __threadfence_system();
  __stwt(&record->state, unsigned(BadTarget::kReported));
}

}  // namespace ce_ext::cuda
