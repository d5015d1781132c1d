// Gives the ops of one backend to the dispatcher.
#pragma once

#include "host/binary_cross_entropy.h"
#include "host/cross_entropy.h"
#include "host/log_softmax.h"
#include "host/scale_gradient.h"
#include "host/soft_cross_entropy.h"

namespace ce_ext {

// Backend has a `DeviceGuard`, made of the input, and a static `run` for every kind of problem: a Driver.
template <class Backend>
void register_ops(torch::Library& m) {
  register_cross_entropy<Backend>(m);
  register_scale_gradient<Backend>(m);
  register_soft_cross_entropy<Backend>(m);
  register_log_softmax<Backend>(m);
  register_binary_cross_entropy<Backend>(m);
}

}  // namespace ce_ext
