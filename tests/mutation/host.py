"""One-line bugs to plant in csrc/host and csrc/python, and the tests that have to find them.

Left out, since nothing in them decides anything once they are loaded: csrc/ops.cpp (schemas and the module: all of it
runs at load), host/ops.h, host/drivers.h, host/checks.h, host/row_layout.h, host/reduced_loss.h,
host/scale_gradient_problem.h, and the headers of csrc/python. host/backends.h has one expression, whether to set the
device, which only a second GPU shows; host/backends.cpp has one that a build without CUDA shows. Files with fewer than
five have no more that decides anything: dispatchers whose arms are all alike, or what a crash alone would tell.

In csrc/python/differentiable_op.cpp, and in what registers kernels, code runs when ops are registered, which is at
import for all ops of ce_ext. tests/autograd/test_register.py registers a pair of its own later: with the switch set
after the import, that one alone meets these bugs.

Headers of csrc/host are compiled into the CPU libraries, too (rows.h, dtype.h, *_problem.h, with HOST_DEVICE functions
among them): there the switch has to be known, and to be set, as well.

Spans of one file never overlap. Where `old` ends in a semicolon it is a statement, and so is `new`. To the arguments of
pytest --device cpu is added; tests that take no device are asked for by --device none.
"""

from tests.mutation.planted import Planted, bug, bugs_of
from tests.mutation.selections import (
    ASYMMETRIC,
    COMPANY,
    EDGES,
    ELEMENT_LAYOUTS,
    ELEMENTS,
    LAYOUTS,
    OPTIONS,
    PEERS,
    SCALE,
    SIGMOID_FOCAL,
    SIGMOID_TESTS,
    SOFTMAX_TESTS,
    VALUES,
    WEIGHTS,
)

NONE = "--device none"  # tests that take none: --device cpu alone would leave them out
ALL = f"--device cpu {NONE}"

TINY = f"{VALUES} -k 'test_loss_and_gradient and 7x3 and float32'"
IN_FORWARD = f"{OPTIONS} -k 'test_gradient_in_forward and 7x5'"
BAD_OPTIONS = f"{OPTIONS} {NONE} -k test_bad_options"
LOG_SOFTMAX = f"{SOFTMAX_TESTS}/test_log_softmax.py -m ''"
SOFT = f"{SOFTMAX_TESTS}/test_probability_targets.py -m ''"
SOFT_LAYOUT = f"{SOFT} -k 'test_layout and 77 and float32'"

ERRORS = f"tests/losses/test_errors.py {NONE} -m ''"
MISUSE = f"tests/losses/test_misuse.py {NONE} -m ''"
AUTOCAST = f"tests/losses/test_autocast.py {NONE} -m ''"
INTEGERS = f"tests/losses/test_integer_targets.py {NONE} -m ''"
DTYPES = f"tests/losses/test_dtypes.py {NONE} -m ''"
WITHOUT_DATA = f"tests/losses/test_without_data.py {NONE} -m ''"
MODULES = f"tests/losses/test_modules.py {NONE} -m ''"

MODES = "tests/autograd/test_modes.py -m ''"
TRANSFORMS = "tests/autograd/test_transforms.py -m ''"
REGISTER = f"tests/autograd/test_register.py {NONE} -m ''"
TRACING = f"tests/autograd/test_tracing.py {NONE} -m ''"
WITH_GRAD = "tests/autograd/test_gradient_in_forward.py -m ''"
LOG_SOFTMAX_MODES = f"tests/autograd/test_log_softmax_transforms.py {ALL} -m ''"
SOFT_MODES = f"tests/autograd/test_probability_target_transforms.py {ALL} -m ''"

ELEMENT_EDGES = f"{SIGMOID_TESTS}/test_edges.py {ALL} -m ''"
# Of test_layout alone: -k looks at the name of the file, too.
ELEMENT_LAYOUT = f"{ELEMENT_LAYOUTS} -k 'alike and (channels_last or transposed) and float32 and sigmoid_focal_loss'"
ELEMENT_PEERS = f"{SIGMOID_TESTS}/test_peers.py -m ''"
HALF_WEIGHTS = f"{ELEMENTS} -k 'weights_of_any_shape and bfloat16'"
CLASSES = f"{ELEMENTS} -k 'classes_are_one_hot and float32'"
OTHER_DTYPES = f"{ELEMENTS} -k floating_targets_of_another_dtype"
VMAP_ELEMENTS = f"{ELEMENT_EDGES} -k 'test_vmap_over_any_arguments and logits'"


AUTOCAST_CPP = bugs_of(
    "csrc/host/autocast.cpp",
    bug(
        "autocast is not left before the op is called again",
        "c10::autocast_dispatch_keyset",
        "c10::DispatchKeySet()",
        f"{AUTOCAST} -k 'losses_are_float32 and cross_entropy'",
        note="a crash: it calls itself for ever",
    ),
    bug(
        "the dtype of the target decides",
        'argument("input")',
        'argument("target")',
        f"{AUTOCAST} -k losses_are_float32",
        note="log_softmax has no target, and crashes",
    ),
    bug(
        "a dtype that is asked for is overruled",
        "dtype.isNone()",
        "true",
        COMPANY,
    ),
    bug("float16 is no half", "input == at::kHalf", "false", f"{AUTOCAST} -k losses_are_float32"),
    bug(
        "float64 is asked to be float32",
        "input == at::kBFloat16",
        "true",
        f"{AUTOCAST} -k losses_are_float32",
        note="the op refuses that",
    ),
    bug("halves become float64", "at::kFloat", "at::kDouble", f"{AUTOCAST} -k losses_are_float32"),
)

BACKENDS = bugs_of(
    "csrc/host/backends.cpp",
    bug(
        "a second library for the same device is not the one in use",
        "slot = drivers();",
        ";",
        f"{EDGES} --device emulated -k test_target_out_of_bounds",
        note=(
            "shows where the emulated CUDA kernels are loaded in place of the CPU's: the switch has to be set by then"
        ),
    ),
)

BINARY = bugs_of(
    "csrc/host/binary_cross_entropy.cpp",
    bug("float32 operands of half inputs are read as half", "NumberType::kOpMath", "NumberType::kInput", OTHER_DTYPES),
    bug(
        "bytes have a sign",
        "NumberType::kUInt8",
        "NumberType::kInt8",
        f"{INTEGERS} -k test_what_is_blamed",
        context="return NumberType::kUInt8;",
    ),
    bug(
        "int8 has none",
        "return NumberType::kInt8;",
        "return NumberType::kUInt8;",
        f"{INTEGERS} -k test_what_is_blamed",
    ),
    bug(
        "a factor's dimensions of the batch are aligned at the end, too",
        "d < batch_dims",
        "false",
        VMAP_ELEMENTS,
    ),
    bug(
        "a factor may have more dimensions than the input",
        "factor.dim() <= input.dim()",
        "true",
        COMPANY,
    ),
    bug(
        "a factor may lack dimensions of the batch",
        "factor.dim() >= batch_dims",
        "true",
        COMPANY,
    ),
    bug(
        "a factor may be shared by a batch",
        "d >= batch_dims",
        "true",
        COMPANY,
        context="is_shared = d >= batch_dims",
    ),
    bug(
        "factors of any size are taken",
        "size.sym_eq(of_input).expect_true(__FILE__, __LINE__)",
        "true",
        f"{ERRORS} -k 'test_bad_call and weight and size'",
    ),
    bug(
        "a factor is not aligned at the end when its gradient is summed",
        "sizes[input_dim_of(d, factor, input, batch_dims)]",
        "sizes[d]",
        WEIGHTS,
    ),
    bug(
        "the order of memory mixes the batch with its samples",
        "j > batch_dims",
        "j > 0",
        f"{ELEMENT_EDGES} -k test_vmap_over_transposed_samples",
        context="j > batch_dims; --j",
        note="takes a batch that lies behind its samples in memory, and samples that are transposed",
    ),
    bug(
        "batch_dims of any number",
        "settings.batch_dims >= 0 && settings.batch_dims <= input.dim()",
        "true",
        COMPANY,
    ),
    bug(
        "options are not checked",
        "check_options(settings.options);",
        ";",
        f"{ERRORS} -k 'sigmoid_focal_loss and gamma'",
    ),
    bug(
        "compilers have to know ignore_index",
        "settings.ignore_index && has_data(input)",
        "settings.ignore_index.has_value()",
        f"{TRACING} -k 'test_numbers_from_tensors and ignore_index'",
    ),
    bug(
        "pos_weight is the weight",
        'factor("pos_weight", tensors.pos_weight)',
        'factor("pos_weight", tensors.weight)',
        f"{ELEMENTS} -k 'test_loss_and_gradients and pos_weight and 33x100 and float32'",
    ),
    bug(
        "a bad alpha is called a weight",
        'factor("alpha", tensors.class_alpha)',
        'factor("weight", tensors.class_alpha)',
        f"{ERRORS} -k 'sigmoid_focal_loss and alpha'",
    ),
    bug(
        "backward takes one upstream gradient for a loss of each element",
        "reduction == Reduction::kNone ? input.sym_sizes() : batch()",
        "batch()",
        SIGMOID_FOCAL,
    ),
    bug(
        "the gradient of a float32 target is rounded to half",
        "tensors.target.scalar_type() == input.scalar_type() ? input.scalar_type() : opmath",
        "input.scalar_type()",
        OTHER_DTYPES,
    ),
    bug(
        "dimensions are never put in order",
        "std::is_sorted(order.begin(), order.end())",
        "true",
        WEIGHTS,
        note="the groups of a weight's gradient need the order",
    ),
    bug("a number for all is permuted", "tensor.dim() == input.dim()", "true", ELEMENT_LAYOUT),
    bug("weights are not permuted", "ordered(weight)", "weight", ELEMENT_LAYOUT),
    bug("upstream gradients are not permuted", "ordered(grad_output)", "grad_output", ELEMENT_LAYOUT),
    bug(
        "numbers of classes are not permuted",
        "ordered(class_numbers)",
        "class_numbers",
        COMPANY,
    ),
    bug("the first result is not permuted", "ordered(first.tensor)", "first.tensor", ELEMENT_LAYOUT),
    bug("the second result is not permuted", "ordered(second.tensor)", "second.tensor", ELEMENT_LAYOUT),
    bug("a mean's gradient is not divided", "point(problem.divisor, divisor);", ";", SIGMOID_FOCAL),
    bug(
        "alpha of classes is forgotten",
        "point(problem.class_alpha, class_alpha);",
        ";",
        f"{ELEMENTS} -k test_alpha_of_classes",
    ),
    bug(
        "classes are counted along the last dimension",
        "input.size(class_dim())",
        "input.size(-1)",
        CLASSES,
        context="target_is_class ? input.size(class_dim()) : 0",
    ),
    bug(
        "ignore_index is lost",
        "ignore_index.has_value()",
        "false",
        f"{ELEMENTS} -k test_ignored_rows_of_classes",
        context="problem.has_ignored = ignore_index.has_value();",
    ),
    bug(
        "ignore_nan is lost",
        "settings.ignore_nan",
        "false",
        f"{ELEMENTS} -k test_ignored_numbers_and_nan",
        context="problem.ignores_nan = settings.ignore_nan",
    ),
    bug(
        "the ignored number is rounded to the target's dtype before the bad one is looked for",
        "target.to(opmath)",
        "target",
        f"{INTEGERS} -k test_what_is_blamed",
    ),
    bug(
        "the number of classes wraps around in the target's dtype",
        "class_indices(target, ignore_index)",
        "target",
        f"{INTEGERS} -k test_what_is_blamed",
    ),
    bug(
        "an ignored row is blamed",
        "at::logical_and(bad, of.ne(*ignore_index))",
        "bad",
        f"{ERRORS} -k 'sigmoid_focal_loss and negative and class'",
    ),
    bug(
        "the background is blamed",
        "indices.gt(classes)",
        "indices.ge(classes)",
        f"{ERRORS} -k 'sigmoid_focal_loss and class'",
    ),
    bug(
        "a probability of 1 is blamed",
        "tensor.le(1)",
        "tensor.lt(1)",
        f"{ERRORS} -k 'binary_cross_entropy and above'",
    ),
    bug(
        "a probability of 0 is blamed",
        "tensor.ge(0)",
        "tensor.gt(0)",
        f"{ERRORS} -k 'binary_cross_entropy and target and above'",
    ),
    bug(
        "a missing label is blamed",
        "settings.ignore_nan ? at::logical_and(bad, labels.eq(labels)) : bad",
        "bad",
        f"{ELEMENTS} -k test_probabilities_with_targets_that_are_none",
    ),
    bug(
        "a bad class is shown as what it was converted to",
        "tensors.target",
        "indices",
        f"{INTEGERS} -k numbers_beyond_int64",
        context='first_where(bad, "target", tensors.target)',
    ),
    bug(
        "a bad label is shown as what it was converted to",
        "tensors.target",
        "labels",
        COMPANY,
        context="first_where(is_none(labels), name, tensors.target)",
    ),
    bug(
        "the dimension before the classes",
        "settings.batch_dims + 1",
        "settings.batch_dims",
        CLASSES,
    ),
    bug(
        "one sample has its classes in a dimension that it has not",
        "input.dim() - 1",
        "input.dim()",
        CLASSES,
        context="std::min(settings.batch_dims + 1, input.dim() - 1)",
    ),
    bug(
        "wide integers are taken for floats",
        "or_integers && is_integer ? at::kLong : opmath",
        "opmath",
        f"{ELEMENTS} -k ignored_integers_that_floats",
    ),
    bug(
        "factors may be on another device",
        "check_same_device(input, name, tensor);",
        ";",
        f"{ERRORS} -k 'test_bad_call and binary_cross_entropy and weight and device'",
    ),
    bug(
        "the imaginary part is dropped",
        "!tensor.is_complex()",
        "true",
        f"{ERRORS} -k 'test_bad_call and complex and target'",
    ),
    bug(
        "a dimension of one number is stepped through",
        "taken.size(d) != 1",
        "true",
        WEIGHTS,
    ),
    bug(
        "of a number and a row of classes nothing is checked",
        "input.dim() > settings.batch_dims",
        "true",
        COMPANY,
        context="has_classes = input.dim() > settings.batch_dims",
    ),
    bug(
        "classes of any number of rows",
        "are_same(got, rows)",
        "true",
        f"{WITHOUT_DATA} -k 'fake_tensors_are_checked and labels'",
    ),
    bug(
        "a bool is a class",
        "at::isIntegralType(given.scalar_type(), false)",
        "at::isIntegralType(given.scalar_type(), true)",
        COMPANY,
    ),
    bug(
        "classes may be on another device",
        'check_same_device(input, "target", given);',
        ";",
        COMPANY,
    ),
    bug(
        "labels of one class are class indices",
        "shape[class_dim()].sym_ne(1).expect_true(__FILE__, __LINE__)",
        "true",
        f"{ERRORS} -k 'sigmoid_focal_loss and labels'",
    ),
    bug(
        "what int64 cannot hold may be what is ignored",
        "class_indices(given, ignore_index)",
        "class_indices(given, std::nullopt)",
        f"{INTEGERS} -k numbers_beyond_int64",
    ),
    bug("every class has the number 0", "strides[class_dim()] = 1;", ";", CLASSES),
    bug(
        "the last bad element is shown, and not the first",
        "condition.nonzero()[0]",
        "condition.nonzero()[-1]",
        f"{ELEMENT_LAYOUTS} -k test_bad_input_is_found",
    ),
    bug(
        "without data, the gradient of a weight has the dtype of the loss",
        "factor.options()",
        "grad_output.options()",
        f"{ELEMENT_EDGES} -k test_fakes_for_every_device",
        context="factor.sym_sizes(), factor.options()",
    ),
    bug(
        "the gradient of a float32 weight is rounded to half",
        "factor.scalar_type() == input.scalar_type() ? factor.scalar_type() : arguments.opmath",
        "input.scalar_type()",
        HALF_WEIGHTS,
    ),
    bug(
        "the gradient of a weight is left in opmath",
        "result.to(factor.scalar_type())",
        "result",
        COMPANY,
    ),
    bug("the dimensions that stay are summed", "!is_summed(d)", "is_summed(d)", WEIGHTS),
    bug("all of a weight's gradient is one sum", "is_sum ? result.numel() : 1", "int64_t(1)", WEIGHTS),
    bug(
        "the gradient of a weight under a mean is not divided",
        "divisor",
        "at::Tensor()",
        WEIGHTS,
        context="arguments.describe(problem, order, grad_output, divisor,",
    ),
    bug(
        "losses of elements are contiguous whatever the input is",
        "at::empty_like(input, options)",
        "at::empty_symint(input.sym_sizes(), options)",
        ELEMENT_LAYOUT,
    ),
    bug(
        "the denominator has the dtype of the loss",
        "options.dtype(arguments.opmath)",
        "options",
        f"{ELEMENTS} -k 'test_loss_and_gradients and sigmoid_focal_loss and 33x100 and bfloat16'",
    ),
    bug(
        "a denominator and on_empty are forgotten",
        "problem.mean_divisor = settings.mean_divisor;",
        ";",
        f"{ELEMENTS} -k test_denominator",
    ),
    bug(
        "a batch has one loss",
        "is_none ? 1 : loss.numel()",
        "int64_t(1)",
        f"{ELEMENT_EDGES} -k test_groups_of_several_shares",
    ),
    bug(
        "a float32 loss of half inputs is written as half",
        "arguments.loss_dtype == arguments.opmath",
        "false",
        f"{ELEMENTS} -k 'test_out_dtype and bfloat16'",
    ),
    bug(
        "forward raises for nothing",
        "if (run(input, problem) != kNoBadRow) arguments.throw_bad_element();",
        "run(input, problem);",
        f"{ERRORS} -k 'binary_cross_entropy and above'",
        context="denominator.mutable_data_ptr() : nullptr;\n"
        "  if (run(input, problem) != kNoBadRow) arguments.throw_bad_element();",
    ),
    bug(
        "backward takes a loss of the input's dtype alone",
        "arguments.loss_dtype",
        "input.scalar_type()",
        f"{ELEMENTS} -k 'test_out_dtype and bfloat16'",
        context="arguments.loss_shape(), arguments.loss_dtype, input",
    ),
    bug(
        "backward takes any denominator",
        'check_from_forward("denominator", divisor, arguments.batch(), arguments.opmath, input);',
        ";",
        f"{ELEMENT_EDGES} -k test_backward_checks",
    ),
    bug(
        "classes have a gradient",
        "!needs.target || !arguments.target_is_class",
        "true",
        COMPANY,
    ),
    bug(
        "a weight that there is not has a gradient",
        "!needs.weight || is_given(tensors.weight)",
        "true",
        COMPANY,
    ),
    bug(
        "the input's gradient is made though nobody needs it",
        "needs.input",
        "true",
        f"{ELEMENT_LAYOUTS} -k test_gradients_of_weights_make_nothing_else",
        context="if (needs.input) grad_input",
        note="it is returned, too, with nothing in it: by its memory alone a test sees that",
    ),
    bug(
        "without data, the gradient of a target is in opmath",
        "has_data(input) ? options.dtype(arguments.grad_target_dtype()) : options",
        "options.dtype(arguments.grad_target_dtype())",
        COMPANY,
    ),
    bug(
        "the gradient in the target alone is not computed",
        "needs.input || needs.target",
        "needs.input",
        "tests/autograd/test_derivatives_of_targets.py -k test_probabilities_of_elements_at_their_bounds",
    ),
    bug(
        "the gradient of a float32 target is written as half",
        "needs.target && grad_target.scalar_type() == arguments.opmath",
        "false",
        OTHER_DTYPES,
    ),
    bug(
        "backward raises for nothing",
        "if (run(input, problem) != kNoBadRow) arguments.throw_bad_element();",
        "run(input, problem);",
        f"{ELEMENT_EDGES} -k 'test_class_out_of_bounds'",
        context="grad_target.scalar_type() == arguments.opmath;\n"
        "    if (run(input, problem) != kNoBadRow) arguments.throw_bad_element();",
    ),
    bug(
        "the gradient of a half target is left in opmath",
        "if (needs.target) grad_target = grad_target.to(tensors.target.scalar_type());",
        ";",
        COMPANY,
    ),
    bug(
        "the gradient of a weight is weighted",
        "kNone",
        "tensors.weight",
        WEIGHTS,
        context="tensors.target, kNone, tensors.pos_weight, tensors.class_alpha}",
    ),
    bug(
        "the gradient of a weight forgets alpha of classes",
        "tensors.class_alpha",
        "kNone",
        COMPANY,
        context="kNone, tensors.pos_weight, tensors.class_alpha}",
    ),
    bug(
        "the gradient of pos_weight forgets the weight",
        "tensors.weight",
        "kNone",
        f"{ELEMENT_EDGES} -k 'test_transforms_in_all_arguments and jacrev and logits'",
        context="tensors.target, tensors.weight, kNone, tensors.class_alpha}",
    ),
    bug(
        "the gradient of pos_weight forgets alpha of classes",
        "tensors.class_alpha",
        "kNone",
        COMPANY,
        context="tensors.weight, kNone, tensors.class_alpha}",
    ),
    bug(
        "the gradient of pos_weight is that of the whole loss",
        "of_pos_settings.options.neg_weight = 0;",
        ";",
        WEIGHTS,
    ),
    bug(
        "without alpha there is no focus",
        "gamma != 0",
        "false",
        SIGMOID_FOCAL,
        note="of the options gamma=1.0, alpha=-1.0",
    ),
    bug(
        "an alpha of 0 is none",
        "alpha >= 0",
        "alpha > 0",
        f"{ELEMENT_PEERS} -k 'fraction_of_cross_entropy and float32'",
        context="alpha >= 0 || has_class_alpha",
    ),
    bug(
        "alpha of classes needs a focus",
        "has_class_alpha",
        "false",
        f"{ELEMENTS} -k test_alpha_of_classes",
        context="alpha >= 0 || has_class_alpha;",
    ),
    bug(
        "negatives fade as positives do",
        "gamma_neg.value_or(0)",
        "gamma",
        ASYMMETRIC,
    ),
    bug("the margin is lost", "options.margin = margin;", ";", ASYMMETRIC),
    bug(
        "label smoothing is lost",
        "options.label_smoothing = label_smoothing;",
        ";",
        f"{ELEMENTS} -k 'test_loss_and_gradients and label_smoothing and 33x100 and float32'",
    ),
)

BINARY_PROBLEM = bugs_of(
    "csrc/host/binary_cross_entropy_problem.h",
    bug(
        "an operand that there is not has a number for each element",
        "if (!data) return true;",
        ";",
        SIGMOID_FOCAL,
        note="a crash",
    ),
    bug("only the first dimension is looked at", "d < dims.ndim", "d < 1", WEIGHTS),
    bug(
        "a number for each row is one for all",
        "strides.strides[d] != 0",
        "d > 0 && strides.strides[d] != 0",
        WEIGHTS,
    ),
    bug(
        "bytes have a sign",
        "return f(uint8_t());",
        "return f(int8_t());",
        f"{INTEGERS} -k test_what_is_blamed",
    ),
    bug(
        "int16 is read as int32",
        "return f(int16_t());",
        "return f(int32_t());",
        f"{ELEMENTS} -k 'test_integer_targets and int16'",
    ),
    bug(
        "no focus",
        "return f(std::integral_constant<BinaryInput, BinaryInput::kFocalLogit>());",
        "return f(std::integral_constant<BinaryInput, BinaryInput::kLogit>());",
        SIGMOID_FOCAL,
    ),
    bug(
        "the asymmetric loss is the focal one",
        "return f(std::integral_constant<BinaryInput, BinaryInput::kAsymmetricLogit>());",
        "return f(std::integral_constant<BinaryInput, BinaryInput::kFocalLogit>());",
        ASYMMETRIC,
    ),
)

CHECKS = bugs_of(
    "csrc/host/checks.cpp",
    bug(
        "a smaller size is the same",
        "*as_int == *other",
        "*as_int <= *other",
        f"{ERRORS} -k 'test_bad_call and batch and size'",
        note="may read beyond the target",
    ),
    bug(
        "sizes that are symbols are the same",
        "m.sym_eq(n).expect_true(__FILE__, __LINE__)",
        "true",
        f"{WITHOUT_DATA} -k test_symbolic_sizes_are_compared",
    ),
    bug(
        "the beginning of a shape is the shape",
        "std::equal(a.begin(), a.end(), b.begin(), b.end(), is_same)",
        "a.size() <= b.size() && std::equal(a.begin(), a.end(), b.begin(), is_same)",
        f"{ERRORS} -k 'test_bad_call and scalar'",
    ),
    bug("float16 is read as bfloat16", "DType::kFloat16", "DType::kBFloat16", f"{VALUES} -k '7x3 and float16'"),
    bug(
        "compilers keep the error of a dtype to themselves",
        "has_data(input)",
        "true",
        f"{WITHOUT_DATA} -k 'test_bad_calls and integer'",
        context="TORCH_CHECK(has_data(input), kMessage",
    ),
    bug(
        "a negative batch_dims",
        "batch_dims >= 0",
        "true",
        COMPANY,
    ),
    bug(
        "a number has classes",
        "logits.dim() > batch_dims",
        "logits.dim() >= batch_dims",
        f"{ERRORS} -k '0-d'",
        note="may crash: it erases a dimension that there is not",
    ),
    bug(
        "the error does not tell of the batch",
        'batch_dims ? " besides those of the batch" : ""',
        '""',
        f"{SCALE} {NONE} -k test_bad_call",
    ),
    bug(
        "of one row the classes are where they are of many",
        "logits.dim() == batch_dims + 1 ? batch_dims : batch_dims + 1",
        "batch_dims + 1",
        f"{EDGES} -k test_one_row",
    ),
    bug(
        "tensors may be on any device",
        "tensor.device() == input.device()",
        "true",
        f"{ERRORS} -k 'test_bad_call and weight and device'",
        context='TORCH_CHECK(tensor.device() == input.device(), "input and "',
    ),
    bug(
        "images get the advice for sequences",
        "dims == 3",
        "true",
        COMPANY,
    ),
    bug(
        "targets of another batch size get the advice to squeeze",
        "target[0].sym_eq(input[0]).expect_true(__FILE__, __LINE__)",
        "true",
        COMPANY,
    ),
    bug(
        "targets of any number of channels get it",
        "target[1].sym_eq(1).expect_true(__FILE__, __LINE__)",
        "true",
        f"{MISUSE} -k test_masks_with_a_dimension_of_channels",
    ),
    bug(
        "targets of another size get it",
        "are_same(input.slice(2), target.slice(2))",
        "true",
        COMPANY,
    ),
    bug(
        "a bool is a class",
        "at::isIntegralType(target.scalar_type(), /*includeBool=*/false)",
        "at::isIntegralType(target.scalar_type(), /*includeBool=*/true)",
        f"{ERRORS} -k 'test_bad_call and bool'",
    ),
    bug(
        "another batch size is a RuntimeError",
        "are_same(got.slice(0, 1), row_shape.slice(0, 1))",
        "true",
        f"{ERRORS} -k 'test_bad_call and batch and size'",
    ),
    bug(
        "classes of the shape of one row are a ValueError",
        "are_same(shape, got)",
        "false",
        COMPANY,
        context="same_batch || are_same(shape, got)",
    ),
    bug(
        "a target with gaps is read as if it had none",
        "target.contiguous()",
        "target",
        f"{EDGES} -k test_non_contiguous_target_and_weight",
    ),
    bug(
        "a converted target keeps its strides",
        "target.to(at::kLong).contiguous()",
        "target.to(at::kLong)",
        f"{INTEGERS} --device cpu -k another_order",
    ),
    bug(
        "what int64 cannot hold is negative",
        "target.scalar_type() != at::kUInt64",
        "true",
        f"{INTEGERS} -k numbers_beyond_int64",
    ),
    bug(
        "what int64 cannot hold may be what is ignored",
        "ignore_index == largest ? largest - 1 : largest",
        "largest",
        f"{INTEGERS} -k numbers_beyond_int64",
    ),
    bug(
        "probabilities of another shape for one row are a ValueError",
        "shape.size() == 1",
        "false",
        COMPANY,
    ),
    bug(
        "another batch size of probabilities is a RuntimeError",
        "are_same(shape.slice(0, 1), got.slice(0, 1))",
        "true",
        f"{SOFT_MODES} -k test_errors",
    ),
    bug(
        "probabilities of any shape",
        "are_same(got, shape)",
        "true",
        f"{SOFT_MODES} -k test_errors",
        note="may read beyond the target",
    ),
    bug(
        "probabilities of any dtype",
        "target.scalar_type() == input.scalar_type() || target.scalar_type() == opmath",
        "true",
        f"tests/losses/test_ops.py {ALL}",
    ),
    bug(
        "factors of any shape",
        "are_same(factors.sym_sizes(), shape)",
        "true",
        f"{ERRORS} -k 'test_bad_call and weight and length'",
    ),
    bug(
        "factors of any dtype",
        "factors.scalar_type() == input.scalar_type()",
        "true",
        f"{ERRORS} -k 'test_bad_call and weight and dtype'",
        context="TORCH_CHECK(factors.scalar_type() == input.scalar_type()",
    ),
    bug(
        "no float32 weight of half logits",
        "factors.scalar_type() == opmath",
        "false",
        f"{DTYPES} -k test_weights_of_class_indices",
        context="|| factors.scalar_type() == opmath",
    ),
    bug(
        "factors may be on another device",
        "check_same_device(input, name, factors);",
        ";",
        f"{ERRORS} -k 'test_bad_call and cross_entropy and weight and device'",
    ),
    bug(
        "what is missing is called a tensor of another dtype",
        "tensor.defined()",
        "true",
        f"{ERRORS} -k test_backward_checks_what_it_gets",
        context="TORCH_CHECK(tensor.defined(), name",
    ),
    bug(
        "backward takes any dtype",
        "tensor.scalar_type() == dtype",
        "true",
        f"{ERRORS} -k test_backward_checks_what_it_gets",
    ),
    bug(
        "backward takes tensors of another device",
        "tensor.device() == input.device()",
        "true",
        f"{LOG_SOFTMAX_MODES} -k test_ops_check_their_arguments",
        context="tensor.scalar_type() == dtype && tensor.device() == input.device()",
        note="a crash",
    ),
    bug(
        "backward takes any shape",
        "are_same(tensor.sym_sizes(), shape)",
        "true",
        f"{ERRORS} -k test_backward_checks_what_it_gets",
    ),
    bug(
        "negative smoothing",
        "label_smoothing >= 0.0",
        "true",
        f"{ERRORS} -k 'negative and smoothing'",
    ),
    bug(
        "no smoothing of 1",
        "label_smoothing <= 1.0",
        "label_smoothing < 1.0",
        f"{VALUES} -k 'test_loss_and_gradient and 7x3 and float32 and label_smoothing'",
    ),
    bug("a negative gamma", "gamma >= 0.0", "true", BAD_OPTIONS, context="gamma >= 0.0 && std::isfinite(gamma)"),
    bug("an infinite gamma", "std::isfinite(gamma)", "true", f"{ERRORS} -k 'asymmetric and inf'"),
    bug(
        "gamma of the asymmetric loss is called by a name that it has not",
        'options.input == BinaryInput::kAsymmetricLogit ? "gamma_pos" : "gamma"',
        '"gamma"',
        f"{ERRORS} -k 'asymmetric and gamma_pos'",
    ),
    bug(
        "any gamma_neg",
        'check_gamma("gamma_neg", options.gamma_neg);',
        ";",
        f"{ERRORS} -k 'asymmetric and gamma_neg'",
    ),
    bug("a margin of 1", "options.margin < 1.0", "options.margin <= 1.0", f"{ERRORS} -k 'asymmetric and margin'"),
    bug("a negative margin", "options.margin >= 0.0", "true", f"{ERRORS} -k 'asymmetric and margin'"),
    bug(
        "every negative alpha is none",
        "options.alpha == -1.0",
        "options.alpha < 0.0",
        f"{ERRORS} -k 'sigmoid_focal_loss and alpha'",
    ),
    bug(
        "no alpha of 0",
        "options.alpha >= 0.0",
        "options.alpha > 0.0",
        f"{ELEMENT_PEERS} -k test_alpha_of_0_or_1",
    ),
    bug("an alpha above 1", "options.alpha <= 1.0", "true", f"{ERRORS} -k 'sigmoid_focal_loss and alpha'"),
    bug("a negative z_loss", "options.z_loss >= 0.0", "true", BAD_OPTIONS),
    bug(
        "an infinite z_loss",
        "std::isfinite(options.z_loss)",
        "true",
        COMPANY,
    ),
    bug("an infinite logit_scale", "std::isfinite(options.logits.scale)", "true", BAD_OPTIONS),
    bug("a negative softcap", "options.logits.softcap >= 0.0", "true", BAD_OPTIONS),
    bug(
        "an infinite softcap",
        "std::isfinite(options.logits.softcap)",
        "true",
        COMPANY,
    ),
    bug(
        "the loss is in opmath by default",
        "out_dtype.value_or(input)",
        "out_dtype.value_or(opmath)",
        f"{VALUES} -k 'test_loss_and_gradient and 7x3 and bfloat16'",
    ),
    bug(
        "a loss of any dtype",
        "dtype == input || dtype == opmath",
        "true",
        COMPANY,
    ),
    bug(
        "a fourth reduction",
        "reduction <= 2",
        "true",
        COMPANY,
    ),
    bug(
        "a denominator of 0 is none",
        "divisor.has_value()",
        "divisor.value_or(0) != 0",
        f"{WITH_GRAD} -k 'test_denominators and 0.0'",
    ),
    bug(
        "a single target is shown with a bracket",
        "place.empty()",
        "false",
        f"{ERRORS} -k 'test_bad_call and one and row'",
    ),
    bug(
        "what int64 cannot hold is not shown",
        "number.scalar_type() == at::kUInt64",
        "false",
        f"{INTEGERS} -k 'test_bad_class_indices and uint64'",
    ),
    bug(
        "the row is not divided by the dimensions behind",
        "row /= target.size(d);",
        ";",
        f"{ERRORS} -k 'test_bad_call and pixel'",
    ),
)

CROSS_ENTROPY = bugs_of(
    "csrc/host/cross_entropy.cpp",
    bug(
        "log-probabilities keep what logits do",
        "settings.input_is_log_prob",
        "false",
        f"{ERRORS} -k test_bad_target_in_backward",
        context="settings.input_is_log_prob ? 0",
    ),
    bug(
        "log-probabilities take options of logits",
        "!input_is_log_prob || !needs_logits",
        "true",
        COMPANY,
    ),
    bug(
        "a target of shape (N, 1) is one of shape (N)",
        "is_one_row()",
        "true",
        f"{ERRORS} -k '2-d'",
        note="the fuzzer has some, too",
    ),
    bug(
        "compilers have to know ignore_index",
        "if (!has_data(input)) return;",
        ";",
        f"{TRACING} -k 'test_numbers_from_tensors and ignore_index'",
    ),
    bug(
        "ignore_index is lost",
        "settings.ignore_index.guard_int(__FILE__, __LINE__)",
        "int64_t(-100)",
        f"{EDGES} -k test_ignore_index_of_any_value",
    ),
    bug(
        "forward takes the classes for rows",
        "class_dim",
        "kNoClassDim",
        TINY,
        context="lay_out_rows({{input, class_dim, problem.input_rows}})",
    ),
    bug(
        "the first row is never a bad one",
        "bad_row != kNoBadRow",
        "bad_row > 0",
        f"{ERRORS} -k 'test_bad_call and one and row'",
    ),
    bug(
        "a bad target is shown as what it was converted to",
        "target",
        "indices",
        f"{INTEGERS} -k 'test_bad_class_indices and uint64'",
        context="(target, bad_row",
    ),
    bug(
        "rows of the gradient lie where those of the input do",
        "grad_input",
        "input",
        f"{LAYOUTS} -k 'expanded and rows and 77 and float32'",
        context="{grad_input, arguments.class_dim,",
    ),
    bug(
        "the denominator has the strides of the upstream gradient",
        "denominator.defined() ? denominator : grad_output",
        "grad_output",
        f"{TRANSFORMS} -k 'test_vmap_over_upstream_gradients and cross_entropy and mean'",
        note="shows under vmap, where one of the two is expanded over the batch",
    ),
    bug(
        "the mean's gradient is not divided",
        "denominator.defined() ? denominator.const_data_ptr() : nullptr",
        "static_cast<const void*>(nullptr)",
        TINY,
    ),
    bug(
        "classes of the gradient lie as far apart as those of the input",
        "grad_input.stride(arguments.class_dim)",
        "input.stride(arguments.class_dim)",
        f"{LAYOUTS} -k 'expanded and classes and 77 and float32'",
    ),
    bug(
        "backward takes anything from its forward",
        "check_from_forward(arguments, grad_output, stats, denominator);",
        ";",
        f"{ERRORS} -k test_backward_checks_what_it_gets",
    ),
    bug(
        "the gradient is contiguous whatever the input is",
        "at::empty_like(arguments.input)",
        "at::empty_symint(arguments.input.sym_sizes(), arguments.input.options())",
        f"{LAYOUTS} -k '(transposed or channels_last) and 77 and float32'",
    ),
    bug(
        "stats may have any strides",
        "stats.contiguous()",
        "stats",
        f"{TRANSFORMS} -k 'test_vmap_over_upstream_gradients and cross_entropy and none'",
        note="expanded over a batch of upstream gradients",
    ),
    bug(
        "a gradient in forward takes any memory",
        'check_from_forward("grad_input", grad_input, input.sym_sizes(), input.scalar_type(), input);',
        ";",
        COMPANY,
    ),
    bug(
        "rows that share their memory are overwritten",
        "at::assert_no_internal_overlap(grad_input);",
        ";",
        f"{PEERS} -k test_rows_that_share_their_memory",
    ),
    bug(
        "a denominator that is given divides twice",
        "arguments.reduction == Reduction::kMean && !divisor.is_given",
        "arguments.reduction == Reduction::kMean",
        f"{OPTIONS} -k test_denominator_of_any_kind",
    ),
    bug(
        "a denominator of 0 is 0 though it shall be nothing",
        "divisor.of(0)",
        "divisor.given",
        COMPANY,
    ),
    bug(
        "the logits' version is not counted when their gradient is written over them",
        "grad_input.unsafeGetTensorImpl()->bump_version();",
        ";",
        COMPANY,
    ),
    bug(
        "backward forgets z_loss",
        "z_loss",
        "0.0",
        f"{OPTIONS} -k 'test_loss_and_gradient and z_loss and 7x5 and float32'",
        context="MaybeDtype out_dtype, int64_t batch_dims) {\n"
        "    const CrossEntropyOptions options{label_smoothing, gamma, z_loss",
    ),
    bug(
        "backward forgets to give back the smoothing",
        "label_smoothing",
        "0.0",
        f"{VALUES} -k 'test_loss_and_gradient and 7x3 and float32 and label_smoothing'",
        context="MaybeDtype out_dtype, int64_t batch_dims) {\n    const CrossEntropyOptions options{label_smoothing",
    ),
    bug(
        "the gradient in forward forgets gamma",
        "gamma",
        "0.0",
        f"{IN_FORWARD[:-1]} and focal'",
        context="bool report, double loss_scale) {\n"
        "           const CrossEntropyOptions options{label_smoothing, gamma",
    ),
)

CROSS_ENTROPY_PROBLEM = bugs_of(
    "csrc/host/cross_entropy_problem.h",
    bug(
        "smoothing needs no gaps",
        "p.options.label_smoothing == 0",
        "true",
        f"{VALUES} -k 'test_loss_and_gradient and 7x3 and float32 and label_smoothing'",
    ),
    bug("a report needs no form", "!p.report", "true", f"{OPTIONS} -k 'test_stats and 7x5 and float32'"),
    bug(
        "changed logits need no form",
        "!p.options.logits.change()",
        "true",
        f"{OPTIONS} -k 'test_loss_and_gradient and softcap and 7x5 and float32'",
    ),
)

DTYPE = bugs_of(
    "csrc/host/dtype.h",
    bug(
        "what is computed is never stored",
        "is_opmath",
        "false",
        f"{ELEMENTS} -k 'test_out_dtype and bfloat16'",
        context="return is_opmath &&",
    ),
    bug(
        "float64 is computed in float32",
        "dtype != DType::kFloat64",
        "true",
        f"{VALUES} -k 'test_loss_and_gradient and 7x3 and float64'",
    ),
    bug(
        "a double has 4 bytes",
        "return 8;",
        "return 4;",
        f"{ELEMENTS} -k 'test_loss_and_gradients and sigmoid_focal_loss and 33x100 and float64'",
    ),
    bug("a float has 2 bytes", "return 4;", "return 2;", SIGMOID_FOCAL),
    bug(
        "a half has 4 bytes",
        "return 2;",
        "return 4;",
        f"{ELEMENTS} -k 'test_loss_and_gradients and sigmoid_focal_loss and 33x100 and bfloat16'",
        note="may crash: results are written beyond their memory",
    ),
    bug(
        "bfloat16 is float16",
        "return f(BFloat16{});",
        "return f(Half{});",
        f"{VALUES} -k 'test_loss_and_gradient and 7x3 and bfloat16'",
    ),
)

LOG_SOFTMAX_CPP = bugs_of(
    "csrc/host/log_softmax.cpp",
    bug(
        "bfloat16 is no half",
        "input_dtype == at::kBFloat16",
        "false",
        f"{LOG_SOFTMAX} -k 'test_values_and_gradient and 7x3'",
    ),
    bug(
        "float64 may become float32",
        "is_half",
        "true",
        f"{LOG_SOFTMAX_MODES} -k test_ops_check_their_arguments",
        context="(is_half && output_dtype",
    ),
    bug(
        "no output is wider than its input",
        "output_dtype != input_dtype",
        "false",
        f"{LOG_SOFTMAX} -k 'test_values_and_gradient and 7x3'",
    ),
    bug(
        "the classes of the last dimension are counted", "tensor.size(dim)", "tensor.size(-1)", f"{LOG_SOFTMAX} -k 7x3"
    ),
    bug(
        "rows without classes are divided by 0",
        "problem.classes > 0 ? tensor.numel() / problem.classes : 0",
        "tensor.numel() / problem.classes",
        f"{LOG_SOFTMAX} -k test_empty",
    ),
    bug(
        "the op counts dimensions from the front alone",
        "dim = c10::maybe_wrap_dim(dim, input.dim());",
        ";",
        f"{MODULES} -k test_script_of_log_softmax",
        note="-1 is what says that there are no classes",
    ),
    bug(
        "a number becomes a row",
        "log_softmax_forward(input.unsqueeze(0), dim, dtype).squeeze(0)",
        "log_softmax_forward(input.unsqueeze(0), dim, dtype)",
        f"{LOG_SOFTMAX} -k test_dimensions_as_torch",
    ),
    bug(
        "the output is the input where it may be",
        "at::empty_like(input, input.options().dtype(output_dtype))",
        "output_dtype == input.scalar_type() ? input : at::empty_like(input, input.options().dtype(output_dtype))",
        f"{LOG_SOFTMAX_MODES} -k test_opcheck",
        note=("log_softmax of its own results are these: tests of values that make theirs afterwards do not see it"),
    ),
    bug(
        "classes of the output lie as far apart as those of the input",
        "output.stride(dim)",
        "input.stride(dim)",
        f"{LOG_SOFTMAX} -k 'test_layout and expanded and classes and 77 and float32'",
        context="problem.output = output.mutable_data_ptr();\n  problem.output_class_stride = output.stride(dim);",
    ),
    bug(
        "backward takes any upstream gradient",
        'check_from_forward("grad_output", grad_output, output.sym_sizes(), output.scalar_type(), output);',
        ";",
        f"{LOG_SOFTMAX_MODES} -k test_ops_check_their_arguments",
    ),
    bug(
        "backward counts dimensions from the front alone",
        "dim = c10::maybe_wrap_dim(dim, output.dim());",
        ";",
        COMPANY,
    ),
    bug(
        "the gradient of a number is a row",
        "log_softmax_backward(grad_output.unsqueeze(0), output.unsqueeze(0), dim, input_dtype).squeeze(0)",
        "log_softmax_backward(grad_output.unsqueeze(0), output.unsqueeze(0), dim, input_dtype)",
        f"{LOG_SOFTMAX_MODES} -k 'test_forward_mode or test_gradcheck'",
        note="autograd sums it to a number: shows where that gradient has a tangent",
    ),
    bug(
        "the gradient has the dtype of the output",
        "output.options().dtype(input_dtype)",
        "output.options()",
        f"{LOG_SOFTMAX_MODES} -k test_fakes_for_every_device",
    ),
    bug(
        "the upstream gradient lies as the output does",
        "grad_output.stride(dim)",
        "output.stride(dim)",
        f"{LOG_SOFTMAX} -k 'test_layout and 77 and float32'",
    ),
    bug(
        "the gradient lies as the output does",
        "grad_input.stride(dim)",
        "output.stride(dim)",
        f"{LOG_SOFTMAX} -k 'test_layout and expanded and classes and 77 and float32'",
    ),
)

LOG_SOFTMAX_PROBLEM = bugs_of(
    "csrc/host/log_softmax_problem.h",
    bug(
        "no output is wider than its input",
        "problem.widens",
        "false",
        f"{LOG_SOFTMAX} -k 'test_values_and_gradient and 3x257'",
        note="by class alone: by row, tiles are told the dtype of what they store",
    ),
)

ROW_LAYOUT = bugs_of(
    "csrc/host/row_layout.cpp",
    bug(
        "what has no classes has them in front",
        "operand.class_dim != kNoClassDim",
        "true",
        f"{LAYOUTS} -k test_upstream_gradient",
    ),
    bug(
        "the class dimension is taken for the rows'",
        "row_dim >= operand.class_dim",
        "row_dim > operand.class_dim",
        f"{VALUES} -k 'test_loss_and_gradient and 2x19x7x9 and float32'",
    ),
    bug("classes are rows, too", "if (dim == class_dim) continue;", ";", TINY),
    bug(
        "dimensions of one row count",
        "size != 1",
        "true",
        COMPANY,
    ),
    bug(
        "dimensions are merged that the first tensor alone has in one run",
        "operand.strides.strides[outer] == stride_of(operand, row_dim) * size",
        "(&operand != operands.begin() || operand.strides.strides[outer] == stride_of(operand, row_dim) * size)",
        f"{LAYOUTS} -k test_upstream_gradient",
    ),
    bug(
        "a dimension that is merged adds no rows",
        "dims.sizes[outer] *= size;",
        ";",
        f"{VALUES} -k 'test_loss_and_gradient and 2x19x7x9 and float32'",
    ),
    bug(
        "nine dimensions fit into eight places",
        "dims.ndim < kMaxRowDims",
        "dims.ndim <= kMaxRowDims",
        f"{LAYOUTS} -k test_more_dimensions",
        note="may crash",
    ),
    bug(
        "merged dimensions keep the stride of the outer one",
        "stride_of(operand, row_dim)",
        "(mergeable ? operand.strides.strides[dims.ndim - 1] : stride_of(operand, row_dim))",
        f"{VALUES} -k 'test_loss_and_gradient and 2x19x7x9 and float32'",
        note="may crash: it writes beyond the gradient",
        context="operand.strides.strides[dims.ndim - 1] = stride_of(operand, row_dim);",
    ),
    bug(
        "dimensions of rows are not counted",
        "++row_dim;",
        ";",
        f"{VALUES} -k 'test_loss_and_gradient and 2x19x7x9 and float32'",
        note="may crash: it writes beyond the gradient",
    ),
    bug(
        "one row has no dimensions",
        "if (dims.ndim == 0) dims.sizes[dims.ndim++] = 1;",
        ";",
        f"{EDGES} -k test_one_row",
        note="may crash: a division by what stands before the sizes",
    ),
    bug(
        "rows side by side are one",
        "stride != 0",
        "stride > 1",
        f"{VALUES} -k 'test_loss_and_gradient and 9000x3 and float32 and none'",
        note="takes rows of several chunks, upstream gradients here",
    ),
    bug(
        "rows that share an outer dimension are one",
        "strides + dims.ndim",
        "strides + 1",
        f"{LAYOUTS} -k 'expanded and batch and 77 and float32'",
        note="takes a chunk that begins within the dimensions that differ",
    ),
)

ROWS = bugs_of(
    "csrc/host/rows.h",
    bug(
        "rows that share an outer dimension are one",
        "!differ",
        "strides[0] == 0",
        f"{LAYOUTS} -k 'expanded and batch and 77 and float32'",
    ),
    bug(
        "of several dimensions one is left out",
        "d > 0",
        "d > 1",
        f"{LAYOUTS} -k '(crop or every) and 77 and float32'",
        note="may crash: it writes beyond the gradient",
    ),
    bug(
        "the outer place for the inner one",
        "row - outer * dims.sizes[d]",
        "outer",
        f"{LAYOUTS} -k '(crop or every) and 77 and float32'",
    ),
    bug(
        "the place in the other dimensions is not reduced",
        "row = outer;",
        ";",
        f"{LAYOUTS} -k '(crop or every) and 77 and float32'",
        note="may crash: it writes beyond the gradient",
    ),
    bug(
        "the outermost dimension has the stride of the innermost",
        "strides[0]",
        "strides[dims.ndim - 1]",
        f"{LAYOUTS} -k '(crop or every) and 77 and float32'",
    ),
)

SCALE_GRADIENT = bugs_of(
    "csrc/host/scale_gradient.cpp",
    bug(
        "an upstream gradient of any dtype",
        "grad_output.scalar_type() == grad_input.scalar_type()",
        "true",
        f"{SCALE} {NONE} -k test_bad_call",
        context="TORCH_CHECK(grad_output.scalar_type() == grad_input.scalar_type()",
    ),
    bug(
        "none of float32 for a half gradient",
        "grad_output.scalar_type() == opmath",
        "false",
        f"{SCALE} -k test_float32_loss_of_half_logits",
        context="|| grad_output.scalar_type() == opmath",
    ),
    bug(
        "an upstream gradient of another device",
        'check_same_device(grad_input, "grad_output", grad_output);',
        ";",
        f"{SCALE} {NONE} -k test_bad_call",
        note="a crash",
    ),
    bug(
        "an upstream gradient of any shape",
        "are_same(got, row_shape)",
        "true",
        f"{SCALE} {NONE} -k test_bad_call",
        note="may read beyond it",
    ),
    bug(
        "no losses of a batch",
        "are_same(got, batch)",
        "false",
        f"{SCALE} -k test_batches_of_losses",
    ),
    bug(
        "a float32 upstream gradient is read as half",
        "grad_output.scalar_type() == opmath",
        "false",
        f"{SCALE} -k test_float32_loss_of_half_logits",
        context="problem.grad_output_is_opmath = grad_output.scalar_type() == opmath;",
    ),
    bug(
        "the first upstream gradient is that of all rows",
        "grad_output.dim() == 0",
        "true",
        f"{SCALE} -k 'test_product and rows and float32'",
    ),
    bug(
        "what lies in the gaps is multiplied, too",
        "grad_input.is_non_overlapping_and_dense()",
        "true",
        f"{SCALE} -k 'test_product and cropped'",
    ),
    bug(
        "rows without classes are divided by 0",
        "problem.classes > 0 ? grad_input.numel() / problem.classes : 0",
        "grad_input.numel() / problem.classes",
        COMPANY,
    ),
    bug(
        "classes lie side by side",
        "grad_input.stride(class_dim)",
        "int64_t(1)",
        f"{SCALE} -k 'test_product and images and rows'",
    ),
    bug(
        "autograd is not told of the change",
        "grad_input.unsafeGetTensorImpl()->bump_version();",
        ";",
        f"{SCALE} -k test_it_is_a_change",
    ),
)

SOFT_CPP = bugs_of(
    "csrc/host/soft_cross_entropy.cpp",
    bug(
        "float32 probabilities of half logits are read as half",
        "target.scalar_type() == opmath",
        "false",
        f"{SOFT} -k 'values_and_gradients and 7x3 and float32'",
    ),
    bug(
        "probabilities lie as the logits do",
        "target.stride(class_dim)",
        "input.stride(class_dim)",
        SOFT_LAYOUT,
    ),
    bug("a gradient that nobody needs is made", "is_needed", "true", f"{SOFT} -k nobody_needs", context="(is_needed ?"),
    bug(
        "gradients are contiguous whatever they are of",
        "at::empty_like(of_)",
        "at::empty_like(of_, at::TensorOptions(), at::MemoryFormat::Contiguous)",
        SOFT_LAYOUT,
    ),
    bug(
        "a gradient lies as what it is of",
        "result.defined() ? result : of",
        "of",
        f"{SOFT} -k 'test_layout and expanded and 77 and float32'",
        context="layout() const { return result.defined() ? result : of; }",
    ),
    bug(
        "rows of probabilities lie as those of the logits do",
        "arguments.target",
        "arguments.input",
        SOFT_LAYOUT,
        context="{arguments.target, arguments.class_dim, problem.target_rows}",
    ),
    bug(
        "backward takes anything from its forward",
        "check_from_forward(arguments, grad_output, stats, denominator);",
        ";",
        COMPANY,
    ),
    bug(
        "stats may have any strides",
        "stats.contiguous()",
        "stats",
        f"{SOFT_MODES} -k 'test_transforms and upstream and none'",
        note="expanded over a batch of upstream gradients",
    ),
    bug(
        "the denominator has the strides of the upstream gradient",
        "mean ? denominator : grad_output",
        "grad_output",
        f"{SOFT_MODES} -k 'test_transforms and upstream and mean'",
        note="shows under vmap, where one of the two is expanded over the batch",
    ),
    bug(
        "the mean's gradient is not divided",
        "mean ? denominator.const_data_ptr() : nullptr",
        "static_cast<const void*>(nullptr)",
        f"{SOFT} -k 'test_agrees_with_torch'",
    ),
    bug(
        "classes of the target's gradient lie as those of the target do",
        "grad_target.layout().stride(class_dim)",
        "arguments.target.stride(class_dim)",
        f"{SOFT} -k 'test_layout and expanded and 77 and float32'",
    ),
    bug(
        "backward forgets gamma",
        "gamma",
        "0.0",
        f"{SOFT} -k 'test_focal_loss_of_one_hot and 40'",
        context="bool needs_target, int64_t batch_dims) {\n"
        "           const CrossEntropyOptions options{label_smoothing, gamma",
    ),
    bug(
        "the gradient in the logits is made where that in the target is needed",
        "needs_input",
        "needs_target",
        f"{SOFT} -k nobody_needs",
        context="mean_divisor, out_dtype, batch_dims}, needs_input, needs_target);",
    ),
)

SOFT_PROBLEM = bugs_of(
    "csrc/host/soft_cross_entropy_problem.h",
    bug(
        "float32 probabilities of half logits are read as half",
        "p.target_is_opmath",
        "false",
        f"{SOFT} -k 'values_and_gradients and 3x257 and float32'",
        note="by class alone",
    ),
    bug(
        "gamma below 1 is no focus",
        "p.options.gamma > 0",
        "p.options.gamma > 1",
        f"{SOFT} -k 'values_and_gradients and 7x3 and float32'",
        context="return p.options.gamma > 0 ? f(FocalForm{})",
    ),
    bug(
        "nor in the gradient",
        "p.options.gamma > 0",
        "p.options.gamma > 1",
        f"{SOFT} -k 'values_and_gradients and 7x3 and float32'",
        context="return p.options.gamma > 0         ? f(bool_constant",
    ),
    bug(
        "the gradient is that of the logits as they are",
        "p.options.logits.change()",
        "false",
        f"{SOFT} -k 'values_and_gradients and 7x3 and float32'",
    ),
)

SOFTMAX_LOSS = bugs_of(
    "csrc/host/softmax_loss.cpp",
    bug(
        "a weight with gaps is read as if it had none",
        "(tensor.scalar_type() == dtype ? tensor : tensor.to(dtype)).contiguous()",
        "(tensor.scalar_type() == dtype ? tensor : tensor.to(dtype))",
        f"{EDGES} -k test_non_contiguous_target_and_weight",
    ),
    bug("options are not checked", "check_options(settings.options);", ";", BAD_OPTIONS),
    bug(
        "rows have the shape without their first dimension",
        "row_shape.begin() + class_dim",
        "row_shape.begin()",
        f"{VALUES} -k 'test_loss_and_gradient and 7x3 and float32'",
    ),
    bug(
        "a weight has a number for each sample",
        "input.sym_sizes().slice(class_dim, 1)",
        "input.sym_sizes().slice(0, 1)",
        f"{VALUES} -k 'test_loss_and_gradient and 7x3 and float32 and weight'",
    ),
    bug(
        "any sample_weight",
        'check_factors("sample_weight", *tensors.sample_weight, row_shape, "number for each row", input, opmath);',
        ";",
        BAD_OPTIONS,
        note="may read beyond it",
    ),
    bug(
        "a float32 loss of half logits is written as half",
        "loss_dtype == opmath",
        "false",
        f"{SOFT} -k 'test_float32_loss_of_half_logits'",
    ),
    bug(
        "sample_weight is forgotten",
        "problem.sample_weight = sample_weight.defined() ? sample_weight.const_data_ptr() : nullptr;",
        ";",
        f"{OPTIONS} -k 'test_loss_and_gradient and 7x5 and float32'",
    ),
    bug(
        "the denominator has the dtype of the input",
        "opmath",
        "arguments.input.options()",
        f"{VALUES} -k 'test_loss_and_gradient and 7x3 and bfloat16 and mean'",
        context="at::empty_symint(arguments.batch(), opmath)",
    ),
    bug(
        "stats are made whether they are to be kept or not",
        "keep_stats && arguments.saved_numbers > 0",
        "arguments.saved_numbers > 0",
        COMPANY,
    ),
    bug(
        "a denominator and on_empty are forgotten",
        "problem.mean_divisor = arguments.settings.mean_divisor;",
        ";",
        f"{OPTIONS} -k test_denominator_of_any_kind",
    ),
    bug(
        "a batch has one loss",
        "problem.reduction == Reduction::kNone ? 1 : loss.numel()",
        "int64_t(1)",
        f"{TRANSFORMS} -k 'test_nested_vmap and cross_entropy and mean'",
    ),
    bug("nothing is kept of rows", "problem.saved = data(stats);", ";", TINY),
    bug(
        "backward takes a loss of the input's dtype alone",
        "arguments.loss_dtype",
        "input.scalar_type()",
        f"{SOFT} -k 'test_float32_loss_of_half_logits'",
        context="arguments.loss(), arguments.loss_dtype, input",
    ),
    bug(
        "backward takes any stats",
        'if (arguments.saved_numbers > 0) check_from_forward("stats", stats, arguments.stats(), arguments.opmath, '
        "input);",
        ";",
        f"{ERRORS} -k test_backward_checks_what_it_gets",
    ),
    bug(
        "backward takes any denominator",
        'check_from_forward("denominator", denominator, arguments.batch(), arguments.opmath, input);',
        ";",
        f"{ERRORS} -k test_backward_checks_what_it_gets",
    ),
)

SOFTMAX_LOSS_H = bugs_of(
    "csrc/host/softmax_loss.h",
    bug(
        "samples of a batch are never one row",
        "input.dim() == settings.batch_dims + 1",
        "input.dim() == 1",
        COMPANY,
    ),
    bug(
        "a batch has one loss",
        "settings.batch_dims",
        "int64_t(0)",
        f"{TRANSFORMS} -k 'test_nested_vmap and cross_entropy and mean'",
        context="input.sym_sizes().slice(0, settings.batch_dims)",
    ),
    bug(
        "losses of rows are one",
        "reduction == Reduction::kNone ? c10::SymIntArrayRef(row_shape) : batch()",
        "batch()",
        f"{VALUES} -k 'test_loss_and_gradient and 7x3 and float32 and none'",
    ),
    bug(
        "classes are counted along the last dimension",
        "input.size(class_dim)",
        "input.size(-1)",
        f"{VALUES} -k 'test_loss_and_gradient and 2x19x7x9 and float32'",
    ),
    bug(
        "the largest classes are not returned",
        "if_defined(argmax)",
        "std::optional<at::Tensor>()",
        f"{OPTIONS} -k 'test_stats and 7x5 and float32'",
    ),
)

SOFTMAX_PROBLEM = bugs_of(
    "csrc/host/softmax_loss_problem.h",
    bug(
        "a report needs no form",
        "p.report",
        "static_cast<void*>(nullptr)",
        f"{OPTIONS} -k 'test_stats and 7x5 and float32'",
        context="return p.report ||",
    ),
    bug(
        "changed logits need no form",
        "p.options.logits.change()",
        "false",
        f"{OPTIONS} -k 'test_loss_and_gradient and softcap and 7x5 and float32'",
    ),
)

AUTOGRAD = bugs_of(
    "csrc/python/autograd.cpp",
    bug(
        "whatever Python returns is a derivative",
        "item.is_none() || THPVariable_Check(item.ptr())",
        "true",
        f"{REGISTER} -k test_functions_that_return_no_derivatives",
        note="a crash",
    ),
    bug(
        "the gradient of the forward pass is not multiplied by the one from upstream",
        "gradient_op->callBoxed(stack);",
        ";",
        f"{SCALE} -k test_gradients_in_forward_take_any_upstream",
        context="const at::Tensor ready = stack[0].toTensor();\n      gradient_op->callBoxed(stack);",
    ),
    bug(
        "every result has the gradient of the first",
        "grads[~op.sources[i]]",
        "grads[0]",
        f"{REGISTER} -k test_derivatives",
    ),
    bug(
        "a result that is saved owns the node that owns it",
        "op.results",
        "size_t(0)",
        f"{REGISTER} -k leaves_no_cycle",
        context="save(results, op.op.schema().arguments().size(), op.results);",
    ),
    bug(
        "saved tensors are never freed",
        "for (SavedVariable& tensor : tensors_) tensor.reset_data();",
        ";",
        f"{MODES} -k 'test_saved_tensors_are_freed and nll'",
    ),
    bug(
        "compiled autograd takes other options for the same",
        "args.collect(value, /*nested=*/true);",
        ";",
        f"{MODES} -k 'test_compiled_autograd and softmax_focal_loss'",
    ),
    bug(
        "a gradient that is not defined is passed on",
        "if (!any_defined(grads)) return variable_list(num_outputs());",
        ";",
        f"{MODES} -k 'test_gradcheck and nll'",
        note="gradcheck tries it, by check_undefined_grad",
    ),
    bug(
        "the gradient of the forward pass serves any number of times",
        "if (is_ready) claim_ready_gradient();",
        ";",
        f"{WITH_GRAD} -k 'serves_one_backward or has_no_derivative'",
    ),
    bug(
        "the graph keeps the gradient, so that whoever gets it has to copy it",
        "if (is_ready) release_variables();",
        ";",
        f"{WITH_GRAD} -k whoever_gets_it_keeps_it",
    ),
    bug(
        "the ready gradient is saved before it is written, too",
        "op.sources[i] != op.ready_gradient",
        "true",
        f"{WITH_GRAD} -k test_saved_tensors_hooks",
    ),
    bug(
        "a tensor is saved where its dtype is asked for",
        "op.gradient_takes[i].of(value)",
        "value",
        f"{LOG_SOFTMAX} -k 'test_values_and_gradient and 7x3'",
    ),
    bug(
        "the gradient of the forward pass has a derivative",
        "!at::GradMode::is_enabled()",
        "true",
        f"{WITH_GRAD} -k has_no_derivative",
    ),
    bug(
        "a second backward pass gets an error that does not help",
        "!std::exchange(is_claimed_, true)",
        "true",
        f"{WITH_GRAD} -k serves_one_backward",
    ),
    bug(
        "the last of the arguments decides about the graph",
        "requires_grad || argument.toTensor().requires_grad()",
        "argument.toTensor().requires_grad()",
        f"{REGISTER} -k test_arguments_that_need_no_gradient",
    ),
    bug(
        "the last of the arguments decides about tangents",
        "has_tangent || torch::autograd::isFwGradDefined(argument.toTensor())",
        "torch::autograd::isFwGradDefined(argument.toTensor())",
        f"{SOFT_MODES} -k 'test_transforms and jacfwd'",
    ),
    bug(
        "a graph is recorded under no_grad",
        "requires_grad && at::GradMode::is_enabled()",
        "requires_grad",
        f"{TRANSFORMS} -k test_no_graph_where_none_is_needed",
    ),
    bug(
        "an op without tangents is asked for them",
        "!has_tangent || derivatives_.tangent",
        "true",
        f"{WITH_GRAD} -k test_the_op_itself",
        note="a SystemError, or a crash",
    ),
    bug(
        "nothing is kept for backward",
        "if (requires_grad) torch::jit::peek(*stack, i, count) = true;",
        ";",
        TINY,
    ),
    bug(
        "every tensor needs a gradient",
        "requires_grad && tensor.isTensor() && tensor.toTensor().requires_grad()",
        "requires_grad && tensor.isTensor()",
        CLASSES,
        note="classes have none",
    ),
    bug(
        "results have no tangents",
        "if (has_tangent) set_tangents(arguments, results);",
        ";",
        f"{REGISTER} -k test_derivatives",
    ),
    bug(
        "tangents are computed of tensors that have tangents themselves",
        "value.isTensor() ? at::IValue(value.toTensor()._fw_primal(/*level=*/0)) : value",
        "value",
        f"{REGISTER} -k test_derivatives",
    ),
    bug(
        "a derivative may return any number of tangents",
        "tangents_of_results.size() == op.results",
        "true",
        f"{REGISTER} -k test_functions_that_return_no_derivatives",
        note="a read beyond those that there are, which may crash",
    ),
    bug(
        "the tangent of forward is that of backward",
        "forever(tangent)",
        "forever(backward_tangent)",
        f"{REGISTER} -k test_derivatives",
        note="at registration",
    ),
    bug(
        "the tangent of backward is that of forward",
        "forever(backward_tangent)",
        "forever(tangent)",
        f"{REGISTER} -k test_derivatives",
        note="at registration",
    ),
)

CALLS = bugs_of(
    "csrc/python/calls.cpp",
    bug(
        "None is any argument",
        "object == Py_None && parameter.optional",
        "object == Py_None",
        f"{REGISTER} -k 'test_bad_options or test_tensor_that_is_not_optional'",
    ),
    bug(
        "a bool is an int",
        "!PyBool_Check(object)",
        "true",
        f"{REGISTER} -k test_bad_options",
    ),
    bug(
        "an int of more than 64 bits is taken for another",
        "overflow == 0",
        "true",
        f"{REGISTER} -k test_bad_options",
    ),
    bug(
        "what is no float is -1",
        "value == -1.0 && PyErr_Occurred()",
        "false",
        f"{REGISTER} -k test_number_that_is_no_float",
        note="of a complex number; a SystemError later on",
    ),
    bug(
        "anything is a bool",
        "PyBool_Check(object)",
        "true",
        f"{REGISTER} -k test_bad_options",
        context="if (PyBool_Check(object)) return object == Py_True;",
    ),
    bug(
        "every dtype is float32",
        "value.toScalarType()",
        "at::kFloat",
        f"{REGISTER} -k test_derivatives",
    ),
    bug(
        "every bool is true",
        "value.toBool()",
        "true",
        f"{TRANSFORMS} -k 'test_second_derivatives and softmax_focal_loss'",
        note="derivatives in Python then take logits for log-probabilities",
    ),
    bug(
        "options may be a list",
        "options && PyTuple_Check(options)",
        "options != nullptr",
        f"{REGISTER} -k test_bad_options",
    ),
    bug(
        "options too many are not looked at",
        "tensors + PyTuple_GET_SIZE(options) == static_cast<Py_ssize_t>(parameters.size())",
        "tensors + PyTuple_GET_SIZE(options) >= static_cast<Py_ssize_t>(parameters.size())",
        f"{REGISTER} -k test_bad_options",
    ),
    bug(
        "traces record what may return None",
        "torch::jit::tracer::isTracing() ? callee.traceable : callee.op",
        "callee.op",
        f"{TRACING} -k 'test_trace and nll'",
    ),
)

DIFFERENTIABLE_OP = bugs_of(
    "csrc/python/differentiable_op.cpp",
    bug("an int is a float", "Kind::kInt", "Kind::kFloat", f"{REGISTER} -k test_bad_options", note="at registration"),
    bug(
        "a name that nothing has is taken",
        "result >= 0",
        "true",
        f"{REGISTER} -k test_schemas_that_do_not_fit",
        context="TORCH_CHECK(result >= 0",
        note="at registration",
    ),
    bug(
        "a result of backward may have any name",
        "starts_with(gradient, kPrefix)",
        "true",
        f"{REGISTER} -k test_schemas_that_do_not_fit",
        note="at registration",
    ),
    bug(
        "a gradient of what is no argument",
        "argument >= 0",
        "true",
        f"{REGISTER} -k test_schemas_that_do_not_fit",
        context='TORCH_CHECK(argument >= 0, forward.name(), " has no argument "',
        note="at registration",
    ),
    bug(
        "a dtype is the tensor that has it",
        "kind == Kind::kDtype && value.isTensor()",
        "false",
        f"{LOG_SOFTMAX} -k 'test_values_and_gradient and 7x3'",
        note="at every call",
    ),
    bug(
        "no argument may be None",
        "optional != nullptr",
        "false",
        f"{REGISTER} -k test_optional_tensor",
        note="at registration",
    ),
    bug(
        "options may come before tensors",
        "std::is_partitioned(parameters.begin(), parameters.end(), is_tensor)",
        "true",
        f"{REGISTER} -k test_schemas_that_do_not_fit",
        note="at registration",
    ),
    bug(
        "backward need not take grad_output",
        '!backward_takes.empty() && backward_takes[0].name == "grad_output"',
        "true",
        f"{REGISTER} -k test_schemas_that_do_not_fit",
        note="at registration",
    ),
    bug(
        "the second gradient of backward is its first",
        "~static_cast<int>(i)",
        "~0",
        f"{REGISTER} -k test_derivatives",
        note="at registration",
    ),
    bug(
        "the second derivative in grad_output is left out",
        "depend_on_input.push_back(~0);",
        ";",
        f"{REGISTER} -k test_derivatives",
        note="at registration",
    ),
    bug(
        "that in the result is left out",
        "depend_on_input.push_back(static_cast<int>(forward_schema.arguments().size()));",
        ";",
        f"{REGISTER} -k test_derivatives",
        note="at registration",
    ),
    bug(
        "backward has one result",
        "backward_schema.returns().size()",
        "size_t(1)",
        f"{REGISTER} -k test_derivatives",
        note="at registration",
    ),
)

TRACEABLE = bugs_of(
    "csrc/python/traceable.cpp",
    bug(
        "traces get None",
        "if (result.isNone()) result = at::Tensor();",
        ";",
        f"{TRACING} -k 'test_trace and cross_entropy and sum'",
    ),
    bug(
        "the first result alone is looked at",
        "i < count",
        "i < 1",
        f"{TRACING} -k 'test_trace and cross_entropy and sum'",
    ),
)

MUTANTS: tuple[Planted, ...] = (
    *AUTOCAST_CPP,
    *BACKENDS,
    *BINARY,
    *BINARY_PROBLEM,
    *CHECKS,
    *CROSS_ENTROPY,
    *CROSS_ENTROPY_PROBLEM,
    *DTYPE,
    *LOG_SOFTMAX_CPP,
    *LOG_SOFTMAX_PROBLEM,
    *ROW_LAYOUT,
    *ROWS,
    *SCALE_GRADIENT,
    *SOFT_CPP,
    *SOFT_PROBLEM,
    *SOFTMAX_LOSS,
    *SOFTMAX_LOSS_H,
    *SOFTMAX_PROBLEM,
    *AUTOGRAD,
    *CALLS,
    *DIFFERENTIABLE_OP,
    *TRACEABLE,
)
