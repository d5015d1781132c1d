// The ops of each loss: they check and allocate, once for all backends, and hand a problem to the backend of their
// input. Each of these gives them to the dispatcher for one more kind of device. The schemas, with their arguments,
// stand in ops.cpp.
#pragma once

namespace torch {
class Library;
}

namespace ce_ext {

void register_cross_entropy(torch::Library& m);
void register_scale_gradient(torch::Library& m);
void register_soft_cross_entropy(torch::Library& m);
void register_log_softmax(torch::Library& m);
void register_binary_cross_entropy(torch::Library& m);

}  // namespace ce_ext
