#include "host/checks.h"

#include <c10/util/Exception.h>

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

void check_class_indices(const at::Tensor& input, const at::Tensor& target, int64_t class_dim) {
  TORCH_CHECK(input.device() == target.device(), "input and target must be on the same device, but got input on ",
              input.device(), " and target on ", target.device());
  if (at::isFloatingType(target.scalar_type()) && input.sizes() == target.sizes()) {
    TORCH_CHECK_NOT_IMPLEMENTED(false, "target must hold class indices: class probabilities (a ", target.scalar_type(),
                                " target of the shape of input, ", input.sizes(), ") are not supported");
  }
  TORCH_CHECK(target.scalar_type() == at::kLong || target.scalar_type() == at::kByte,
              "target must hold class indices of dtype int64 or uint8, but got ", target.scalar_type());

  auto expected = input.sizes().vec();
  expected.erase(expected.begin() + class_dim);
  const auto got = target.sizes();
  const bool same_batch = expected.empty() ? got.empty() : !got.empty() && got[0] == expected[0];
  TORCH_CHECK_VALUE(same_batch || input.sizes() == got, "target must have shape ", at::IntArrayRef(expected),
                    " for input of shape ", input.sizes(), ", but got shape ", got);
  TORCH_CHECK(got == at::IntArrayRef(expected), "target must have shape ", at::IntArrayRef(expected),
              " for input of shape ", input.sizes(), ", but got shape ", got);
}

void check_class_weight(const at::Tensor& input, const at::Tensor& weight, int64_t classes) {
  TORCH_CHECK(weight.dim() == 1 && weight.size(0) == classes, "weight must have shape [", classes,
              "], one number for each class of input, but got shape ", weight.sizes());
  TORCH_CHECK(weight.scalar_type() == input.scalar_type(), "weight must have the dtype of input, ", input.scalar_type(),
              ", but got ", weight.scalar_type());
  TORCH_CHECK(weight.device() == input.device(), "input and weight must be on the same device, but got input on ",
              input.device(), " and weight on ", weight.device());
}

void check_from_forward(const char* name, const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType dtype,
                        const at::Tensor& input) {
  TORCH_CHECK(tensor.sizes() == shape && tensor.scalar_type() == dtype && tensor.device() == input.device(), name,
              " must be a ", dtype, " tensor of shape ", shape, " on ", input.device(), ", but got a ",
              tensor.scalar_type(), " tensor of shape ", tensor.sizes(), " on ", tensor.device());
}

void check_label_smoothing(double label_smoothing) {
  TORCH_CHECK(label_smoothing >= 0.0 && label_smoothing <= 1.0, "label_smoothing must be between 0.0 and 1.0, but got ",
              label_smoothing);
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
