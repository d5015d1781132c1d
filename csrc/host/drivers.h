// All that the host knows of a backend: a library of kernels for one kind of device. Torch-free.
#pragma once

#include <cstdint>
#include <tuple>

#include "host/binary_cross_entropy_problem.h"
#include "host/cross_entropy_problem.h"
#include "host/log_softmax_problem.h"
#include "host/scale_gradient_problem.h"
#include "host/soft_cross_entropy_problem.h"

namespace ce_ext {

// What a backend does with a checked problem. It returns the first row whose target is out of bounds, or kNoBadRow.
template <class Problem>
using Driver = int64_t (*)(const Problem&);

constexpr int64_t kNoBadRow = -1;

template <class... Problems>
class DriversOf {
 public:
  // Those of a class that has a static `run` for each of the problems.
  template <class Backend>
  static constexpr DriversOf of() {
    return DriversOf(static_cast<Driver<Problems>>(&Backend::run)...);
  }

  template <class Problem>
  int64_t run(const Problem& problem) const {
    return std::get<Driver<Problem>>(drivers_)(problem);
  }

 private:
  explicit constexpr DriversOf(Driver<Problems>... drivers) : drivers_(drivers...) {}

  std::tuple<Driver<Problems>...> drivers_;
};

// A driver for every problem that there is.
using Drivers = DriversOf<CrossEntropyForward, CrossEntropyBackward, CrossEntropyWithGrad, ScaleGradient,
                          SoftCrossEntropyForward, SoftCrossEntropyBackward, LogSoftmaxForward, LogSoftmaxBackward,
                          BinaryCrossEntropyForward, BinaryCrossEntropyBackward>;

}  // namespace ce_ext

// The one symbol of such a library.
extern "C" __attribute__((visibility("default"))) const ce_ext::Drivers* ce_ext_drivers();
