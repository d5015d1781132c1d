#include "host/backends.h"

#include <ATen/DynamicLibrary.h>
#include <torch/library.h>

#include "host/ops.h"

namespace ce_ext {
namespace {

// Nothing here is ever freed: graphs may outlive the module, and kernels may still run at exit.
const Drivers* loaded[c10::COMPILE_TIME_MAX_DEVICE_TYPES];

void register_ops(torch::Library& m) {
  register_cross_entropy(m);
  register_scale_gradient(m);
  register_soft_cross_entropy(m);
  register_log_softmax(m);
  register_binary_cross_entropy(m);
}

}  // namespace

// For tensors without data, of compilers, too: the ops check them, and make results of the right shapes.
TORCH_LIBRARY_IMPL(ce_ext, Meta, m) { register_ops(m); }

void load_backend(const std::string& device_type, const std::string& path) {
  auto& library = *new at::DynamicLibrary(path.c_str(), /*alt_name=*/nullptr, /*leak_handle=*/true);
  const auto drivers = reinterpret_cast<decltype(&ce_ext_drivers)>(library.sym("ce_ext_drivers"));
  const c10::DeviceType type = c10::Device(device_type).type();
  const Drivers*& slot = loaded[static_cast<int>(type)];
  if (!slot) {
    const c10::DispatchKey key = at::TensorOptions(type).computeDispatchKey();
    register_ops(*new torch::Library(torch::Library::IMPL, "ce_ext", key, __FILE__, __LINE__));
  }
  slot = drivers();
}

const Drivers& drivers_for(c10::DeviceType device_type) {
  const Drivers* drivers = loaded[static_cast<int>(device_type)];
  TORCH_CHECK_NOT_IMPLEMENTED(drivers, "ce_ext has no kernels for ", device_type, " tensors");
  return *drivers;
}

}  // namespace ce_ext
