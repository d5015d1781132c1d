// The ops of binary cross entropy, the sigmoid focal loss and the asymmetric loss.
#include <ATen/DimVector.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/nonzero.h>
#include <torch/library.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <tuple>

#include "host/backends.h"
#include "host/checks.h"
#include "host/ops.h"
#include "host/row_layout.h"

namespace ce_ext {
namespace {

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
  std::optional<c10::SymInt> ignore_index;
  bool ignore_nan;
  MeanDivisor mean_divisor;
  std::optional<at::ScalarType> out_dtype;
  int64_t batch_dims;
};
struct BinaryCrossEntropyNeeds {
  bool input, target, weight, pos_weight;
};

using MaybeTensor = std::optional<at::Tensor>;

bool is_given(const MaybeTensor& tensor) { return tensor && tensor->defined(); }

std::optional<NumberType> number_type(at::ScalarType dtype, at::ScalarType input, at::ScalarType opmath) {
  if (dtype == input) return NumberType::kInput;
  if (dtype == opmath) return NumberType::kOpMath;
  switch (dtype) {
    case at::kBool:
    case at::kByte:
      return NumberType::kUInt8;
    case at::kChar:
      return NumberType::kInt8;
    case at::kShort:
      return NumberType::kInt16;
    case at::kInt:
      return NumberType::kInt32;
    case at::kLong:
      return NumberType::kInt64;
    default:
      return std::nullopt;
  }
}

// The first `batch_dims` dimensions of a factor are the batch's; those behind them are aligned at the end, and where
// they are 1 the factor is the same along that dimension. This is the dimension of the input for its dimension d.
int64_t input_dim_of(int64_t d, const at::Tensor& factor, const at::Tensor& input, int64_t batch_dims) {
  return d < batch_dims ? d : d + input.dim() - factor.dim();
}

void check_broadcastable(const char* name, const at::Tensor& factor, const at::Tensor& input, int64_t batch_dims) {
  bool fits = factor.dim() <= input.dim() && factor.dim() >= batch_dims;
  for (int64_t d = 0; fits && d < factor.dim(); ++d) {
    const c10::SymInt size = factor.sym_size(d);
    const c10::SymInt of_input = input.sym_size(input_dim_of(d, factor, input, batch_dims));
    const bool is_shared = d >= batch_dims && size.sym_eq(1).guard_or_false(__FILE__, __LINE__);
    fits = is_shared || size.sym_eq(of_input).expect_true(__FILE__, __LINE__);
  }
  TORCH_CHECK(fits, name, " must be broadcastable to input of shape ", input.sym_sizes(), ", but got shape ",
              factor.sym_sizes());
}

// The sizes of such a factor with all the dimensions of the input.
at::DimVector aligned_sizes(const at::Tensor& factor, const at::Tensor& input, int64_t batch_dims) {
  at::DimVector sizes(input.dim(), 1);
  for (int64_t d = 0; d < factor.dim(); ++d) sizes[input_dim_of(d, factor, input, batch_dims)] = factor.size(d);
  return sizes;
}

// Dimensions in the order of memory, so that neighbours are neighbours; those of the batch first in any case.
at::DimVector order_in_memory(const at::Tensor& input, int64_t batch_dims) {
  at::DimVector order(input.dim());
  std::iota(order.begin(), order.end(), 0);
  if (input.is_contiguous()) return order;
  for (int64_t i = batch_dims + 1; i < input.dim(); ++i) {
    for (int64_t j = i; j > batch_dims; --j) {  // those of stride 0 fit anywhere, and stay
      const int64_t outer = input.stride(order[j - 1]), inner = input.stride(order[j]);
      if (outer == 0 || inner == 0 || outer >= inner) break;
      std::swap(order[j - 1], order[j]);
    }
  }
  return order;
}

// After every check, and if they have data in the form that a problem can point into.
struct Arguments {
  const at::Tensor& input;
  const BinaryCrossEntropyTensors& tensors;
  const BinaryCrossEntropySettings& settings;
  DType dtype;  // of the input
  at::ScalarType opmath;
  Reduction reduction;
  at::ScalarType loss_dtype;
  bool target_is_class;

  // Where there are data: of the shape of the input, by strides of 0 where that shares their numbers; undefined for
  // none.
  at::Tensor target, weight, pos_weight, class_alpha;
  at::Tensor class_numbers;  // without memory: its strides make the number of an element's class its offset
  std::optional<int64_t> ignore_index;

  Arguments(const BinaryCrossEntropyTensors& tensors_, const BinaryCrossEntropySettings& settings_)
      : input(tensors_.input),
        tensors(tensors_),
        settings(settings_),
        opmath(opmath_dtype(input)),
        reduction(check_reduction(settings.reduction)) {
    dtype = check_input_dtype(input);
    check_aligned("input", input);
    TORCH_CHECK(settings.batch_dims >= 0 && settings.batch_dims <= input.dim(), "batch_dims must be in [0, ",
                input.dim(), "] for input of shape ", input.sym_sizes(), ", but got ", settings.batch_dims);
    check_options(settings.options);
    loss_dtype = check_out_dtype(settings.out_dtype, input.scalar_type(), opmath);
    if (settings.ignore_index && has_data(input)) ignore_index = settings.ignore_index->guard_int(__FILE__, __LINE__);
    set_target();
    weight = factor("weight", tensors.weight);
    pos_weight = factor("pos_weight", tensors.pos_weight);
    class_alpha = factor("alpha", tensors.class_alpha);
  }

  c10::SymIntArrayRef batch() const { return input.sym_sizes().slice(0, settings.batch_dims); }
  c10::SymIntArrayRef loss_shape() const { return reduction == Reduction::kNone ? input.sym_sizes() : batch(); }

  // The dtype in which the gradient in the target is computed.
  at::ScalarType grad_target_dtype() const {
    return tensors.target.scalar_type() == input.scalar_type() ? input.scalar_type() : opmath;
  }

  // Lays out the elements in this order of dimensions, with the operands and up to two results, and describes all.
  struct Result {
    const at::Tensor& tensor;
    RowStrides& strides;
  };
  void describe(BinaryCrossEntropyProblem& problem, at::IntArrayRef order, const at::Tensor& grad_output,
                const at::Tensor& divisor, Result first, Result second) const {
    const bool in_order = std::is_sorted(order.begin(), order.end());
    const auto ordered = [&](const at::Tensor& tensor) {
      const bool is_whole =
          tensor.defined() && tensor.dim() == input.dim();  // or has one number for all behind a batch
      return is_whole && !in_order ? tensor.permute(order) : tensor;
    };
    const at::Tensor x = ordered(input);
    const at::Tensor t = ordered(target), w = ordered(weight), pos = ordered(pos_weight), alpha = ordered(class_alpha);
    const at::Tensor grad = ordered(grad_output), numbers = ordered(class_numbers);
    const at::Tensor result1 = ordered(first.tensor), result2 = ordered(second.tensor);
    const auto or_input = [&](const at::Tensor& tensor) -> const at::Tensor& { return tensor.defined() ? tensor : x; };
    problem.dims = lay_out_rows({{x, kNoClassDim, problem.input.strides},
                                 {t, kNoClassDim, problem.target.strides},
                                 {or_input(w), kNoClassDim, problem.weight.strides},
                                 {or_input(pos), kNoClassDim, problem.pos_weight.strides},
                                 {or_input(alpha), kNoClassDim, problem.class_alpha.strides},
                                 {or_input(grad), kNoClassDim, problem.grad_output.strides},
                                 {or_input(divisor), kNoClassDim, problem.divisor.strides},
                                 {or_input(numbers), kNoClassDim, problem.class_numbers},
                                 {or_input(result1), kNoClassDim, first.strides},
                                 {or_input(result2), kNoClassDim, second.strides}});
    problem.dtype = dtype;
    problem.elements = input.numel();
    point(problem.input, input);
    point(problem.target, target);
    point(problem.weight, weight);
    point(problem.pos_weight, pos_weight);
    point(problem.class_alpha, class_alpha);
    point(problem.grad_output, grad_output);
    point(problem.divisor, divisor);
    problem.target_is_class = target_is_class;
    problem.classes = target_is_class ? input.size(class_dim()) : 0;
    problem.has_ignored = ignore_index.has_value();
    problem.ignore_index = ignore_index.value_or(0);
    problem.ignores_nan = settings.ignore_nan && target.is_floating_point();
    problem.options = settings.options;
  }

  // After a driver has found what no kernel can take: the first of it. In the dtype of the target, numbers to compare
  // it with may be others.
  [[noreturn]] void throw_bad_element() const {
    const at::Tensor labels = target.is_floating_point() ? target.to(opmath) : class_indices(target, ignore_index);
    const auto counted = [&](const at::Tensor& bad, const at::Tensor& of) {
      return ignore_index ? at::logical_and(bad, of.ne(*ignore_index)) : bad;
    };
    if (target_is_class) {
      const int64_t classes = input.size(class_dim());
      const at::Tensor indices = labels.select(class_dim(), 0);
      const at::Tensor bad = counted(at::logical_or(indices.lt(0), indices.gt(classes)), indices);
      TORCH_CHECK_INDEX(!bad.any().item<bool>(), first_where(bad, "target", tensors.target),
                        " is out of bounds: input has ", classes, " classes, and ", classes, " is the background");
    }
    const auto is_none = [&](const at::Tensor& tensor) {
      const at::Tensor bad = counted(at::logical_and(tensor.ge(0), tensor.le(1)).logical_not(), labels);
      return settings.ignore_nan ? at::logical_and(bad, labels.eq(labels)) : bad;
    };
    const at::Tensor bad_inputs = is_none(input);
    const bool is_input = target_is_class || bad_inputs.any().item<bool>();
    const char* name = is_input ? "input" : "target";
    TORCH_CHECK(false, name, " must hold probabilities, from 0 to 1, but ",
                is_input ? first_where(bad_inputs, name, input) : first_where(is_none(labels), name, tensors.target));
  }

 private:
  int64_t class_dim() const { return std::min(settings.batch_dims + 1, input.dim() - 1); }

  void point(Operand& operand, const at::Tensor& tensor) const {
    if (!tensor.defined()) return;
    operand.data = tensor.const_data_ptr();
    operand.type = *number_type(tensor.scalar_type(), input.scalar_type(), opmath);
  }

  // In a dtype that drivers take: integers are for targets.
  at::Tensor numbers(const at::Tensor& tensor, bool or_integers) const {
    const bool is_number = or_integers || tensor.is_floating_point();
    const bool is_taken = is_number && number_type(tensor.scalar_type(), input.scalar_type(), opmath).has_value();
    const bool is_integer = tensor.scalar_type() == at::kUInt16 || tensor.scalar_type() == at::kUInt32;
    return is_taken ? tensor : tensor.to(or_integers && is_integer ? at::kLong : opmath);
  }

  void check_numbers(const char* name, const at::Tensor& tensor) const {
    check_same_device(input, name, tensor);
    check_aligned(name, tensor);
    TORCH_CHECK(!tensor.is_complex(), name, " must hold real numbers, but got ", tensor.scalar_type());
  }

  at::Tensor factor(const char* name, const MaybeTensor& tensor) const {
    if (!is_given(tensor)) return {};
    check_numbers(name, *tensor);
    check_broadcastable(name, *tensor, input, settings.batch_dims);
    if (!has_data(input)) return {};
    const at::Tensor taken = numbers(*tensor, /*or_integers=*/false);
    if (taken.sizes() == input.sizes()) return taken;
    at::DimVector strides(input.dim(), 0);
    for (int64_t d = 0; d < taken.dim(); ++d) {
      if (taken.size(d) != 1) strides[input_dim_of(d, taken, input, settings.batch_dims)] = taken.stride(d);
    }
    return taken.as_strided(input.sizes(), strides);
  }

  // It has the shape of the input, or no dimension of classes.
  void set_target() {
    const at::Tensor& given = tensors.target;
    const c10::SymIntArrayRef shape = input.sym_sizes(), got = given.sym_sizes();
    target_is_class = !are_same(got, shape);
    if (!target_is_class) {
      check_numbers("target", given);
      if (has_data(input)) target = numbers(given, /*or_integers=*/true);
      return;
    }
    c10::SymDimVector rows(shape);
    const bool has_classes = input.dim() > settings.batch_dims;
    if (has_classes) rows.erase(rows.begin() + class_dim());
    TORCH_CHECK_VALUE(has_classes && are_same(got, rows) && at::isIntegralType(given.scalar_type(), false),
                      "target must have the shape of input, ", shape, ", or hold class indices of shape ",
                      c10::SymIntArrayRef(rows), ", but got ", given.scalar_type(), " of shape ", got);
    check_same_device(input, "target", given);
    check_aligned("target", given);
    TORCH_CHECK_VALUE(shape[class_dim()].sym_ne(1).expect_true(__FILE__, __LINE__),
                      "target must have the shape of input, ", shape, ", but got shape ", got,
                      ": as indices of one class its zeros would be that class, its ones background");
    if (!has_data(input)) return;
    // Contiguous, so that where a class is in memory says of which row it is.
    const bool is_taken = number_type(given.scalar_type(), input.scalar_type(), opmath).has_value();
    const at::Tensor indices = is_taken ? given.contiguous() : class_indices(given, ignore_index);
    target = indices.unsqueeze(class_dim()).expand(input.sizes());
    at::DimVector strides(input.dim(), 0);
    strides[class_dim()] = 1;
    class_numbers = at::empty_strided(input.sizes(), strides, input.options().device(at::kMeta));
  }

  static std::string first_where(const at::Tensor& condition, const char* name, const at::Tensor& values) {
    const at::Tensor first = condition.nonzero()[0];
    at::DimVector place;
    for (int64_t d = 0; d < first.numel(); ++d) place.push_back(first[d].item<int64_t>());
    return describe_number(name, values, place);
  }
};

// The gradient in a factor that all losses are multiplied by, or miss_pos is: a sum of losses for each of its numbers.
at::Tensor gradient_in_factor(const BinaryCrossEntropyTensors& tensors, const BinaryCrossEntropySettings& settings,
                              const at::Tensor& factor, const at::Tensor& grad_output, const at::Tensor& divisor) {
  if (!has_data(factor)) return at::empty_symint(factor.sym_sizes(), factor.options());
  const Arguments arguments(tensors, settings);
  const at::Tensor& input = arguments.input;
  const at::DimVector sizes = aligned_sizes(factor, input, settings.batch_dims);
  const auto is_summed = [&](int64_t d) { return sizes[d] != input.size(d); };
  at::DimVector order(input.dim());
  std::iota(order.begin(), order.end(), 0);
  std::stable_partition(order.begin(), order.end(), [&](int64_t d) { return !is_summed(d); });

  BinaryCrossEntropyForward problem{};
  const at::ScalarType dtype = factor.scalar_type() == input.scalar_type() ? factor.scalar_type() : arguments.opmath;
  const at::Tensor result = at::empty(factor.sizes(), input.options().dtype(dtype));
  const bool is_sum = std::any_of(order.begin(), order.end(), is_summed);
  const at::Tensor aligned = is_sum ? at::Tensor() : result.view(sizes);
  RowStrides none;
  arguments.describe(problem, order, grad_output, divisor, {aligned, problem.loss_strides}, {{}, none});
  problem.reduction = is_sum ? Reduction::kSum : Reduction::kNone;
  problem.groups = is_sum ? result.numel() : 1;
  problem.loss = result.mutable_data_ptr();
  problem.loss_is_opmath = dtype == arguments.opmath;
  run(input, problem);
  return result.to(factor.scalar_type());
}

// loss, denominator
std::tuple<at::Tensor, std::optional<at::Tensor>> binary_cross_entropy_forward(
    const BinaryCrossEntropyTensors& tensors, const BinaryCrossEntropySettings& settings) {
  const Arguments arguments(tensors, settings);
  const at::Tensor& input = arguments.input;
  const bool is_none = arguments.reduction == Reduction::kNone;
  const auto options = input.options().dtype(arguments.loss_dtype);
  const at::Tensor loss = is_none ? at::empty_like(input, options) : at::empty_symint(arguments.loss_shape(), options);
  at::Tensor denominator;
  if (arguments.reduction == Reduction::kMean) {
    denominator = at::empty_symint(arguments.batch(), options.dtype(arguments.opmath));
  }
  if (!has_data(input)) return {loss, if_defined(denominator)};

  BinaryCrossEntropyForward problem{};
  RowStrides none;
  arguments.describe(problem, order_in_memory(input, settings.batch_dims), {}, {},
                     {is_none ? loss : at::Tensor(), problem.loss_strides}, {{}, none});
  problem.reduction = arguments.reduction;
  problem.mean_divisor = settings.mean_divisor;
  problem.groups = is_none ? 1 : loss.numel();
  problem.loss = loss.mutable_data_ptr();
  problem.loss_is_opmath = arguments.loss_dtype == arguments.opmath;
  problem.denominator = denominator.defined() ? denominator.mutable_data_ptr() : nullptr;
  if (run(input, problem) != kNoBadRow) arguments.throw_bad_element();
  return {loss, if_defined(denominator)};
}

// The gradients in input, target, weight and pos_weight; undefined where they are not needed.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> binary_cross_entropy_backward(
    const at::Tensor& grad_output, const BinaryCrossEntropyTensors& tensors, const at::Tensor& denominator,
    const BinaryCrossEntropySettings& settings, const BinaryCrossEntropyNeeds& needs) {
  const Arguments arguments(tensors, settings);
  const at::Tensor& input = arguments.input;
  check_from_forward("grad_output", grad_output, arguments.loss_shape(), arguments.loss_dtype, input);
  at::Tensor divisor;
  if (arguments.reduction == Reduction::kMean) {
    divisor = denominator;
    check_from_forward("denominator", divisor, arguments.batch(), arguments.opmath, input);
  }

  at::Tensor grad_input, grad_target, grad_weight, grad_pos_weight;
  TORCH_CHECK(!needs.target || !arguments.target_is_class, "target holds class indices, which have no gradient");
  TORCH_CHECK(!needs.weight || is_given(tensors.weight), "weight must be a Tensor to have a gradient, but got None");
  TORCH_CHECK(!needs.pos_weight || is_given(tensors.pos_weight),
              "pos_weight must be a Tensor to have a gradient, but got None");
  if (needs.input) grad_input = at::empty_like(input);
  if (needs.target) {
    const auto options = tensors.target.options();
    grad_target =
        at::empty_like(tensors.target, has_data(input) ? options.dtype(arguments.grad_target_dtype()) : options);
  }
  if ((needs.input || needs.target) && has_data(input)) {
    BinaryCrossEntropyBackward problem{};
    arguments.describe(problem, order_in_memory(input, settings.batch_dims), grad_output, divisor,
                       {grad_input, problem.grad_input_strides}, {grad_target, problem.grad_target_strides});
    problem.grad_input = needs.input ? grad_input.mutable_data_ptr() : nullptr;
    problem.grad_target = needs.target ? grad_target.mutable_data_ptr() : nullptr;
    problem.grad_target_is_opmath = needs.target && grad_target.scalar_type() == arguments.opmath;
    if (run(input, problem) != kNoBadRow) arguments.throw_bad_element();
    if (needs.target) grad_target = grad_target.to(tensors.target.scalar_type());
  }
  static const MaybeTensor kNone;
  if (needs.weight) {
    const BinaryCrossEntropyTensors unweighted{input, tensors.target, kNone, tensors.pos_weight, tensors.class_alpha};
    grad_weight = gradient_in_factor(unweighted, settings, *tensors.weight, grad_output, divisor);
  }
  if (needs.pos_weight) {
    const BinaryCrossEntropyTensors of_pos{input, tensors.target, tensors.weight, kNone, tensors.class_alpha};
    BinaryCrossEntropySettings of_pos_settings = settings;
    of_pos_settings.options.neg_weight = 0;
    grad_pos_weight = gradient_in_factor(of_pos, of_pos_settings, *tensors.pos_weight, grad_output, divisor);
  }
  return {grad_input, grad_target, grad_weight, grad_pos_weight};
}

BinaryCrossEntropyOptions make_options(bool input_is_probability, double label_smoothing, double gamma, double alpha,
                                       std::optional<double> gamma_neg, double margin, bool has_class_alpha) {
  const bool is_focal = gamma != 0 || alpha >= 0 || has_class_alpha;
  BinaryCrossEntropyOptions options;
  options.input = input_is_probability ? BinaryInput::kProbability
                  : gamma_neg          ? BinaryInput::kAsymmetricLogit
                  : is_focal           ? BinaryInput::kFocalLogit
                                       : BinaryInput::kLogit;
  options.label_smoothing = label_smoothing;
  options.gamma = gamma;
  options.alpha = alpha;
  options.gamma_neg = gamma_neg.value_or(0);
  options.margin = margin;
  return options;
}

}  // namespace

void register_binary_cross_entropy(torch::Library& m) {
  using at::Tensor;
  using MaybeTensor = std::optional<Tensor>;
  using MaybeDtype = std::optional<at::ScalarType>;
  using MaybeNumber = std::optional<double>;

  m.impl("binary_cross_entropy_forward",
         [](const Tensor& input, const Tensor& target, const MaybeTensor& weight, const MaybeTensor& pos_weight,
            const MaybeTensor& class_alpha, int64_t reduction, bool input_is_probability, double gamma, double alpha,
            MaybeNumber gamma_neg, double margin, double label_smoothing, std::optional<c10::SymInt> ignore_index,
            bool ignore_nan, bool zero_if_empty, MaybeNumber divisor, MaybeDtype out_dtype, bool, bool, bool, bool,
            int64_t batch_dims) {
           const auto options = make_options(input_is_probability, label_smoothing, gamma, alpha, gamma_neg, margin,
                                             is_given(class_alpha));
           const MeanDivisor mean_divisor = make_mean_divisor(zero_if_empty, divisor);
           return binary_cross_entropy_forward(
               {input, target, weight, pos_weight, class_alpha},
               {reduction, options, ignore_index, ignore_nan, mean_divisor, out_dtype, batch_dims});
         });
  m.impl("binary_cross_entropy_backward",
         [](const Tensor& grad_output, const Tensor& input, const Tensor& target, const MaybeTensor& weight,
            const MaybeTensor& pos_weight, const MaybeTensor& class_alpha, const MaybeTensor& denominator,
            int64_t reduction, bool input_is_probability, double gamma, double alpha, MaybeNumber gamma_neg,
            double margin, double label_smoothing, std::optional<c10::SymInt> ignore_index, bool ignore_nan,
            bool zero_if_empty, MaybeNumber divisor, MaybeDtype out_dtype, bool needs_input, bool needs_target,
            bool needs_weight, bool needs_pos_weight, int64_t batch_dims) {
           const auto options = make_options(input_is_probability, label_smoothing, gamma, alpha, gamma_neg, margin,
                                             is_given(class_alpha));
           const MeanDivisor mean_divisor = make_mean_divisor(zero_if_empty, divisor);
           return binary_cross_entropy_backward(
               grad_output, {input, target, weight, pos_weight, class_alpha}, denominator.value_or(Tensor()),
               {reduction, options, ignore_index, ignore_nan, mean_divisor, out_dtype, batch_dims},
               {needs_input, needs_target, needs_weight, needs_pos_weight});
         });
}

}  // namespace ce_ext
