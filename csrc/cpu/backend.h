// What the ops of csrc/host need of the CPU: a driver for each kind of problem.
#pragma once

#include <ATen/core/Tensor.h>

#include "host/binary_cross_entropy_problem.h"
#include "host/cross_entropy_problem.h"
#include "host/driver.h"
#include "host/log_softmax_problem.h"
#include "host/scale_gradient_problem.h"
#include "host/soft_cross_entropy_problem.h"

namespace ce_ext::cpu {

struct Backend {
  struct DeviceGuard {
    explicit DeviceGuard(const at::Tensor&) {}
  };
  static int64_t run(const CrossEntropyForward& problem);
  static int64_t run(const CrossEntropyBackward& problem);
  static int64_t run(const CrossEntropyWithGrad& problem);
  static int64_t run(const ScaleGradient& problem);
  static int64_t run(const SoftCrossEntropyForward& problem);
  static int64_t run(const SoftCrossEntropyBackward& problem);
  static int64_t run(const LogSoftmaxForward& problem);
  static int64_t run(const LogSoftmaxBackward& problem);
  static int64_t run(const BinaryCrossEntropyForward& problem);
  static int64_t run(const BinaryCrossEntropyBackward& problem);
};

}  // namespace ce_ext::cpu
