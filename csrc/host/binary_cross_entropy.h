// The ops of binary cross entropy: they check and allocate, once for all backends, and hand problems to the backend's
// drivers. The schemas, with their arguments, stand in ops.cpp.
#pragma once

#include <torch/library.h>

#include <optional>
#include <tuple>

#include "host/binary_cross_entropy_problem.h"
#include "host/driver.h"

namespace ce_ext {

struct BinaryCrossEntropyTensors {
  const at::Tensor& input;
  const at::Tensor& target;
  const std::optional<at::Tensor>& weight;
  const std::optional<at::Tensor>& pos_weight;
  const std::optional<at::Tensor>& class_alpha;
};
struct BinaryCrossEntropySettings {
  int64_t reduction;
  BinaryCrossEntropyOptions options;
  std::optional<int64_t> ignore_index;
  bool zero_if_empty;
  std::optional<at::ScalarType> out_dtype;
  int64_t batch_dims;
};
struct BinaryCrossEntropyNeeds {
  bool input, target, weight, pos_weight;
};
struct BinaryCrossEntropyDrivers {
  Driver<BinaryCrossEntropyForward> forward;
  Driver<BinaryCrossEntropyBackward> backward;
};

// loss, denominator
std::tuple<at::Tensor, at::Tensor> binary_cross_entropy_forward(const BinaryCrossEntropyTensors& tensors,
                                                                const BinaryCrossEntropySettings& settings,
                                                                Driver<BinaryCrossEntropyForward> run);

// The gradients in input, target, weight and pos_weight; undefined where they are not needed.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> binary_cross_entropy_backward(
    const at::Tensor& grad_output, const BinaryCrossEntropyTensors& tensors, const at::Tensor& denominator,
    const BinaryCrossEntropySettings& settings, const BinaryCrossEntropyNeeds& needs,
    const BinaryCrossEntropyDrivers& drivers);

inline BinaryCrossEntropyOptions make_options(bool input_is_probability, double label_smoothing, double gamma,
                                              double alpha, bool has_class_alpha) {
  const bool is_focal = gamma != 0 || alpha >= 0 || has_class_alpha;
  const BinaryInput logit = is_focal ? BinaryInput::kFocalLogit : BinaryInput::kLogit;
  return {input_is_probability ? BinaryInput::kProbability : logit, label_smoothing, gamma, alpha};
}

template <class Backend>
void register_binary_cross_entropy(torch::Library& m) {
  using at::Tensor;
  using MaybeTensor = std::optional<Tensor>;
  using MaybeDtype = std::optional<at::ScalarType>;

  m.impl("binary_cross_entropy_forward",
         [](const Tensor& input, const Tensor& target, const MaybeTensor& weight, const MaybeTensor& pos_weight,
            const MaybeTensor& class_alpha, int64_t reduction, bool input_is_probability, double gamma, double alpha,
            double label_smoothing, std::optional<int64_t> ignore_index, bool zero_if_empty, MaybeDtype out_dtype, bool,
            bool, bool, bool, int64_t batch_dims) {
           const typename Backend::DeviceGuard guard(input);
           const auto options =
               make_options(input_is_probability, label_smoothing, gamma, alpha, class_alpha.has_value());
           return binary_cross_entropy_forward({input, target, weight, pos_weight, class_alpha},
                                               {reduction, options, ignore_index, zero_if_empty, out_dtype, batch_dims},
                                               &Backend::run);
         });
  m.impl("binary_cross_entropy_backward",
         [](const Tensor& grad_output, const Tensor& input, const Tensor& target, const MaybeTensor& weight,
            const MaybeTensor& pos_weight, const MaybeTensor& class_alpha, const Tensor& denominator, int64_t reduction,
            bool input_is_probability, double gamma, double alpha, double label_smoothing,
            std::optional<int64_t> ignore_index, bool zero_if_empty, MaybeDtype out_dtype, bool needs_input,
            bool needs_target, bool needs_weight, bool needs_pos_weight, int64_t batch_dims) {
           const typename Backend::DeviceGuard guard(input);
           const auto options =
               make_options(input_is_probability, label_smoothing, gamma, alpha, class_alpha.has_value());
           return binary_cross_entropy_backward(
               grad_output, {input, target, weight, pos_weight, class_alpha}, denominator,
               {reduction, options, ignore_index, zero_if_empty, out_dtype, batch_dims},
               {needs_input, needs_target, needs_weight, needs_pos_weight}, {&Backend::run, &Backend::run});
         });
}

}  // namespace ce_ext
