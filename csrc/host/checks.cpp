#include "host/checks.h"

#include <ATen/DimVector.h>
#include <ATen/ops/where.h>
#include <c10/core/SymBool.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <limits>
#include <sstream>

namespace ce_ext {

bool has_data(const at::Tensor& tensor) { return !tensor.is_meta(); }

std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

bool are_same(c10::SymIntArrayRef a, c10::SymIntArrayRef b) {
  const auto is_same = [](const c10::SymInt& m, const c10::SymInt& n) {
    const auto as_int = m.maybe_as_int(), other = n.maybe_as_int();
    return as_int && other ? *as_int == *other : m.sym_eq(n).expect_true(__FILE__, __LINE__);
  };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), is_same);
}

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
      break;
  }
  static constexpr const char* kMessage = "input must be float64, float32, float16 or bfloat16, but got ";
  TORCH_CHECK(has_data(input), kMessage, input.scalar_type());  // the other one compilers keep to themselves
  TORCH_CHECK_NOT_IMPLEMENTED(false, kMessage, input.scalar_type());
}

at::ScalarType opmath_dtype(const at::Tensor& input) {
  return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

int64_t check_class_dim(const char* name, const at::Tensor& logits, int64_t batch_dims) {
  TORCH_CHECK(batch_dims >= 0 && logits.dim() > batch_dims, name, " must have a dimension of classes",
              batch_dims ? " besides those of the batch" : "", ", but got shape ", logits.sym_sizes());
  return logits.dim() == batch_dims + 1 ? batch_dims : batch_dims + 1;
}

void check_aligned(const char* name, const at::Tensor& tensor) {
  if (!has_data(tensor)) return;
  const auto address = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  TORCH_CHECK(address % tensor.element_size() == 0, name, " must lie at a multiple of the ", tensor.element_size(),
              " bytes of a ", tensor.scalar_type(), ", but lies ", address % tensor.element_size(),
              " behind one; its clone() does not");
}

void check_same_device(const at::Tensor& input, const char* name, const at::Tensor& tensor) {
  TORCH_CHECK(tensor.device() == input.device(), "input and ", name, " must be on the same device, but got input on ",
              input.device(), " and ", name, " on ", tensor.device());
}

// What the two commonest mistakes ask for.
const char* shape_advice(c10::SymIntArrayRef input, c10::SymIntArrayRef target) {
  const size_t dims = input.size();
  if (dims > 2 && target.size() + 1 == dims && are_same(input.slice(0, dims - 1), target)) {
    return dims == 3 ? "; classes are dimension 1: use input.transpose(1, 2), which copies nothing, or flatten(0, 1), "
                       "or dim=-1"
                     : "; classes are dimension 1: use input.movedim(-1, 1), which copies nothing, or dim=-1";
  }
  if (dims > 1 && target.size() == dims && target[0].sym_eq(input[0]).expect_true(__FILE__, __LINE__) &&
      target[1].sym_eq(1).expect_true(__FILE__, __LINE__) && are_same(input.slice(2), target.slice(2))) {
    return "; target has a dimension of one too many: use target.squeeze(1)";
  }
  return "";
}

void check_class_indices(const at::Tensor& input, const at::Tensor& target, c10::SymIntArrayRef row_shape) {
  check_same_device(input, "target", target);
  check_aligned("target", target);
  TORCH_CHECK(at::isIntegralType(target.scalar_type(), /*includeBool=*/false),
              "target must hold class indices of an integer dtype, but got ", target.scalar_type());

  const c10::SymIntArrayRef shape = input.sym_sizes(), got = target.sym_sizes();
  if (are_same(got, row_shape)) return;
  const char* advice = shape_advice(shape, got);
  const bool same_batch =
      row_shape.empty() ? got.empty() : !got.empty() && are_same(got.slice(0, 1), row_shape.slice(0, 1));
  TORCH_CHECK_VALUE(same_batch || are_same(shape, got), "target must have shape ", row_shape, " for input of shape ",
                    shape, ", but got shape ", got, advice);
  TORCH_CHECK(false, "target must have shape ", row_shape, " for input of shape ", shape, ", but got shape ", got,
              advice);
}

at::Tensor class_indices(const at::Tensor& target, std::optional<int64_t> ignore_index) {
  if (target.scalar_type() == at::kLong) return target.contiguous();
  at::Tensor indices = target.to(at::kLong).contiguous();
  if (target.scalar_type() != at::kUInt64) return indices;
  const int64_t largest = std::numeric_limits<int64_t>::max();
  return at::where(indices.lt(0), ignore_index == largest ? largest - 1 : largest, indices);
}

void check_class_probabilities(const at::Tensor& input, const at::Tensor& target, at::ScalarType opmath) {
  check_same_device(input, "target", target);
  check_aligned("target", target);
  const c10::SymIntArrayRef shape = input.sym_sizes(), got = target.sym_sizes();
  TORCH_CHECK_VALUE(shape.size() == 1 || (!got.empty() && are_same(shape.slice(0, 1), got.slice(0, 1))),
                    "target of class probabilities must have the shape of input, ", shape, ", but got shape ", got);
  TORCH_CHECK(are_same(got, shape), "target of class probabilities must have the shape of input, ", shape,
              ", but got shape ", got);
  TORCH_CHECK(target.scalar_type() == input.scalar_type() || target.scalar_type() == opmath,
              "target of class probabilities must have the dtype of input, ", input.scalar_type(),
              opmath == input.scalar_type() ? "" : ", or Float", ", but got ", target.scalar_type());
}

void check_factors(const char* name, const at::Tensor& factors, c10::SymIntArrayRef shape, const char* one_of,
                   const at::Tensor& input, at::ScalarType opmath) {
  TORCH_CHECK(are_same(factors.sym_sizes(), shape), name, " must have shape ", shape, ", one ", one_of,
              ", but got shape ", factors.sym_sizes());
  TORCH_CHECK(factors.scalar_type() == input.scalar_type() || factors.scalar_type() == opmath, name,
              " must have the dtype of input, ", input.scalar_type(), opmath == input.scalar_type() ? "" : ", or Float",
              ", but got ", factors.scalar_type());
  check_same_device(input, name, factors);
  check_aligned(name, factors);
}

void check_from_forward(const char* name, const at::Tensor& tensor, c10::SymIntArrayRef shape, at::ScalarType dtype,
                        const at::Tensor& input) {
  TORCH_CHECK(tensor.defined(), name, " must be a Tensor, but got None");
  TORCH_CHECK(tensor.scalar_type() == dtype && tensor.device() == input.device() && are_same(tensor.sym_sizes(), shape),
              name, " must be a ", dtype, " tensor of shape ", shape, " on ", input.device(), ", but got a ",
              tensor.scalar_type(), " tensor of shape ", tensor.sym_sizes(), " on ", tensor.device());
  check_aligned(name, tensor);
}

void check_label_smoothing(double label_smoothing) {
  TORCH_CHECK(label_smoothing >= 0.0 && label_smoothing <= 1.0, "label_smoothing must be between 0.0 and 1.0, but got ",
              label_smoothing);
}

void check_gamma(const char* name, double gamma) {
  TORCH_CHECK_VALUE(gamma >= 0.0 && std::isfinite(gamma), name, " must be finite and not negative, but got ", gamma);
}

void check_options(const BinaryCrossEntropyOptions& options) {
  check_label_smoothing(options.label_smoothing);
  check_gamma(options.input == BinaryInput::kAsymmetricLogit ? "gamma_pos" : "gamma", options.gamma);
  check_gamma("gamma_neg", options.gamma_neg);
  TORCH_CHECK_VALUE(options.margin >= 0.0 && options.margin < 1.0,
                    "margin must be at least 0.0 and less than 1.0, but got ", options.margin);
  TORCH_CHECK_VALUE(options.alpha == -1.0 || (options.alpha >= 0.0 && options.alpha <= 1.0),
                    "alpha must be between 0.0 and 1.0, or -1 for none, but got ", options.alpha);
}

void check_options(const CrossEntropyOptions& options) {
  check_label_smoothing(options.label_smoothing);
  check_gamma("gamma", options.gamma);
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

MeanDivisor make_mean_divisor(bool zero_if_empty, std::optional<double> divisor) {
  return {zero_if_empty, divisor.has_value(), divisor.value_or(0)};
}

std::string describe_number(const char* name, const at::Tensor& tensor, at::IntArrayRef place) {
  std::ostringstream text;
  text << name;
  at::Tensor number = tensor;
  for (size_t d = 0; d < place.size(); ++d) {
    number = number.select(0, place[d]);
    text << (d ? ", " : "[") << place[d];
  }
  text << (place.empty() ? " = " : "] = ");
  if (number.scalar_type() == at::kUInt64) {
    text << number.item().toUInt64();
  } else {
    text << number.item();
  }
  return text.str();
}

void throw_bad_target(const at::Tensor& target, int64_t row, int64_t classes, int64_t ignore_index) {
  at::DimVector place(target.dim());
  for (int64_t d = target.dim() - 1; d >= 0; --d) {
    place[d] = row % target.size(d);
    row /= target.size(d);
  }
  TORCH_CHECK_INDEX(false, describe_number("target", target, place), " is out of bounds: input has ", classes,
                    " classes, and ignore_index is ", ignore_index);
  __builtin_unreachable();
}

}  // namespace ce_ext
