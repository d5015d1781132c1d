// A driver for each kind of problem, compiled for one instruction set.
#pragma once

#include "host/drivers.h"

namespace ce_ext::cpu {

struct Backend {
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
