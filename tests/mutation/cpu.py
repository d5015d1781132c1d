"""One-line bugs to plant in the C++ files of csrc/losses and csrc/cpu, and the tests that have to find them.

Left out, since they have no logic, or none that a result shows: csrc/cpu/backend.h and drivers.cpp (tables of
functions), and memory.h (a hint to the system). dtypes.h has but two expressions that decide anything.

Spans of one file never overlap. Where `old` ends in a semicolon it is a statement, and so is `new`.

Of csrc/losses only what the CPU compiles: not ArgMax, hold_tournament, add_fought, SoftmaxSums::add, Log1pSum,
CrossEntropyGradient::at(x), what kBare chooses, or scalar words that only CUDA calls.
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

TINY = f"{VALUES} -k '7x3 and float32'"
BY_ROW = f"{VALUES} -k '33x100 and float32'"  # lanes are rows
BY_CLASS = f"{VALUES} -k '3x257 and float32'"  # lanes are classes, the last vector is part of one
BLOCKS = f"{VALUES} -k '2x4097 and float32'"  # by class, several blocks; a row is a chunk
MANY_ROWS = f"{VALUES} -k '9000x3 and float32'"  # several chunks of rows

# By row, of more classes than a tile has room for.
STRIDED_BLOCKS = f"{LAYOUTS} -k '(crop or transposed) and 300 and float32'"
NUMERICS = f"{SOFTMAX_TESTS}/test_numerics.py -m ''"
LONG_ROWS = f"{SOFTMAX_TESTS}/test_long_rows.py -m ''"
IMAGES = f"{SOFTMAX_TESTS}/test_images.py -m ''"
FOCAL_PEERS = f"{SOFTMAX_TESTS}/test_peers_focal.py -m ''"
PROPERTIES = f"{SOFTMAX_TESTS}/test_properties.py -m ''"
FEW_CLASSES = f"{SOFTMAX_TESTS}/test_few_classes.py -m ''"
CLASS_DIM = f"{SOFTMAX_TESTS}/test_class_dim.py -m ''"
ARRAYS = "tests/losses/test_covering_arrays.py -m ''"
LOG_SOFTMAX_TESTS = f"{SOFTMAX_TESTS}/test_log_softmax.py -m ''"
LOG_STRIDED_BLOCKS = f"{LOG_SOFTMAX_TESTS} -k 'test_layout and 300 and float32'"
SOFT_TESTS = f"{SOFTMAX_TESTS}/test_probability_targets.py -m ''"
SOFT_BY_ROW = f"{SOFT_TESTS} -k 'values_and_gradients and 33x100 and float32-float32'"
SOFT_BY_CLASS = f"{SOFT_TESTS} -k 'values_and_gradients and 3x257 and float32-float32'"
SOFT_BLOCKS = f"{SOFT_TESTS} -k 'values_and_gradients and 2x9000 and float32-float32'"
SOFT_MANY_ROWS = f"{SOFT_TESTS} -k 'values_and_gradients and 600x10 and float32-float32'"
SOFT_STRIDED_BLOCKS = f"{SOFT_TESTS} -k 'test_layout and 300 and float32'"
SOFT_STATS = f"{SOFT_TESTS} -k test_stats"
NAN_POLICY = "tests/losses/test_policy_of_nan.py -m ''"
NO_DEVICE = "--device none"  # tests that take none: --device cpu alone would leave them out
ERRORS = f"tests/losses/test_errors.py {NO_DEVICE} -m ''"
MAGNITUDES = "tests/autograd/test_magnitudes.py -m ''"

ELEMENT_EDGES = f"{SIGMOID_TESTS}/test_edges.py -m ''"
ELEMENT_NUMERICS = f"{SIGMOID_TESTS}/test_numerics.py -m ''"
BCE = f"{ELEMENTS} -k 'test_loss_and_gradients and binary_cross_entropy and 33x100 and float32'"
TILES = f"{ELEMENTS} -k 'test_loss_and_gradients and 2x1031'"
ELEMENT_CLASSES = f"{ELEMENTS} -k 'classes_are_one_hot and float32'"
BAD_CLASSES = f"{ELEMENT_EDGES} -k class_out_of_bounds"
LARGE = f"{ELEMENT_LAYOUTS} -k 'large_tensors_that_lie and float32 and (logits or focal)'"


REDUCTION = bugs_of(
    "csrc/losses/reduction.h",
    bug(
        "a given divisor is not used",
        "is_given ? given : counted",
        "counted",
        f"{OPTIONS} -k denominator_of_any_kind",
    ),
    bug(
        "a negative divisor is taken for nothing",
        "divisor == 0",
        "divisor <= 0",
        COMPANY,
    ),
    bug(
        "the mean over nothing is 0 though nobody asked",
        "zero_if_empty",
        "true",
        f"{OPTIONS} -k mean_over_nothing",
        context="divisor == 0 && zero_if_empty",
    ),
    bug(
        "nothing is divided by 1 and not by infinity",
        "INFINITY",
        "1.0f",
        f"{PEERS} -k no_weight_at_all",
        note="shows where smoothing leaves a loss of rows whose targets weigh nothing",
    ),
    bug("the loss of the last chunk alone", "loss += other.loss;", "loss = other.loss;", MANY_ROWS),
    bug("the weight of the last chunk alone", "weight += other.weight;", "weight = other.weight;", MANY_ROWS),
)

LOG_SOFTMAX_FORMULA = bugs_of(
    "csrc/losses/log_softmax.h",
    bug(
        "maximum and log sum added before they are subtracted",
        "(x - stats.max) - stats.log_sum",
        "x - (stats.max + stats.log_sum)",
        f"{LOG_SOFTMAX_TESTS} -k shifted_logits",
    ),
    bug("no class is likely", "T(-0.5)", "T(0)", f"{LOG_SOFTMAX_TESTS} -k confident_rows"),
    bug(
        "an infinite sum of gradients is taken for a finite one",
        "grad_sum - grad_sum == T(0)",
        "grad_sum == grad_sum",
        f"{LOG_SOFTMAX_TESTS} -k infinite_upstream",
    ),
    bug(
        "nothing times infinity",
        "product(exp(y), grad_sum_)",
        "exp(y) * grad_sum_",
        f"{LOG_SOFTMAX_TESTS} -k nothing_times_infinity",
    ),
    bug(
        "the wrong sign next to a certain class",
        "(grad - grad_sum_) - expm1(y) * grad_sum_",
        "(grad - grad_sum_) + expm1(y) * grad_sum_",
        f"{LOG_SOFTMAX_TESTS} -k confident_rows",
    ),
    bug(
        "likely classes are treated as others are",
        "if (!any(is_likely)) return result;",
        "return result;",
        f"{LOG_SOFTMAX_TESTS} -k confident_rows",
    ),
)

LOGITS = bugs_of(
    "csrc/losses/logits.h",
    bug(
        "a scale alone changes nothing",
        "scale != 1 || softcap > 0",
        "softcap > 0",
        f"{OPTIONS} -k 'test_loss_and_gradient and logit_scale and 33x100 and float32'",
    ),
    bug(
        "the scale is not divided by the cap",
        "capped ? options.scale / options.softcap : options.scale",
        "options.scale",
        f"{OPTIONS} -k 'test_loss_and_gradient and softcap and 33x100 and float32'",
    ),
    bug(
        "capped to 1 in place of the cap",
        "cap * tanh(scale * x)",
        "tanh(scale * x)",
        f"{OPTIONS} -k 'test_loss_and_gradient and softcap and 33x100 and float32'",
    ),
    bug(
        "a slope of uncapped logits without the scale",
        "if (!capped) return {scale * x, scale};",
        "if (!capped) return {scale * x, T(1)};",
        f"{OPTIONS} -k 'test_loss_and_gradient and logit_scale and 33x100 and float32'",
    ),
    bug(
        "e^-2y of a negative y",
        "T(-2) * abs(y)",
        "T(-2) * y",
        f"{OPTIONS} -k far_above_the_cap",
        note="the slope is even in y: shows only where e^-2y overflows",
    ),
    bug(
        "a slope of capped logits that is a quarter",
        "T(4) * (cap * scale)",
        "cap * scale",
        f"{OPTIONS} -k 'test_loss_and_gradient and softcap and 33x100 and float32'",
    ),
    bug(
        "no chain rule",
        "z.slope * grad_z",
        "grad_z",
        f"{OPTIONS} -k 'test_loss_and_gradient and logit_scale and 33x100 and float32'",
    ),
)

MATH = bugs_of(
    "csrc/losses/math.h",
    bug(
        "a weight of 0 hides NaN",
        "(weight == T(0)) & (x == x)",
        "(weight == T(0)) & (weight == weight)",
        f"{NAN_POLICY} -k 'rows_without_weight and float32'",
    ),
    bug(
        "nothing times infinity as a term",
        "where(weight == T(0), T(0), weight * x)",
        "weight * x",
        f"{VALUES} -k '3x257 and float32 and label_smoothing'",
    ),
    bug(
        "nothing times infinity added to a sum",
        "where(weight == T(0), sum, fma(weight, x, sum))",
        "fma(weight, x, sum)",
        f"{ELEMENT_NUMERICS} -k test_infinite_logits",
    ),
    bug(
        "infinity differs from itself",
        "where(a == b, T(0), a - b)",
        "a - b",
        f"{NUMERICS} -k masked_classes_do_not_count",
    ),
    bug(
        "no upper end of what is a probability",
        "minimum(maximum(x, T(0)), T(1))",
        "maximum(x, T(0))",
        f"{ERRORS} -k 'binary_cross_entropy and above'",
    ),
    bug("the wrong sign in log(1 + x)", "T(-0x1.19ad88p-3f)", "T(0x1.19ad88p-3f)", SIGMOID_FOCAL),
    bug("a wrong digit in -log(1 - x)", "T(0x1.55a3a8p-2f)", "T(0x1.56a3a8p-2f)", BCE),
    bug(
        "log(1 + x) by its sum",
        "::log1pf(x)",
        "::logf(1.0f + x)",
        f"{SOFT_TESTS} -k 'focal_loss_of_one_hot and 1000'",
        note="the scalar word: the statistics of single rows, by class",
    ),
    bug("the maximum of the first piece", "::fmaxf(a, b)", "a", f"{LONG_ROWS} -k test_losses"),
    bug("e^(x + y)", "return exp(x - y);", "return exp(x + y);", TINY),
)

SOFTMAX = bugs_of(
    "csrc/losses/softmax.h",
    bug(
        "a negative log likelihood that cancels",
        "(stats.max - x_target) + stats.log_sum",
        "(stats.max + stats.log_sum) - x_target",
        f"{NUMERICS} -k confident_rows",
    ),
    bug(
        "log-sum-exp without the maximum",
        "stats.max + stats.log_sum",
        "stats.log_sum",
        f"{OPTIONS} -k 'test_loss_and_gradient and z_loss and 33x100 and float32'",
    ),
    bug(
        "probabilities from the log-sum-exp",
        "exp_difference(x - stats.max, stats.log_sum)",
        "exp_difference(x, log_sum_exp(stats))",
        f"{NUMERICS} -k shifted_logits",
    ),
    bug("the winner is added up, too", "lesser(x, champion)", "x", TINY),
    bug("the last class is the champion", "champion = maximum(champion, x);", "champion = x;", TINY),
    bug("a champion that has lost is not counted", "exp_sum + times", "exp_sum", BY_CLASS),
    bug(
        "entropy that is not measured from the new maximum",
        "entropy_sum * factor + terms * term(factor, rise)",
        "entropy_sum * factor",
        f"{OPTIONS} -k 'test_stats and 3x257 and float32'",
    ),
    bug(
        "the weight at the old maximum is lost",
        "where(stays, weight_sum, weight_sum + tie_weight)",
        "weight_sum",
        SOFT_BY_CLASS,
    ),
    bug(
        "the weight at the old maximum is still at the maximum",
        "where(stays, tie_weight, T(0))",
        "tie_weight",
        SOFT_BY_CLASS,
    ),
    bug(
        "gaps that are not measured from the new maximum",
        "gap_sum + term(weight_sum, rise)",
        "gap_sum",
        f"{VALUES} -k '2x4097 and float32 and label_smoothing'",
    ),
    bug(
        "of sums from the maximum one is counted twice",
        "where(max == of_all, T(0), T(1))",
        "T(1)",
        BY_CLASS,
    ),
    bug(
        "measured from -inf",
        "where(max == T(-INFINITY), T(0), max)",
        "max",
        f"{NUMERICS} -k masked_classes_do_not_count",
    ),
    bug(
        "nothing times an infinite gap",
        "term(weight, pivot() - x)",
        "weight * (pivot() - x)",
        f"{NUMERICS} -k nothing_times_infinity",
    ),
    bug(
        "of two pieces with the same maximum one is not counted",
        "where(max == other.max, T(1), T(0))",
        "T(0)",
        f"{LONG_ROWS} -k test_stats",
    ),
    bug("the weight of ties of one part alone", "tie_weight + other.tie_weight", "tie_weight", SOFT_BY_CLASS),
    bug(
        "NaN among masked classes is not seen",
        "max + exp_sum",
        "max",
        f"{NAN_POLICY} -k rows_without_a_maximum",
    ),
    bug(
        "an infinite maximum is a number",
        "log1p(exp_sum) + (max - max)",
        "log1p(exp_sum)",
        f"{NUMERICS} -k infinities_as_torch",
    ),
    bug(
        "the entropy of nothing is infinite",
        "(max - max) + stats.log_sum",
        "stats.log_sum",
        f"{OPTIONS} -k stats_without_classes",
    ),
    bug(
        "entropy without the maximum's own share",
        "exp_sum + T(1)",
        "exp_sum",
        f"{OPTIONS} -k 'test_stats and 33x100 and float32'",
        context="entropy_sum / (exp_sum + T(1))",
    ),
)

CROSS_ENTROPY = bugs_of(
    "csrc/losses/cross_entropy.h",
    bug(
        "smoothing forgets the weight of the class",
        "(hard + soft) * probability(stats, z.value) - smoothing * weight",
        "(hard + soft) * probability(stats, z.value) - smoothing",
        f"{VALUES} -k '3x257 and float32 and label_smoothing'",
    ),
    bug(
        "p - 1 cancels",
        "hard * expm1(-negative_log_likelihood(stats, z.value))",
        "hard * (probability(stats, z.value) - T(1))",
        f"{NUMERICS} -k confident_rows",
    ),
    bug(
        "the target is not pulled by smoothing",
        "soft * probability(stats, z.value) - pull",
        "soft * probability(stats, z.value)",
        f"{VALUES} -k '3x257 and float32 and label_smoothing'",
    ),
    bug(
        "1 - p cancels in the focal factor",
        "log(-expm1(-nll))",
        "log(T(1) - exp(-nll))",
        f"{NUMERICS} -k 'confident_rows and focal'",
    ),
    bug(
        "the wrong sign",
        "-(scale * weight_target)",
        "scale * weight_target",
        f"{VALUES} -k 'nll and 7x3 and float32'",
    ),
    bug(
        "smoothing that is not shared by the classes",
        "options.label_smoothing / double(classes)",
        "options.label_smoothing",
        f"{VALUES} -k '7x3 and float32 and label_smoothing'",
    ),
    bug(
        "the spread without the log sum",
        "gap_sum + product(weight_sum, stats.log_sum)",
        "gap_sum",
        f"{VALUES} -k '7x3 and float32 and label_smoothing'",
    ),
    bug(
        "a factor of 0 times an infinite loss",
        "product(focus(nll, gamma), base)",
        "focus(nll, gamma) * base",
        f"{MAGNITUDES} -k factor_of_0",
    ),
    bug(
        "a z-loss of the log-sum-exp and not its square",
        "product(z_loss, lse * lse)",
        "product(z_loss, lse)",
        f"{OPTIONS} -k 'test_loss_and_gradient and z_loss and 33x100 and float32'",
    ),
    bug(
        "the gradient without confidence",
        "confidence * weight_target",
        "weight_target",
        f"{VALUES} -k '7x3 and float32 and label_smoothing'",
        context="T hard = confidence * weight_target;",
    ),
    bug(
        "a division by a 1 - p of 0",
        "maximum(-expm1(-nll), least_rest)",
        "-expm1(-nll)",
        f"{FOCAL_PEERS} -k 'saturated_logits and float32'",
    ),
    bug(
        "the gradient of a focal loss takes 0 times infinity",
        "product(f, base(row, nll, weight_target))",
        "f * base(row, nll, weight_target)",
        f"{MAGNITUDES} -k factor_of_0",
    ),
    bug(
        "smoothing is not focused",
        "factor = scale * f;",
        "factor = scale;",
        f"{OPTIONS} -k 'test_loss_and_gradient and smoothed and 33x100 and float32'",
    ),
    bug(
        "half of the gradient of the z-loss",
        "product(T(2) * z_loss, log_sum_exp(row.stats))",
        "product(z_loss, log_sum_exp(row.stats))",
        f"{OPTIONS} -k 'test_loss_and_gradient and z_loss and 33x100 and float32'",
    ),
    bug(
        "the target's own pull without its weight",
        "each * weight_target",
        "each",
        f"{VALUES} -k '3x257 and float32 and label_smoothing'",
    ),
    bug(
        "a target of no weight times infinity",
        "product(confidence * weight_target, nll)",
        "confidence * weight_target * nll",
        f"{NUMERICS} -k nothing_times_infinity",
    ),
)

SOFT_CROSS_ENTROPY = bugs_of(
    "csrc/losses/soft_cross_entropy.h",
    bug("mass without that at the maximum", "mass_below + mass_at_max", "mass_below", SOFT_BY_ROW),
    bug(
        "the gradient of a certain class cancels",
        "where(z.value == sure_max, at_max, elsewhere)",
        "elsewhere",
        f"{SOFT_TESTS} -k 'one_hot_probabilities and 40'",
    ),
    bug(
        "nothing times an infinite cost",
        "product(target_factor * weight, cost)",
        "target_factor * weight * cost",
        f"{SOFT_TESTS} -k 'nothing_times_infinity and float32'",
    ),
    bug(
        "smoothing is not weighted",
        "(confidence * q + smoothing) * weight",
        "confidence * q * weight + smoothing",
        SOFT_BY_ROW,
    ),
    bug("focal costs that are those of cross entropy", "focus(nll, gamma) * nll", "nll", SOFT_BY_ROW),
    bug(
        "a division by a 1 - p of 0",
        "maximum(-expm1(-nll), least_rest)",
        "-expm1(-nll)",
        f"{SOFT_TESTS} -k focal_loss_with_impossible",
    ),
    bug(
        "the focal factor has no slope",
        "T(1) + gamma * product(exp(-nll), nll / rest)",
        "T(1)",
        SOFT_BY_ROW,
    ),
    bug(
        "a row without classes is NaN",
        "has_classes ? row.stats.max - row.stats.max : T(0)",
        "row.stats.max - row.stats.max",
        f"{SOFT_TESTS} -k test_no_classes",
    ),
    bug("a z-loss of the log-sum-exp and not its square", "lse * lse", "lse", SOFT_BY_ROW),
    bug(
        "p - 1 cancels at the maximum",
        "row.mass() * expm1(-nll)",
        "row.mass() * (exp(-nll) - T(1))",
        f"{SOFT_TESTS} -k 'one_hot_probabilities and 40'",
    ),
    bug(
        "the z-loss pulls the maximum as if it were certain",
        "z_pull(row) * exp(-nll)",
        "z_pull(row)",
        f"{SOFT_TESTS} -k 'values_and_gradients and 7x3 and float64'",
    ),
    bug(
        "two classes that tie are taken for one that is certain",
        "row.stats.log_sum < T(0.5)",
        "row.stats.log_sum < T(0.75)",
        COMPANY,
    ),
    bug(
        "an impossible class times no mass",
        "product(mass, formula.template cost<true>(nll))",
        "mass * formula.template cost<true>(nll)",
        f"{SOFT_TESTS} -k focal_loss_with_impossible",
    ),
    bug(
        "the mass at the maximum is below it, too",
        "add_where(!is_max, mass_below, pull)",
        "mass_below + pull",
        SOFT_BY_ROW,
    ),
    bug("the mass at the maximum of one part alone", "mass_at_max + other.mass_at_max", "mass_at_max", SOFT_BY_ROW),
)

ASYMMETRIC_LOSS = bugs_of(
    "csrc/losses/asymmetric_loss.h",
    bug(
        "a power above those that have coefficients",
        "gamma <= kLargestWholePower && gamma == int(gamma)",
        "gamma == int(gamma)",
        f"{ELEMENT_NUMERICS} -k 'asymmetric_loss_of_any_logit and float32 and 5.0'",
    ),
    bug(
        "a whole power by the wrong scheme",
        "coefficients_[k] + q * power",
        "coefficients_[k] * q + power",
        ASYMMETRIC,
    ),
    bug(
        "a margin that is no normal number",
        "options.margin >= least",
        "options.margin > 0",
        COMPANY,
    ),
    bug(
        "the logit of the margin by a sum",
        "std::log(margin) - std::log1p(-margin)",
        "std::log(margin) + std::log1p(-margin)",
        f"{ELEMENT_NUMERICS} -k at_its_margin",
    ),
    bug(
        "the edge in one number",
        "edge - Scalar(edge)",
        "edge - edge",
        f"{ELEMENT_NUMERICS} -k 'next_to_its_margin and float32'",
    ),
    bug("the margin does not scale p", "1 - options.margin", "1.0", ASYMMETRIC),
    bug(
        "negatives below the margin",
        "where(above < T(0), T(0), -above)",
        "-above",
        f"{ELEMENT_NUMERICS} -k at_its_margin",
    ),
    bug("1 - p_m without the margin", "rest + margin_", "rest", ASYMMETRIC),
    bug("-log(1 - p) above where its polynomial holds", "p_m < T(0.5)", "p_m < T(0.9)", ASYMMETRIC),
    bug("the slope of a miss without its divisor", "p * rest / rest_m", "p * rest", ASYMMETRIC),
    bug(
        "0 / 0 below the margin",
        "maximum(p_m, least_)",
        "p_m",
        f"{ELEMENT_NUMERICS} -k at_its_margin",
    ),
    bug(
        "a slope below the margin",
        "where(p_m == T(0), T(0), slope)",
        "slope",
        f"{ELEMENT_NUMERICS} -k at_its_margin",
        note="with gamma 0, where no power takes it away",
    ),
    bug(
        "0 times an infinite miss in the gradient",
        "product(p, prediction.misses().pos)",
        "p * prediction.misses().pos",
        f"{ELEMENT_NUMERICS} -k asymmetric_loss_of_infinite_logits",
    ),
    bug(
        "the gradient in a target adds what the negative costs",
        "product(target.pos_weight, cost.pos) - product(neg_weight_, cost.neg)",
        "product(target.pos_weight, cost.pos) + product(neg_weight_, cost.neg)",
        ASYMMETRIC,
    ),
    bug(
        "0 times an infinite miss",
        "product(part.neg, cost.neg)",
        "part.neg * cost.neg",
        f"{ELEMENT_NUMERICS} -k asymmetric_loss_of_infinite_logits",
    ),
)

BINARY_CROSS_ENTROPY = bugs_of(
    "csrc/losses/binary_cross_entropy.h",
    bug(
        "a power that has no coefficients",
        "options.gamma == 2",
        "options.gamma == 3",
        f"{SIGMOID_TESTS}/test_peers.py -m '' -k 'fraction_of_cross_entropy and 3.0 and float32'",
    ),
    bug("p and 1 - p swapped", "where(is_pos_, T(1), odds_)", "where(is_pos_, odds_, T(1))", ASYMMETRIC),
    bug(
        "an expectation of one side",
        "where(is_pos_, neg, pos)",
        "where(is_pos_, pos, neg)",
        SIGMOID_FOCAL,
    ),
    bug("p (1 - p) with a factor missing", "likely_ * (odds_ * likely_)", "odds_ * likely_", SIGMOID_FOCAL),
    bug("the miss of the unlikely class without its small part", "distance_ + of_likely", "distance_", ASYMMETRIC),
    bug(
        "the weight of an excess is forgotten",
        "weight * where(is_pos_, parts.neg, parts.pos)",
        "where(is_pos_, parts.neg, parts.pos)",
        SIGMOID_FOCAL,
    ),
    bug(
        "logarithms of probabilities have no bound",
        "maximum(log_unit(unlikely_), T(-100))",
        "log_unit(unlikely_)",
        f"{ELEMENT_NUMERICS} -k probabilities_of_0_and_1",
    ),
    bug(
        "the smoothing is not halved",
        "options.label_smoothing / 2",
        "options.label_smoothing",
        BCE,
        context="targets.smoothing_ = T(Scalar(options.label_smoothing / 2));",
    ),
    bug(
        "the negative side of a derivative in pos_weight",
        "options.neg_weight * (1 - options.label_smoothing / 2)",
        "1 - options.label_smoothing / 2",
        WEIGHTS,
    ),
    bug(
        "an alpha of 0 is none",
        "alpha < T(0)",
        "!(T(0) < alpha)",
        f"{SIGMOID_TESTS}/test_peers.py -m '' -k 'alpha_of_0_or_1 and float32'",
    ),
    bug(
        "what is below 0, or NaN, is a probability",
        "saturate(x) == x",
        "!(saturate(x) < x)",
        f"{ERRORS} -k 'binary_cross_entropy and (below or NaN)'",
    ),
    bug(
        "the gradient of certain probabilities is infinite",
        "maximum(x * (T(1) - x), T(1e-12))",
        "x * (T(1) - x)",
        f"{ELEMENT_NUMERICS} -k probabilities_of_0_and_1",
    ),
    bug(
        "the gradient in what is no probability is a number",
        "where(is_probability(x), grad, T(NAN))",
        "grad",
        COMPANY,
    ),
    bug(
        "the power of a q that is no number",
        "exp(gamma_ * prediction.log_odds())",
        "T(0)",
        f"{ELEMENT_NUMERICS} -k focal_gradients_keep",
    ),
    bug(
        "0 / 0 where q is 0",
        "maximum(q, least_lack_)",
        "q",
        f"{ELEMENT_NUMERICS} -k 'focal_loss_of_any_logit and float32'",
    ),
    bug("half of the slope of q", "(T(1) - t) - t", "T(1) - t", SIGMOID_FOCAL),
    bug(
        "the balance has all of the negative alpha",
        "target.alphas.neg * (T(1) - t)",
        "target.alphas.neg",
        SIGMOID_FOCAL,
    ),
    bug(
        "what both classes cost as if its parts were 1",
        "weight * (part.pos + part.neg)",
        "weight",
        f"{ELEMENTS} -k 'test_loss_and_gradients and with_logits and 33x100 and float32'",
    ),
)

BINARY_DRIVER = bugs_of(
    "csrc/cpu/binary_cross_entropy.cpp",
    bug(
        "the last tile of a chunk is left out",
        "chunk.first + chunk.rows",
        "chunk.first + chunk.rows - 1",
        TILES,
    ),
    bug(
        "a weight is forgotten",
        "loaded.scale(e, formula.loss(e.x, e.target))",
        "formula.loss(e.x, e.target)",
        WEIGHTS,
    ),
    bug(
        "lanes behind the last element are added",
        "value.keep_first(m)",
        "value",
        f"{ELEMENTS} -k 'test_loss_and_gradients and 5x3'",
    ),
    bug(
        "lanes behind the last element are counted",
        "loaded.unless_ignored(e, V(A(1))).keep_first(m)",
        "loaded.unless_ignored(e, V(A(1)))",
        f"{ELEMENTS} -k test_ignored_elements",
    ),
    bug(
        "targets that are no probabilities",
        "is_probability(e.x) & is_probability(e.target.value)",
        "is_probability(e.x)",
        f"{ERRORS} -k 'binary_cross_entropy and target'",
    ),
    bug(
        "ignored elements have to be probabilities",
        "loaded.unless_ignored(e, where(is_good, V(A(0)), V(A(1))))",
        "where(is_good, V(A(0)), V(A(1)))",
        f"{ELEMENTS} -k 'test_ignored_elements and binary_cross_entropy'",
    ),
    bug("the first sum of a tile again and again", "begin + i", "i", TILES, context="add(begin + i, m, part)"),
    bug("the last sum of a tile alone", "sum = sum + part;", "sum = part;", TILES),
    bug(
        "ignored elements are counted",
        "double(count.sum())",
        "double(tile.n)",
        f"{ELEMENTS} -k test_ignored_elements",
    ),
    bug(
        "classes out of bounds are not seen",
        "!loaded.all_good",
        "false",
        BAD_CLASSES,
        context="if (!loaded.all_good || bad.sum() != A(0))",
    ),
    bug(
        "bad probabilities are not seen",
        "bad.sum() != A(0)",
        "false",
        f"{ERRORS} -k 'binary_cross_entropy and (above or below)'",
    ),
    bug(
        "losses do not go where they belong",
        "if (is_none) losses.store(tile);",
        ";",
        f"{ELEMENTS} -k 'test_loss_and_gradients and 33x100 and bfloat16'",
    ),
    bug(
        "the backward pass does not look for bad classes",
        "if (!loaded.all_good) all_good = false;",
        ";",
        BAD_CLASSES,
    ),
    bug("gradients without their factor", "loaded.scale(e, derivative(e))", "derivative(e)", BCE),
)

BINARY_ELEMENTS = bugs_of(
    "csrc/cpu/binary_elements.h",
    bug("a constant divisor multiplies", "constant_ / number", "constant_ * number", BCE),
    bug(
        "what is constant is lost where something is not",
        "std::fill_n(factors, tile.n, constant_);",
        "std::fill_n(factors, tile.n, A(1));",
        WEIGHTS,
    ),
    bug(
        "a divisor of its own for every sample multiplies",
        "factor / number",
        "product(number, factor)",
        f"{ELEMENT_EDGES} -k 'vmap_over_any_arguments and mean and logits'",
    ),
    bug(
        "int32 is compared as float32",
        "type == NumberType::kInt32 || type == NumberType::kInt64",
        "type == NumberType::kInt64",
        f"{ELEMENTS} -k ignored_integers",
    ),
    bug(
        "no integer is ignored",
        "integers[i] == p_.ignore_index ? ignored : A(integers[i])",
        "A(integers[i])",
        f"{ELEMENTS} -k test_ignored_elements",
    ),
    bug(
        "class 0 is ignored where nothing is",
        "p_.has_ignored && *classes == p_.ignore_index",
        "*classes == p_.ignore_index",
        ELEMENT_CLASSES,
    ),
    bug("negative classes", "*classes >= 0", "true", BAD_CLASSES),
    bug("no background", "*classes <= p_.classes", "*classes < p_.classes", ELEMENT_CLASSES),
    bug("the last class alone is looked at", "all_good && is_good", "is_good", BAD_CLASSES),
    bug(
        "every element of no class is ignored",
        "if (p.target_is_class) return A(-1);",
        "if (p.target_is_class) return A(0);",
        ELEMENT_CLASSES,
    ),
    bug(
        "integers are marked by a number that float32 rounds",
        "is_wide(p.target.type) ? A(0.5) : A(p.ignore_index)",
        "A(p.ignore_index)",
        f"{ELEMENTS} -k ignored_integers",
    ),
    bug(
        "missing targets are marked by a number that a target may be",
        "-std::numeric_limits<A>::infinity()",
        "A(-1)",
        COMPANY,
    ),
    bug(
        "ignored elements are not",
        "where(element.target.value == ignored, V(A(0)), value)",
        "value",
        f"{ELEMENTS} -k test_ignored_elements",
    ),
    bug("a constant factor is forgotten", "element.factor * value", "value", BCE),
    bug(
        "a weight of 0 times an infinite loss",
        "product(element.factor, value)",
        "element.factor * value",
        f"{ELEMENT_NUMERICS} -k test_infinite_logits",
    ),
    bug(
        "alpha is forgotten where something else is not constant",
        "std::fill_n(alpha_.values(), tile_elements, A(p.options.alpha));",
        "std::fill_n(alpha_.values(), tile_elements, A(-1));",
        WEIGHTS,
    ),
    bug("one pos_weight for all is forgotten", "V(pos_weight_of_all_)", "V(A(1))", WEIGHTS),
    bug(
        "a target of -inf is missing",
        "where(t == mark, unmarked, t)",
        "t",
        f"{ELEMENTS} -k ignored_numbers_and_nan",
    ),
    bug(
        "either the number or NaN is ignored",
        "p_.has_ignored ? ignored_ : A(NAN)",
        "A(NAN)",
        f"{ELEMENTS} -k ignored_numbers_and_nan",
    ),
    bug(
        "a factor of 0 for all is one as others",
        "factors.constant() != A(0)",
        "true",
        f"{NAN_POLICY} -k one_weight_of_0",
    ),
)

CHUNKS = bugs_of(
    "csrc/cpu/chunks.h",
    bug(
        "no groups at all are divided by",
        "groups > 0 ? rows / groups : 0",
        "rows / groups",
        COMPANY,
        note="a crash",
    ),
    bug(
        "the last chunk of a group, if it is smaller",
        "(group_rows + chunk_rows - 1) / chunk_rows",
        "group_rows / chunk_rows",
        MANY_ROWS,
    ),
    bug(
        "every chunk begins where its group does",
        "index % groups * group_rows + start",
        "index % groups * group_rows",
        MANY_ROWS,
    ),
    bug(
        "the last chunk of a thread's share",
        "f(i, (*this)[i]);",
        "if (i + 1 < end) f(i, (*this)[i]);",
        MANY_ROWS,
    ),
    bug(
        "the last piece of a row, if it is smaller",
        "(total + size - 1) / size",
        "total / size",
        f"{LONG_ROWS} -k '70001 and test_losses'",
        note="may crash: rows that are shorter than a piece have none",
    ),
    bug(
        "the sums of the last piece are left out",
        "add(result, parts[i]);",
        "if (i + 1 < count) add(result, parts[i]);",
        f"{LONG_ROWS} -k test_losses",
    ),
    bug(
        "the bad row that is found first and not the lowest",
        "seen < 0 || row < seen",
        "seen < 0",
        f"{ERRORS} -k names_the_first_row",
    ),
    bug(
        "a run that begins within a dimension goes too far",
        "inner - first % inner",
        "inner",
        STRIDED_BLOCKS,
        note=("takes chunks that begin within the last dimension of rows: (3, 300, 5, 6), cropped, 64 rows a chunk"),
    ),
    bug(
        "upstream gradients as if they were contiguous",
        "static_cast<A>(values[i * stride])",
        "static_cast<A>(values[i])",
        f"{LAYOUTS} -k upstream",
    ),
    bug("every run of rows is read to the same place", "out += n;", ";", f"{LAYOUTS} -k upstream"),
)

CROSS_ENTROPY_DRIVER = bugs_of(
    "csrc/cpu/cross_entropy.cpp",
    bug(
        "every chunk saves its rows where the first does",
        "saved ? saved + chunk.first : nullptr",
        "saved",
        MANY_ROWS,
    ),
    bug(
        "every chunk has saved the rows of the first",
        "static_cast<const SavedRow<A>*>(p.saved) + chunk.first",
        "static_cast<const SavedRow<A>*>(p.saved)",
        MANY_ROWS,
    ),
    bug(
        "the divisor without sample weights",
        "targets.sample_weight[r] * targets.weight[r]",
        "targets.weight[r]",
        f"{OPTIONS} -k 'test_gradient_in_forward and mean and 33x100'",
    ),
    bug(
        "bad rows are passed over",
        "if (bad_row != kNoBadRow) return bad_row;",
        ";",
        f"{IMAGES} -k 'test_bad_targets and forward and float32 and 24'",
    ),
    bug(
        "gradients before their divisor",
        "reduce_groups<A>(p.forward, chunks, totals);",
        ";",
        f"{OPTIONS} -k 'test_gradient_in_forward and mean and 33x100'",
        context="reduce_groups<A>(p.forward, chunks, totals);  // gradients need the divisor first",
    ),
    bug(
        "the losses are not reduced",
        "reduce_groups<A>(p.forward, chunks, totals);",
        ";",
        f"{OPTIONS} -k 'test_gradient_in_forward and mean and 33x100'",
        context="  });\n  reduce_groups<A>(p.forward, chunks, totals);\n  return kNoBadRow;",
    ),
    bug(
        "gradients of logits that do not change",
        "p.options.logits.change() ? backward<A, true>(p) : backward<A, false>(p)",
        "backward<A, false>(p)",
        f"{OPTIONS} -k 'test_loss_and_gradient and softcap and 33x100 and float32'",
    ),
)

CROSS_ENTROPY_BACKWARD = bugs_of(
    "csrc/cpu/cross_entropy_backward.h",
    bug(
        "the target's pull in place of the smoothing",
        "read<T>(smoothing + r)",
        "read<T>(pull + r)",
        f"{VALUES} -k '3x257 and float32 and label_smoothing'",
    ),
    bug(
        "target logits that are not picked",
        "tile.pick(targets.target, chunk.rows, target_values);",
        ";",
        f"{OPTIONS} -k 'test_loss_and_gradient and focal and 7x5 and float32'",
    ),
    bug("spreads are lost", "spread[r] = row.spread;", "spread[r] = A(0);", f"{OPTIONS} -k 'smoothed and 33x100'"),
    bug(
        "the focal factor of a logit that is not changed",
        "logits(x_target)",
        "x_target",
        f"{OPTIONS} -k 'test_loss_and_gradient and all and 33x100 and float32'",
    ),
    bug("gradients of all chunks over the first", "grad.row(chunk.first + r)", "grad.row(r)", BLOCKS),
    bug(
        "the last class of an ignored row",
        "std::fill(grad_x, grad_x + p_.classes, S(0));",
        "std::fill(grad_x, grad_x + p_.classes - 1, S(0));",
        f"{EDGES} -k 'ignored_rows_are_not_read and 300'",
    ),
    bug(
        "the target's gradient as of any class",
        "grad_x[targets.target[r]] = static_cast<S>(grad_target[r]);",
        ";",
        BY_CLASS,
    ),
    bug(
        "smoothing forgets the weights of classes",
        "static_cast<const A*>(p_.weight)",
        "nullptr",
        f"{VALUES} -k '3x257 and float32 and label_smoothing'",
    ),
)

CROSS_ENTROPY_FORWARD = bugs_of(
    "csrc/cpu/cross_entropy_forward.h",
    bug(
        "the largest classes of all chunks over the first",
        "p_.argmax + chunk.first",
        "p_.argmax",
        f"{OPTIONS} -k 'test_stats and 3x4097 and float32'",
    ),
    bug(
        "target logits that are not changed",
        "change(z_target, chunk.rows);",
        ";",
        f"{OPTIONS} -k 'test_loss_and_gradient and softcap and 33x100 and float32'",
    ),
    bug(
        "no report of ignored rows",
        "!has_target && (!p_.report || r >= chunk.rows)",
        "!has_target",
        f"{OPTIONS} -k 'test_stats and 3x257 and float32'",
    ),
    bug(
        "the largest class of every row in one place",
        "p_.report ? argmax + r : nullptr",
        "p_.report ? argmax : nullptr",
        f"{OPTIONS} -k 'test_stats and 3x257 and float32'",
    ),
    bug(
        "a sample weight of 0 times an infinite loss",
        "product(sample_weight, loss_.loss(row, z_target, weight))",
        "sample_weight * loss_.loss(row, z_target, weight)",
        f"{PROPERTIES} -k a_sample_weight_of_zero",
    ),
    bug("every vector of rows is saved where the first is", "saved + r", "saved", BY_ROW),
    bug(
        "ignored rows have a log-probability",
        "if (targets.target[r + i] == kNoTarget) report[i].target_log_prob = A(0);",
        ";",
        f"{OPTIONS} -k 'test_stats and 33x100 and float32'",
    ),
    bug(
        "the divisor without sample weights",
        "sample_weight * weight",
        "weight",
        f"{OPTIONS} -k 'test_loss_and_gradient and mean and 33x100 and float32'",
    ),
)

CROSS_ENTROPY_ROWS = bugs_of(
    "csrc/cpu/cross_entropy_rows.h",
    bug(
        "the sum of weights without the last",
        "std::accumulate(weight, weight + p.classes, 0.0)",
        "std::accumulate(weight, weight + p.classes - 1, 0.0)",
        f"{VALUES} -k '7x3 and float32 and label_smoothing'",
    ),
    bug(
        "negative targets are below the number of classes",
        "uint64_t(y[r]) < classes",
        "int64_t(y[r]) < p.classes",
        f"{EDGES} -k target_out_of_bounds",
        note="-1 is then taken for ignored",
    ),
    bug(
        "a class cannot be ignored",
        "y[r] | is_none | is_ignored",
        "y[r] | is_none",
        f"{VALUES} -k '7x3 and float32 and ignore_index'",
    ),
    bug(
        "a row whose class is ignored counts as one with a target",
        "any_without |= is_none | is_ignored;",
        "any_without |= is_none;",
        COMPANY,
    ),
    bug("ignored targets out of bounds are bad", "is_none & ~is_ignored", "is_none", TINY),
    bug(
        "the number of a bad row in its chunk",
        "chunk.first + find_bad(p, y)",
        "find_bad(p, y)",
        f"{ERRORS} -k 'names_the_first_row and 5'",
    ),
    bug(
        "an ignored row is blamed",
        "y[r] == p.ignore_index || uint64_t(y[r]) < uint64_t(p.classes)",
        "uint64_t(y[r]) < uint64_t(p.classes)",
        f"{IMAGES} -k 'test_bad_targets and forward and float32 and 24'",
    ),
    bug(
        "target logits as if classes were contiguous",
        "(target[i] == kNoTarget ? 0 : target[i]) * m.class_stride",
        "(target[i] == kNoTarget ? 0 : target[i])",
        f"{LAYOUTS} -k 'nll and transposed and float32'",
    ),
    bug(
        "every run of rows has the targets of the first",
        "target += n;",
        ";",
        f"{LAYOUTS} -k 'nll and crop and float32'",
    ),
    bug("row 0 is never bad", "targets.first_bad >= 0", "targets.first_bad > 0", f"{ERRORS} -k 'one and row'"),
)

DTYPES = bugs_of(
    "csrc/cpu/dtypes.h",
    bug("float32 in float64 and the other way round", "dtype == DType::kFloat64", "dtype != DType::kFloat64", TINY),
    bug("no type is the right one", "f(numbers...);", ";", TINY),
)

ELEMENT_TILES = bugs_of(
    "csrc/cpu/elements.h",
    bug(
        "every tile is the first",
        "data + tile.offset(strides)",
        "data",
        TILES,
        context="const auto* numbers = data + tile.offset(strides);",
    ),
    bug(
        "blocks as if they were alone in memory",
        "tile.stride(strides)",
        "tile.columns",
        LARGE,
        context="data + tile.offset(strides), tile.stride(strides), tile.columns,",
    ),
    bug(
        "runs as if they were contiguous",
        "tile.stride(strides)",
        "int64_t(1)",
        WEIGHTS,
        context="copy_run(values, 1, data + offset, tile.stride(strides), count);",
    ),
    bug(
        "every run is read to the same place",
        "values += count;",
        ";",
        WEIGHTS,
        context="copy_run(values, 1, data + offset, tile.stride(strides), count);\n          values += count;",
    ),
    bug(
        "every tile of half results goes to the first",
        "data + tile.offset(strides_)",
        "data",
        TILES,
        context="copy_run(data + tile.offset(strides_), 1, values_, 1, tile.n);",
    ),
    bug(
        "results as if they were contiguous",
        "tile.stride(strides_)",
        "int64_t(1)",
        f"{ELEMENT_LAYOUTS} -k 'transposed and float32 and logits'",
        context="copy_run(data + offset, tile.stride(strides_), values, 1, count);",
        note="the gradient in a target that lies otherwise than the input",
    ),
    bug(
        "every run is written from the same place",
        "values += count;",
        ";",
        f"{ELEMENT_LAYOUTS} -k 'transposed and float32 and logits'",
        context="copy_run(data + offset, tile.stride(strides_), values, 1, count);\n          values += count;",
    ),
)


LANE_MASK = (
    *bugs_of(
        "csrc/cpu/lane_mask.h",
        bug(
            "NaN equals itself",
            "compare<_CMP_EQ_OQ>(a, b)",
            "compare<_CMP_EQ_UQ>(a, b)",
            f"{ERRORS} -k 'binary_cross_entropy and NaN'",
        ),
        bug("less or equal", "compare<_CMP_LT_OQ>(a, b)", "compare<_CMP_LE_OQ>(a, b)", BY_CLASS),
        bug("the other of the two", "_mm512_mask_blend_ps(bits, b, a)", "_mm512_mask_blend_ps(bits, a, b)", TINY),
        bug(
            "other lanes are not the sum",
            "_mm512_mask_add_pd(sum, bits, sum, x)",
            "_mm512_mask_add_pd(x, bits, sum, x)",
            f"{SOFT_TESTS} -k 'values_and_gradients and 33x100 and float64'",
        ),
        bug("not is nothing", "static_cast<Bits>(~mask.bits)", "mask.bits", SOFT_BY_ROW),
        bug("or for and", "static_cast<Bits>(a.bits & b.bits)", "static_cast<Bits>(a.bits | b.bits)", TINY),
        bug(
            "all for any",
            "mask.bits != 0",
            "mask.bits == static_cast<Bits>(-1)",
            f"{OPTIONS} -k argmax_is_the_first",
        ),
        isa="avx512",
    ),
    *bugs_of(
        "csrc/cpu/lane_mask.h",
        bug("less or equal, without AVX-512", "a < b", "a <= b", BY_CLASS),
        bug("other lanes are added, too, without AVX-512", "sum + (bits & x)", "sum + x", SOFT_BY_ROW),
        bug(
            "not is nothing, without AVX-512",
            "mask.bits ^ (Vec(T(0)) == Vec(T(0)))",
            "mask.bits",
            SOFT_BY_ROW,
        ),
        bug(
            "all for any, without AVX-512",
            "mask.bits.zero_mask() != (1 << Vec::size()) - 1",
            "mask.bits.zero_mask() == 0",
            f"{OPTIONS} -k argmax_is_the_first",
        ),
        isa="avx2",
    ),
)

LANES = bugs_of(
    "csrc/cpu/lanes.h",
    bug(
        "lanes behind the last class have a weight",
        "where(iota() < Lanes(T(n)), Lanes(value), Lanes())",
        "Lanes(value)",
        f"{VALUES} -k '3x257 and float32 and label_smoothing'",
    ),
    bug(
        "a lane too many is kept",
        "where(iota() < Lanes(T(n)), *this, Lanes())",
        "where(iota() < Lanes(T(n + 1)), *this, Lanes())",
        f"{ELEMENTS} -k 'test_loss_and_gradients and 5x3'",
    ),
    bug(
        "zeros behind the last number in place of the fill",
        "where(iota() < Lanes(T(n)), Lanes(Vec::loadu(p, n)), fills)",
        "Lanes(Vec::loadu(p, n))",
        BY_CLASS,
    ),
    bug("the other half of a vector", "Lanes(low)", "Lanes(high)", f"{VALUES} -k '3x257 and bfloat16'"),
    bug("the least of the lanes", "at::vec::clamp_min(a, b)", "at::vec::clamp_max(a, b)", f"{LONG_ROWS} -k test_stats"),
    bug(
        "the lesser of NaN and a number is the number",
        "minimum(x, y)",
        "minimum(y, x)",
        f"{NUMERICS} -k infinities_as_torch",
    ),
    bug("no part of a vector", "if (i < count) f(i, count - i);", ";", BY_CLASS),
    bug(
        "a stride is not looked at",
        "to_stride == 1 && from_stride == 1",
        "to_stride == 1",
        WEIGHTS,
    ),
    bug(
        "the rest is not scaled as the number is",
        "rest * cast<float>((Int(127) - n) << Int(23))",
        "rest",
        COMPANY,
    ),
    bug(
        "the logarithm of a subnormal number without what scales it",
        "where(is_tiny, result - V(0x1.154246p4f), result)",
        "result",
        COMPANY,
    ),
    bug(
        "log(1 + x) by its sum",
        "minimum(x, V(1.0f)) - (sum - maximum(x, V(1.0f)))",
        "V(0.0f)",
        f"{NUMERICS} -k confident_rows",
    ),
    bug("e^x below its range", "at::vec::clamp_min(x.vec, lowest)", "x.vec", f"{NUMERICS} -k wide_logits"),
    bug("a wrong digit in e^x", "Vec(0x1.fffdc4p-2f)", "Vec(0x1.ffedc4p-2f)", f"{VALUES} -k '2x9000 and float32'"),
    bug(
        "e^x - 1 far from where its polynomial holds",
        "Lanes<float>(-0.5f) < x",
        "Lanes<float>(-5.0f) < x",
        f"{OPTIONS} -k 'test_loss_and_gradient and focal and 33x100 and float32'",
    ),
)

LOG_SOFTMAX_DRIVER = bugs_of(
    "csrc/cpu/log_softmax.cpp",
    bug(
        "the rows of every chunk are those of the first",
        "matrix.row(chunk.first + r)",
        "matrix.row(r)",
        f"{LOG_SOFTMAX_TESTS} -k 'values_and_gradient and 40x256'",
    ),
    bug(
        "every piece is read from the beginning",
        "x + begin",
        "x",
        f"{LONG_ROWS} -k test_log_softmax",
        context="const S* from = x + begin;",
    ),
    bug(
        "every block of classes is read from the first",
        "tile.load(x_, chunk, begin, n);",
        "tile.load(x_, chunk, 0, n);",
        LOG_STRIDED_BLOCKS,
    ),
    bug(
        "every block of classes is written over the first",
        "tile.store(y_, chunk, begin, n);",
        "tile.store(y_, chunk, 0, n);",
        LOG_STRIDED_BLOCKS,
    ),
    bug(
        "the sum of the first block of gradients again and again",
        "grad_y + begin + i",
        "grad_y + first + i",
        f"{LOG_SOFTMAX_TESTS} -k 'values_and_gradient and 2x4097'",
    ),
    bug("the sum of the last piece alone", "sum += next;", "sum = next;", f"{LONG_ROWS} -k test_log_softmax"),
    bug(
        "the output of every piece is that of the first",
        "y + begin",
        "y",
        f"{LONG_ROWS} -k test_log_softmax",
        context="*outputs = y + begin;",
    ),
    bug(
        "the sum of the last block alone",
        "V::load(grad_sum + r) + sum",
        "sum",
        LOG_STRIDED_BLOCKS,
    ),
    bug(
        "gradients are not read again",
        "grad_tile.load(grad_y_, chunk, begin, n);",
        ";",
        LOG_STRIDED_BLOCKS,
        context="grad_tile.load(grad_y_, chunk, begin, n);\n      tile.load(y_, chunk, begin, n);",
    ),
)

NLL = bugs_of(
    "csrc/cpu/nll_loss.h",
    bug(
        "rows with gaps between are one run of zeros",
        "row_stride == classes",
        "row_stride >= classes",
        COMPANY,
    ),
    bug(
        "the last row of a run is not zeroed",
        "std::fill(p + c * class_stride, p + c * class_stride + rows, S(0));",
        "std::fill(p + c * class_stride, p + c * class_stride + rows - 1, S(0));",
        f"{LAYOUTS} -k 'nll and transposed and float32'",
    ),
    bug(
        "zeros as if classes were contiguous",
        "p[r * row_stride + c * class_stride] = S(0);",
        "p[r * row_stride + c] = S(0);",
        f"{LAYOUTS} -k 'nll and float32 and width'",
    ),
    bug(
        "a sample weight is forgotten",
        "product(sample_weight, nll_loss(V::load(x_target + r), weight))",
        "nll_loss(V::load(x_target + r), weight)",
        f"{ARRAYS} -k nll_loss",
    ),
    bug(
        "ignored rows have a loss",
        "targets.where_there_is_one(r, row_losses)",
        "row_losses",
        f"{EDGES} -k 'ignored_rows_are_not_read and nll'",
        note="0 times NaN, of rows that are ignored",
    ),
    bug(
        "the divisor without sample weights",
        "sample_weight * weight",
        "weight",
        f"{ARRAYS} -k nll_loss",
    ),
    bug(
        "rows of more classes than a chunk has zeros",
        "std::clamp<int64_t>(kChunkZeros / std::max<int64_t>(p.classes, 1), 1, kMaxChunkRows)",
        "std::min<int64_t>(kChunkZeros / std::max<int64_t>(p.classes, 1), kMaxChunkRows)",
        COMPANY,
    ),
    bug(
        "every run has the targets of the first",
        "row - chunk.first",
        "int64_t(0)",
        f"{LAYOUTS} -k 'nll and float32 and width'",
    ),
    bug(
        "the weight of the class is forgotten",
        "nll_gradient(targets.weight[r], scale[r])",
        "nll_gradient(A(1), scale[r])",
        f"{VALUES} -k 'nll and 7x3 and float32'",
    ),
    bug(
        "the target's gradient as if classes were contiguous",
        "targets.target[r] * grad.class_stride",
        "targets.target[r]",
        f"{LAYOUTS} -k 'nll and transposed and float32'",
    ),
)

ROW_LOSSES = bugs_of(
    "csrc/cpu/row_losses.h",
    bug("losses of all chunks over those of the first", "out + chunk.first", "out", MANY_ROWS),
    bug(
        "a group takes what is another's",
        "i += p.groups",
        "++i",
        f"{IMAGES} -k 'test_groups and float32'",
    ),
    bug("a sum for the mean", "total.loss / divisor", "total.loss", TINY),
    bug(
        "one divisor for all groups",
        "static_cast<A*>(p.denominator)[g] = A(divisor);",
        "static_cast<A*>(p.denominator)[0] = A(divisor);",
        f"{IMAGES} -k 'test_groups and float32'",
    ),
    bug(
        "the gradient is not scaled as it was told",
        "A(p.loss_scale)",
        "A(1)",
        f"{OPTIONS} -k 'test_gradient_in_forward and 33x100'",
    ),
    bug(
        "gradients are not divided",
        "V::load(scale + r) / V::load(denominator + r)",
        "V::load(scale + r)",
        TINY,
    ),
    bug(
        "a sample weight of 0 times infinity",
        "product(V::load(sample_weight + r), V::load(scale + r))",
        "V::load(sample_weight + r) * V::load(scale + r)",
        COMPANY,
    ),
)

ROW_PLAN = bugs_of(
    "csrc/cpu/row_plan.h",
    bug(
        "any stride of classes is contiguous",
        "stride == 1",
        "stride >= 1",
        STRIDED_BLOCKS,
        context="return stride == 1;",
    ),
    bug(
        "chunks of no row",
        "std::clamp<int64_t>(rows, 1, kMaxChunkRows)",
        "std::min<int64_t>(rows, kMaxChunkRows)",
        f"{VALUES} -k '2x9000 and float32'",
        note="a crash: a division by 0",
    ),
    bug(
        "chunks of more rows than there is room for",
        "std::clamp<int64_t>(rows / kMinTileRows * kMinTileRows, kMinTileRows, kMaxChunkRows)",
        "std::max<int64_t>(rows / kMinTileRows * kMinTileRows, kMinTileRows)",
        MANY_ROWS,
        note="a crash, or wrong values: arrays on the stack are too small",
    ),
    bug(
        "no classes are divided by",
        "std::max<int64_t>(classes, 1)",
        "classes",
        f"{EDGES} -k 'all_rows_ignored and 4x0'",
        note="a crash: a division by 0",
    ),
    bug(
        "chunks of all groups together",
        "groups",
        "int64_t(1)",
        f"{IMAGES} -k 'test_groups and float32'",
        context="Chunks chunks(rows, groups, ",
    ),
)

SCALE_GRADIENT = bugs_of(
    "csrc/cpu/scale_gradient.cpp",
    bug("the last number of a run", "i < count", "i + 1 < count", f"{SCALE} -k 'test_product and float32'"),
    bug(
        "numbers as if they were contiguous",
        "static_cast<A>(grad[i * stride]) * factor",
        "static_cast<A>(grad[i]) * factor",
        f"{SCALE} -k 'test_product and float32 and images'",
    ),
    bug(
        "a thread begins where a row does",
        "begin - row * p.classes",
        "int64_t(0)",
        f"{SCALE} -k 'test_product and large and scalar'",
        note="takes two threads or more",
    ),
    bug(
        "a row that a thread begins within is as long as others",
        "p.classes - c",
        "p.classes",
        COMPANY,
    ),
    bug(
        "a thread begins at a class as if classes were contiguous",
        "c * p.class_stride",
        "c",
        COMPANY,
    ),
    bug(
        "the loss scale is not taken back",
        "grad_output / A(p.loss_scale)",
        "grad_output",
        f"{SCALE} -k 'test_product and float32'",
    ),
    bug("a factor of 1 is multiplied by", "factor != A(1)", "true", f"{SCALE} -k leaves_every_bit"),
    bug(
        "the number of a row for where its factor is",
        "p.grad_output_rows.offset(p.row_dims, row)",
        "row",
        f"{SCALE} -k batches_of_losses",
    ),
)

SOFT_DRIVER = bugs_of(
    "csrc/cpu/soft_cross_entropy.cpp",
    bug(
        "the totals of the last chunk",
        "totals[index] = rows.run(chunk);",
        "totals[0] = rows.run(chunk);",
        SOFT_BLOCKS,
    ),
    bug("losses are not reduced", "reduce_groups<A>(p, rows.chunks(), totals);", ";", SOFT_BY_ROW),
    bug(
        "gradients of the first chunk alone",
        "rows.run(chunk);",
        "if (chunk.first == 0) rows.run(chunk);",
        SOFT_BLOCKS,
        context="[&](int64_t, const Chunk& chunk) { rows.run(chunk); }",
    ),
    bug(
        "the focal loss is cross entropy",
        "forward<decltype(a), decltype(form)>(p);",
        "forward<decltype(a), FullForm<Gaps::kSumAndWeights>>(p);",
        SOFT_BY_ROW,
    ),
    bug(
        "gradients of logits that do not change",
        "backward<decltype(a), logits_change, focal>(p);",
        "backward<decltype(a), false, focal>(p);",
        SOFT_BY_ROW,
    ),
)

SOFT_BACKWARD = bugs_of(
    "csrc/cpu/soft_cross_entropy_backward.h",
    bug(
        "every chunk has saved the rows of the first",
        "static_cast<const SavedSoftRow<A>*>(p_.saved) + chunk.first",
        "static_cast<const SavedSoftRow<A>*>(p_.saved)",
        SOFT_BLOCKS,
    ),
    bug(
        "the mass at the maximum is lost",
        "rows.mass_at_max[r] = row.mass_at_max;",
        "rows.mass_at_max[r] = A(0);",
        SOFT_BY_ROW,
    ),
    bug(
        "the first row's gradient at the maximum",
        "V(rows.at_max[r])",
        "V(rows.at_max[0])",
        f"{SOFT_TESTS} -k 'soft_confident_rows and 1000'",
    ),
    bug(
        "every piece has the weights of the first",
        "weights.from(begin)",
        "weights",
        f"{LONG_ROWS} -k class_probabilities",
    ),
    bug(
        "every piece has the targets of the first",
        "q + begin",
        "q",
        f"{LONG_ROWS} -k class_probabilities",
        context="probabilities = q + begin;",
    ),
    bug(
        "by class, the focal loss pulls as cross entropy",
        "loss.template pull_of<kFocal>(mass, nll)",
        "mass",
        SOFT_BY_CLASS,
    ),
    bug(
        "every block has the targets of the first",
        "q.load(targets_, chunk, begin, n);",
        "q.load(targets_, chunk, 0, n);",
        SOFT_STRIDED_BLOCKS,
    ),
    bug(
        "every block has the weights of the first",
        "weights.load(begin, n);",
        "weights.load(0, n);",
        COMPANY,
    ),
    bug(
        "every vector of rows has the factors of the first",
        "rows.scale + r",
        "&rows.scale[0]",
        SOFT_BY_ROW,
    ),
    bug(
        "by row, the gradient forgets the weight",
        "loss_.mass(V::load(q[c] + r), weight)",
        "loss_.mass(V::load(q[c] + r), V(A(1)))",
        SOFT_BY_ROW,
    ),
    bug(
        "by row, a focal target costs what cross entropy does",
        "loss_.template cost<kFocal>(nll)",
        "nll",
        SOFT_BY_ROW,
    ),
)

SOFT_FORWARD = bugs_of(
    "csrc/cpu/soft_cross_entropy_forward.h",
    bug(
        "the largest classes of all chunks over the first",
        "p_.argmax + chunk.first + r",
        "p_.argmax + r",
        SOFT_STATS,
    ),
    bug("rows that there are not are masked", "of_no_row.max = A(0);", ";", SOFT_BY_CLASS),
    bug("the mass at the maximum is that below it", "row_sums.tie_weight", "row_sums.weight_sum", SOFT_BY_ROW),
    bug("every chunk saves its rows where the first does", "saved + chunk.first + r", "saved + r", SOFT_BLOCKS),
    bug(
        "a sample weight of 0 times an infinite loss",
        "product(sample_weight, row_loss)",
        "sample_weight * row_loss",
        COMPANY,
    ),
    bug(
        "the focal sums of every piece are of the logits of the first",
        "x + first",
        "x",
        COMPANY,
    ),
    bug(
        "the focal sums of every piece have the targets of the first",
        "masses.from(first)",
        "masses",
        COMPANY,
    ),
    bug(
        "the focal sums of the last piece alone",
        "total.merge(next);",
        "total = next;",
        COMPANY,
    ),
    bug(
        "focal sums of every block have the targets of the first",
        "mass(begin + i, lanes)",
        "mass(i, lanes)",
        SOFT_BLOCKS,
    ),
    bug(
        "focal sums of logits that are not changed",
        "z.apply(logits_, n);",
        ";",
        SOFT_BY_ROW,
        context="z.apply(logits_, n);\n      masses.load(begin, n);",
    ),
    bug(
        "by row, focal sums of every block have the targets of the first",
        "masses.load(begin, n);",
        "masses.load(0, n);",
        SOFT_STRIDED_BLOCKS,
    ),
    bug(
        "reports of all chunks over that of the first",
        "static_cast<RowReport<A>*>(p_.report) + chunk.first",
        "static_cast<RowReport<A>*>(p_.report)",
        SOFT_STATS,
    ),
    bug("reports of every block have the targets of the first", "q + begin + i", "q + i", SOFT_STATS),
    bug(
        "by row, every block of a report has the targets of the first",
        "q.load(targets_, chunk, begin, n);",
        "q.load(targets_, chunk, 0, n);",
        COMPANY,
    ),
    bug(
        "by row, the log-probability of the last block alone",
        "V::load(out + r) + log_prob",
        "log_prob",
        COMPANY,
    ),
    bug(
        "by row, an impossible class times no probability",
        "product(V::load(q[c] + r), -negative_log_likelihood(stats, V::load(z[c] + r)))",
        "V::load(q[c] + r) * -negative_log_likelihood(stats, V::load(z[c] + r))",
        f"{SOFT_TESTS} -k 'log_probability_of_an_impossible'",
    ),
)

SOFT_ROWS = bugs_of(
    "csrc/cpu/soft_cross_entropy_rows.h",
    bug("by class, weights are forgotten", "weights(i, n)", "Lanes<A>(A(1))", SOFT_BY_CLASS),
    bug(
        "every piece has the targets of the first",
        "q + i",
        "q",
        f"{LONG_ROWS} -k class_probabilities",
        context="return {q + i, weights.from(i), loss};",
    ),
    bug(
        "every piece has the weights of the first",
        "weights.from(i)",
        "weights",
        f"{LONG_ROWS} -k class_probabilities",
    ),
    bug(
        "by row, every block has the targets of the first",
        "tile_.load(targets_, chunk_, begin, n);",
        "tile_.load(targets_, chunk_, 0, n);",
        SOFT_STRIDED_BLOCKS,
    ),
    bug(
        "by row, every block has the weights of the first",
        "weights_.load(begin, n);",
        "weights_.load(0, n);",
        COMPANY,
    ),
    bug("by row, every class has the weight of the first", "weights_(c, r)", "weights_(0, r)", SOFT_BY_ROW),
    bug(
        "rows that there are not weigh 1",
        "r >= chunk.rows",
        "weight != nullptr && r >= chunk.rows",
        f"{SOFT_TESTS} -k 'values_and_gradients and 7x3 and float32-float32'",
    ),
    bug("every chunk has the sample weights of the first", "weight[chunk.first + r]", "weight[r]", SOFT_MANY_ROWS),
)

SOFTMAX_BY_CLASS = bugs_of(
    "csrc/cpu/softmax_by_class.h",
    bug(
        "no maximum over part of a vector",
        "if (i < classes) acc[3] = step(acc[3], i, classes - i);",
        ";",
        BY_CLASS,
    ),
    bug("one of four accumulators is left out", "combine(acc[2], acc[3])", "acc[2]", BLOCKS),
    bug(
        "the first class of a vector in place of the largest",
        "while (i < classes && static_cast<A>(x[i]) != value) ++i;",
        ";",
        f"{OPTIONS} -k argmax_is_the_first",
    ),
    bug("every block is the first", "x_ + begin", "x_", BLOCKS),
    bug(
        "every piece is the first",
        "x_ + i",
        "x_",
        f"{LONG_ROWS} -k test_losses",
        context="return {x_ + i, logits_};",
    ),
    bug("all lanes at the maximum are counted", "ties - A(1)", "ties", BY_CLASS),
    bug(
        "lanes behind the last class have a weight",
        "Lanes<A>::first(n, A(1))",
        "Lanes<A>(A(1))",
        f"{VALUES} -k '3x257 and float32 and label_smoothing'",
    ),
    bug(
        "every piece has the weights of the first",
        "weight ? weight + i : nullptr",
        "weight",
        f"{LONG_ROWS} -k test_losses",
    ),
    bug(
        "no class is the largest of a row that is masked",
        "if (argmax) *argmax = 0;",
        "if (argmax) *argmax = -1;",
        f"{COMPANY} -k argmax_of_classes_that_are_alike",
    ),
    bug(
        "sums are not measured from a new maximum",
        "if (begin > 0) lanes.measure_from(max, V());",
        ";",
        BLOCKS,
    ),
    bug(
        "every block has the weights of the first",
        "weights(begin + i, count)",
        "weights(i, count)",
        f"{BLOCKS[:-1]} and label_smoothing'",
    ),
    bug(
        "what lies behind the last class is 0 and not -inf",
        "kLowest",
        "A(0)",
        BY_CLASS,
        context="const V z = V::load(x + i, count, kLowest);",
    ),
    bug(
        "of equal classes that of the last block",
        "max.max() > max_before",
        "max.max() >= max_before",
        f"{OPTIONS} -k argmax_is_the_first",
    ),
    bug(
        "the largest class is counted from its block",
        "begin + find_class(x, n, max_before)",
        "find_class(x, n, max_before)",
        f"{OPTIONS} -k argmax_is_the_first",
    ),
    bug("the largest class is counted from its piece", "part.argmax += begin;", ";", f"{LONG_ROWS} -k test_stats"),
    bug(
        "of equal classes that of the last piece",
        "next.sums.max > total.sums.max",
        "next.sums.max >= total.sums.max",
        f"{LONG_ROWS} -k test_stats",
    ),
    bug(
        "gradients of every piece have the weights of the first",
        "weights.from(begin)",
        "weights",
        f"{LONG_ROWS} -k test_losses",
        context="const WeightsByClass<A> weight = weights.from(begin);",
    ),
    bug(
        "gradients of every piece are of the logits of the first",
        "x + begin",
        "x",
        f"{LONG_ROWS} -k test_losses",
        context="from = x + begin;",
    ),
)

SOFTMAX_BY_ROW = bugs_of(
    "csrc/cpu/softmax_by_row.h",
    bug(
        "the last class of a sum",
        "c < end",
        "c + 1 < end",
        f"{LOG_SOFTMAX_TESTS} -k 'values_and_gradient and 33x100'",
    ),
    bug(
        "the last part of a sum alone",
        "sum = sum + part;",
        "sum = part;",
        f"{LOG_SOFTMAX_TESTS} -k 'values_and_gradient and 33x100'",
    ),
    bug(
        "every block has the weights of the first",
        "weight_ ? weight_ + begin : nullptr",
        "weight_",
        COMPANY,
    ),
    bug(
        "no sums of rows without classes",
        "classes == 0",
        "false",
        f"{OPTIONS} -k stats_without_classes",
        note="what the stack held is read",
    ),
    bug(
        "the first block alone has target logits",
        "if (wanted.target) tile.pick(wanted.target, chunk.rows, wanted.z_target);",
        "if (wanted.target && begin == 0) tile.pick(wanted.target, chunk.rows, wanted.z_target);",
        STRIDED_BLOCKS,
    ),
    bug(
        "sums are not measured from a new maximum",
        "if (begin > 0) row.measure_from(max, V());",
        ";",
        STRIDED_BLOCKS,
    ),
    bug(
        "the last of equal classes",
        "where(V::load(tile[c] + r) == max, V(A(c)), first)",
        "where((V::load(tile[c] + r) == max) & (first < V(A(0))), V(A(c)), first)",
        f"{OPTIONS} -k argmax_is_the_first",
    ),
    bug(
        "of equal classes that of the last block",
        "max_before < max",
        "!(max < max_before)",
        f"{COMPANY} -k argmax_of_classes_that_are_alike",
    ),
    bug(
        "the largest class is counted from its block",
        "begin + int64_t(places[i - r])",
        "int64_t(places[i - r])",
        COMPANY,
    ),
    bug(
        "rows without a target are not zeros",
        "tile[c][r] = A(0);",
        ";",
        f"{EDGES} -k ignored_rows_are_not_read",
    ),
    bug(
        "the first class of a block is no target",
        "target[r] >= begin",
        "target[r] > begin",
        MANY_ROWS,
        note="takes a chunk with an ignored row, or more than 16 classes, and a target of 0",
    ),
    bug(
        "rows without a target where there are few classes",
        "all_have_target && classes <= kMaxComparedClasses",
        "classes <= kMaxComparedClasses",
        f"{EDGES} -k 'ignored_rows_are_not_read and 4'",
    ),
    bug(
        "every block of classes has weights of the first in its gradient",
        "weights.load(begin, n);",
        "weights.load(0, n);",
        COMPANY,
        context="tile.load(logits, chunk, begin, n);\n    weights.load(begin, n);",
    ),
    bug(
        "few classes have no target",
        "where(y == V(A(c)), of_target, of_class)",
        "of_class",
        MANY_ROWS,
        note="takes a chunk without an ignored row: the second, since the table ignores row 1",
    ),
    bug(
        "all targets are in every block",
        "n == classes && all_have_target",
        "all_have_target",
        f"{LAYOUTS} -k '(crop or transposed) and 300 and float32'",
        note="(3, 300, 5, 6): no row of the second chunk is ignored",
    ),
    bug(
        "every block of gradients over the first",
        "tile.store(grad, chunk, begin, n);",
        "tile.store(grad, chunk, 0, n);",
        STRIDED_BLOCKS,
    ),
)

TILE_CPP = bugs_of(
    "csrc/cpu/tile.cpp",
    bug(
        "every run of rows in the same place of the tile",
        "values_ + (row - chunk.first)",
        "values_",
        f"{LAYOUTS} -k 'crop and 77 and float32'",
    ),
    bug(
        "blocks as if classes were contiguous",
        "first_class * m.class_stride",
        "first_class",
        STRIDED_BLOCKS,
    ),
    bug(
        "classes with gaps between as if they had none",
        "copy_run(cell + r, pitch_, p + r * row_stride, matrix.class_stride, classes);",
        "copy_run(cell + r, pitch_, p + r * row_stride, 1, classes);",
        f"{LAYOUTS} -k 'every and 77 and float32'",
    ),
    bug(
        "the last row of a run is not transposed",
        "load_transposed(cell, pitch_, p, row_stride, n, classes);",
        "load_transposed(cell, pitch_, p, row_stride, n - 1, classes);",
        BY_ROW,
    ),
    bug(
        "a target in another block is in this one",
        "c < classes ? A(1) : A(0)",
        "A(1)",
        STRIDED_BLOCKS,
    ),
    bug(
        "the last row of a run is not stored",
        "copy_run(p + c * matrix.class_stride, 1, cell + c * pitch_, 1, n);",
        "copy_run(p + c * matrix.class_stride, 1, cell + c * pitch_, 1, n - 1);",
        f"{VALUES} -k '2x19x7x9 and float32'",
    ),
    bug(
        "the last class is not stored",
        "store_transposed(p, row_stride, cell, pitch_, n, classes);",
        "store_transposed(p, row_stride, cell, pitch_, n, classes - 1);",
        BY_ROW,
    ),
)

TILE_H = bugs_of(
    "csrc/cpu/tile.h",
    bug("every row is the first", "data + rows.offset(dims, r)", "data", BLOCKS),
    bug(
        "classes of a matrix are contiguous",
        "class_stride",
        "int64_t(1)",
        f"{LAYOUTS} -k 'nll and transposed and float32'",
        context="return {static_cast<Like<S>*>(data), dims, rows, class_stride};",
    ),
    bug("rows that fill no vector", "V::round_up(rows)", "rows", TINY),
    bug("a tile whose classes are a row too close", "values_ + c * pitch_", "values_ + c * (pitch_ - 1)", BY_ROW),
    bug(
        "the last class is not changed",
        "p < (*this)[classes]",
        "p < (*this)[classes - 1]",
        f"{OPTIONS} -k 'test_loss_and_gradient and softcap and 33x100 and float32'",
    ),
)

TILING = bugs_of(
    "csrc/cpu/tiling.h",
    bug(
        "the place along the last dimension alone",
        "result += place[d] * strides.strides[d];",
        "result = place[d] * strides.strides[d];",
        f"{ELEMENT_LAYOUTS} -k 'test_layout and channels_last and float32 and logits'",
    ),
    bug("what is shared is taken for dense", "strides.strides[d] != dense", "strides.strides[d] > dense", WEIGHTS),
    bug(
        "blocks whose columns have gaps are transposed ones",
        "strides.strides[row_dim] == 1",
        "strides.strides[row_dim] >= 1",
        COMPANY,
    ),
    bug(
        "rows of a block all begin where the first does",
        "begin + r * strides.strides[row_dim]",
        "begin + r",
        LARGE,
    ),
    bug(
        "a run that begins within a dimension does not go back",
        "begin -= at[last] * strides.strides[last];",
        ";",
        f"{ELEMENT_LAYOUTS} -k 'test_layout and crop and float32 and logits'",
    ),
    bug(
        "a carry that does not go back",
        "begin -= dims.sizes[d] * strides.strides[d];",
        ";",
        f"{ELEMENT_LAYOUTS} -k 'test_layout and crop and float32 and logits'",
    ),
    bug(
        "the tiles of the first group alone",
        "group_tiles_ * groups",
        "group_tiles_",
        f"{ELEMENT_EDGES} -k groups_of_several_shares",
    ),
    bug(
        "the last column of blocks, if it is narrower",
        "count_blocks(dims.sizes[last_], columns_)",
        "dims.sizes[last_] / columns_",
        LARGE,
    ),
    bug(
        "tiles are counted from the first group",
        "index - group * group_tiles_",
        "index",
        f"{ELEMENT_EDGES} -k groups_of_several_shares",
    ),
    bug(
        "every group is the first",
        "group * group_elements_ + start",
        "start",
        f"{ELEMENT_EDGES} -k groups_of_several_shares",
    ),
    bug("blocks that overlap", "row *= rows_;", ";", LARGE),
    bug(
        "blocks across groups",
        "outermost",
        "0",
        COMPANY,
        context="int d = outermost;",
    ),
)

TRANSPOSE = bugs_of(
    "csrc/cpu/transpose.h",
    bug(
        "the second half of a pair",
        "shuffled[2 * i + 1].vec = pair.second;",
        "shuffled[2 * i + 1].vec = pair.first;",
        BY_ROW,
    ),
    bug(
        "a block that is too narrow",
        "n <= kSize * 3 / 4",
        "n <= kSize",
        f"{FEW_CLASSES} -k 'class_indices and float32 and dense'",
    ),
    bug(
        "rows with gaps between are dense",
        "row_stride != columns || columns >= V::kSize",
        "columns >= V::kSize",
        f"{FEW_CLASSES} -k 'class_indices and float32 and crop'",
    ),
    bug(
        "the last row of a part of a block is not loaded",
        "block[i].store(to + i * pitch, rows);",
        "block[i].store(to + i * pitch, rows - 1);",
        f"{FEW_CLASSES} -k 'class_indices and float32 and dense'",
    ),
    bug(
        "the last row of a part of a block is not stored",
        "i < rows",
        "i < rows - 1",
        f"{FEW_CLASSES} -k 'class_indices and float32 and dense'",
    ),
    bug(
        "the next rows as if they were shorter",
        "V::kSize * row_stride",
        "int64_t(V::kSize)",
        f"{FEW_CLASSES} -k 'class_indices and float32 and dense'",
        context="from += V::kSize * row_stride",
    ),
    bug(
        "whole vectors are stored though rows have gaps between",
        "row_stride == columns && to + c + (m - 1) * row_stride + V::kSize <= end",
        "to + c + (m - 1) * row_stride + V::kSize <= end",
        COMPANY,
    ),
    bug(
        "a transposed block in one row",
        "to + column * to_stride + row",
        "to + column * to_stride",
        LARGE,
    ),
    bug(
        "few rows are read from next to each other",
        "copy_run(to + r, to_stride, from + r * from_stride, 1, columns);",
        "copy_run(to + r, to_stride, from + r, 1, columns);",
        LARGE,
    ),
    bug(
        "few columns as if rows were contiguous",
        "copy_run(to + c * to_stride, 1, from + c, from_stride, rows);",
        "copy_run(to + c * to_stride, 1, from + c, 1, rows);",
        LARGE,
    ),
)

MUTANTS: tuple[Planted, ...] = (
    *REDUCTION,
    *LOG_SOFTMAX_FORMULA,
    *LOGITS,
    *MATH,
    *SOFTMAX,
    *CROSS_ENTROPY,
    *SOFT_CROSS_ENTROPY,
    *ASYMMETRIC_LOSS,
    *BINARY_CROSS_ENTROPY,
    *BINARY_DRIVER,
    *BINARY_ELEMENTS,
    *CHUNKS,
    *CROSS_ENTROPY_DRIVER,
    *CROSS_ENTROPY_BACKWARD,
    *CROSS_ENTROPY_FORWARD,
    *CROSS_ENTROPY_ROWS,
    *DTYPES,
    *ELEMENT_TILES,
    *LANE_MASK,
    *LANES,
    *LOG_SOFTMAX_DRIVER,
    *NLL,
    *ROW_LOSSES,
    *ROW_PLAN,
    *SCALE_GRADIENT,
    *SOFT_DRIVER,
    *SOFT_BACKWARD,
    *SOFT_FORWARD,
    *SOFT_ROWS,
    *SOFTMAX_BY_CLASS,
    *SOFTMAX_BY_ROW,
    *TILE_CPP,
    *TILE_H,
    *TILING,
    *TRANSPOSE,
)
