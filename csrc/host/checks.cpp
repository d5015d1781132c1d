#include "host/checks.h"

#include <c10/util/Exception.h>

#include <cmath>
#include <sstream>

namespace ce_ext {

DType check_input_dtype(const at::Tensor& input) {
  switch (input.scalar_type()) {
    case at::kDouble:
      return DType::kFloat64;
    case at::kFloat:
      return DType::kFloat32;
    case at::kHalf:
      return DType::kFloat16;
    case at::kBFloat16:
      return DType::kBFloat16;
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, "input must be float64, float32, float16 or bfloat16, but got ",
                                  input.scalar_type());
  }
}

at::ScalarType opmath_dtype(const at::Tensor& input) {
  return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

int64_t check_class_dim(const char* name, const at::Tensor& logits, int64_t batch_dims) {
  TORCH_CHECK(batch_dims >= 0 && logits.dim() > batch_dims, name, " must have a dimension of classes",
              batch_dims ? " besides those of the batch" : "", ", but got shape ", logits.sizes());
  return logits.dim() == batch_dims + 1 ? batch_dims : batch_dims + 1;
}

void check_same_device(const at::Tensor& input, const char* name, const at::Tensor& tensor) {
  TORCH_CHECK(tensor.device() == input.device(), "input and ", name, " must be on the same device, but got input on ",
              input.device(), " and ", name, " on ", tensor.device());
}

void check_class_indices(const at::Tensor& input, const at::Tensor& target, at::IntArrayRef row_shape) {
  check_same_device(input, "target", target);
  TORCH_CHECK(at::isIntegralType(target.scalar_type(), /*includeBool=*/false),
              "target must hold class indices of an integer dtype, but got ", target.scalar_type());

  const auto got = target.sizes();
  const bool same_batch = row_shape.empty() ? got.empty() : !got.empty() && got[0] == row_shape[0];
  TORCH_CHECK_VALUE(same_batch || input.sizes() == got, "target must have shape ", row_shape, " for input of shape ",
                    input.sizes(), ", but got shape ", got);
  TORCH_CHECK(got == row_shape, "target must have shape ", row_shape, " for input of shape ", input.sizes(),
              ", but got shape ", got);
}

void check_class_probabilities(const at::Tensor& input, const at::Tensor& target, at::ScalarType opmath) {
  check_same_device(input, "target", target);
  TORCH_CHECK_VALUE(input.dim() == 1 || (target.dim() > 0 && input.size(0) == target.size(0)),
                    "target of class probabilities must have the shape of input, ", input.sizes(), ", but got shape ",
                    target.sizes());
  TORCH_CHECK(target.sizes() == input.sizes(), "target of class probabilities must have the shape of input, ",
              input.sizes(), ", but got shape ", target.sizes());
  TORCH_CHECK(target.scalar_type() == input.scalar_type() || target.scalar_type() == opmath,
              "target of class probabilities must have the dtype of input, ", input.scalar_type(),
              opmath == input.scalar_type() ? "" : ", or Float", ", but got ", target.scalar_type());
}

void check_factors(const char* name, const at::Tensor& factors, at::IntArrayRef shape, const char* one_of,
                   const at::Tensor& input, at::ScalarType opmath) {
  TORCH_CHECK(factors.sizes() == shape, name, " must have shape ", shape, ", one ", one_of, ", but got shape ",
              factors.sizes());
  TORCH_CHECK(factors.scalar_type() == input.scalar_type() || factors.scalar_type() == opmath, name,
              " must have the dtype of input, ", input.scalar_type(), opmath == input.scalar_type() ? "" : ", or Float",
              ", but got ", factors.scalar_type());
  check_same_device(input, name, factors);
}

void check_from_forward(const char* name, const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType dtype,
                        const at::Tensor& input) {
  TORCH_CHECK(tensor.defined(), name, " must be a Tensor, but got None");
  TORCH_CHECK(tensor.sizes() == shape && tensor.scalar_type() == dtype && tensor.device() == input.device(), name,
              " must be a ", dtype, " tensor of shape ", shape, " on ", input.device(), ", but got a ",
              tensor.scalar_type(), " tensor of shape ", tensor.sizes(), " on ", tensor.device());
}

template <class Options>
void check_smoothing_and_gamma(const Options& options) {
  TORCH_CHECK(options.label_smoothing >= 0.0 && options.label_smoothing <= 1.0,
              "label_smoothing must be between 0.0 and 1.0, but got ", options.label_smoothing);
  TORCH_CHECK_VALUE(options.gamma >= 0.0 && std::isfinite(options.gamma),
                    "gamma must be finite and not negative, but got ", options.gamma);
}

void check_options(const BinaryCrossEntropyOptions& options) {
  check_smoothing_and_gamma(options);
  TORCH_CHECK_VALUE(options.alpha == -1.0 || (options.alpha >= 0.0 && options.alpha <= 1.0),
                    "alpha must be between 0.0 and 1.0, or -1 for none, but got ", options.alpha);
}

void check_options(const CrossEntropyOptions& options) {
  check_smoothing_and_gamma(options);
  TORCH_CHECK_VALUE(options.z_loss >= 0.0 && std::isfinite(options.z_loss),
                    "z_loss must be finite and not negative, but got ", options.z_loss);
  TORCH_CHECK_VALUE(std::isfinite(options.logits.scale), "logit_scale must be finite, but got ", options.logits.scale);
  TORCH_CHECK_VALUE(options.logits.softcap >= 0.0 && std::isfinite(options.logits.softcap),
                    "softcap must be finite and not negative, but got ", options.logits.softcap);
}

at::ScalarType check_out_dtype(std::optional<at::ScalarType> out_dtype, at::ScalarType input, at::ScalarType opmath) {
  const at::ScalarType dtype = out_dtype.value_or(input);
  TORCH_CHECK(dtype == input || dtype == opmath, "out_dtype must be that of input, ", input,
              opmath == input ? "" : ", or Float", ", but got ", dtype);
  return dtype;
}

Reduction check_reduction(int64_t reduction) {
  TORCH_CHECK_VALUE(reduction >= 0 && reduction <= 2, "reduction must be 0 (none), 1 (mean) or 2 (sum), but got ",
                    reduction);
  return static_cast<Reduction>(reduction);
}

void throw_bad_target(const at::Tensor& target, int64_t row, int64_t classes, int64_t ignore_index) {
  const int64_t value = target.const_data_ptr<int64_t>()[row];
  std::vector<int64_t> position(target.dim());
  for (int64_t d = target.dim() - 1; d >= 0; --d) {
    position[d] = row % target.size(d);
    row /= target.size(d);
  }
  std::ostringstream place;
  for (size_t d = 0; d < position.size(); ++d) place << (d ? ", " : "[") << position[d];
  TORCH_CHECK_INDEX(false, "target", place.str(), position.empty() ? "" : "]", " = ", value,
                    " is out of bounds: input has ", classes, " classes, and ignore_index is ", ignore_index);
  __builtin_unreachable();
}

}  // namespace ce_ext
