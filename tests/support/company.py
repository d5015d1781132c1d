"""What can go together in a call: of every function a configuration, which is a value for each factor, drawn by what
chooses among values."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tests.support.cases import DTYPES
from tests.support.company_tensors import DENOMINATORS, FACTOR_SHAPES, LAYOUTS, Configuration, ignored_targets

Choose = Callable[[Sequence[Any]], Any]

INTEGERS = (
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip
HALVES = (torch.bfloat16, torch.float16)

# Around the sizes where a kernel changes its ways: vectors, few classes, planes of pixels, tiles of 512 bytes, rows as
# lanes or classes as lanes, blocks and pieces of classes; and chunks of rows, of which some are too few for a task.
CLASSES = (5, 1, 2, 8, 16, 17, 24, 25, 32, 33, 64, 65, 128, 129, 160, 161, 257, 1025, 8193, 33_000)
ROWS = (3, 0, 1, 2, 16, 64, 65, 520)
MOST_ELEMENTS = 66_500
# Of elements: vectors, packs, runs, tiles, and with 257 rows a plane that is visited in blocks.
COLUMNS = (5, 1, 4, 8, 16, 17, 64, 65, 257, 1025)
ROWS_OF_COLUMNS = (3, 0, 1, 2, 16, 65, 257)
MOST_IN_COLUMNS = 257 * 257

REDUCTIONS = ("mean", "sum", "none")
OUT_DTYPES = (None, torch.float32, torch.float64, torch.bfloat16, torch.float16)
GAMMAS = (2.0, 0.0, 0.5, 1.0, 3.7)
SMOOTHINGS = (0.0, 0.1, 1.0)
# A backward pass; none; a second one of the same graph; forward mode; second derivatives; the gradient of torch.func; a
# batch of all tensors, or of the input alone.
MODES = ("reverse", "forward alone", "twice", "jvp", "second", "func.grad", "vmap", "vmap of input")
LOSS_SCALE = 64.0  # from upstream, as a loss scaler would have it
UPSTREAMS = ("ones", "contiguous", "expanded", "transposed")


def _layouts(dims: int, mode: str) -> list[str]:
    """Those of tensors of so many dimensions. In forward mode torch makes tangents that lie as their tensors do, and
    refuses those that share memory."""
    return [
        name for name, (least, _) in LAYOUTS.items() if least <= dims and not (mode == "jvp" and "expanded" in name)
    ]


def _of_any_loss(choose: Choose) -> Configuration:
    c: Configuration = {
        **_of_autograd(choose),
        "dtype": choose(DTYPES),
        "reduction": choose(REDUCTIONS),
        "on_empty": choose(("nan", "zero")),
        "as_module": choose((False, True)),
        "out_dtype": choose(OUT_DTYPES),
        "denominator": None,
    }
    if c["reduction"] == "mean":
        denominators = (None, 3.5, -2.0, 0.0, *DENOMINATORS)
        c["denominator"] = choose(
            denominators if c["on_empty"] == "zero" else [d for d in denominators if d not in (0.0, "nothing")]
        )
    return c


def _of_autograd(choose: Choose) -> Configuration:
    return {"mode": choose(MODES), "upstream": choose(UPSTREAMS), "magnitude": choose((3.0, 0.1, 100.0))}


def _sized(
    choose: Choose, c: Configuration, ranks: Sequence[int], rows: Sequence[int], classes: Sequence[int], most: int
) -> Configuration:
    c = c | {"rank": choose(ranks), "classes": choose(classes), "rows": 1}
    if c["rank"] > 1:
        c["rows"] = choose([count for count in rows if count * c["classes"] <= most])
    return c | {"layout": choose(_layouts(c["rank"], c["mode"]))}


def _of_rows(choose: Choose) -> Configuration:
    c = _sized(choose, _of_any_loss(choose), (2, 1, 3, 4), ROWS, CLASSES, MOST_ELEMENTS)
    opmath = (torch.float32,) if c["dtype"] in HALVES else ()
    of_nothing = ("zeros",) if c["on_empty"] == "zero" else ()
    c["dim"] = choose([None, *(dim for dim in (-1, 0, 1) if dim < c["rank"])])
    c["weight_dtype"] = choose((None, c["dtype"], *opmath))
    c["weight_layout"] = choose(_layouts(1, c["mode"]))
    c["sample_weight"] = choose((None, c["dtype"], *opmath, *of_nothing))
    c["sample_weight_layout"] = choose(_layouts(c["rank"] - 1, c["mode"]))
    return c


def _class_indices(choose: Choose, c: Configuration, default: int | None) -> Configuration:
    """Targets that are classes, and those of them that are ignored."""
    dtype = choose([dtype for dtype in INTEGERS if c["classes"] <= torch.iinfo(dtype).max])
    ignore_index = choose((default, 0, (-100, 0), 1000))
    return c | {
        "target_dtype": dtype,
        "target_layout": choose(_layouts(c["rank"] - 1, c["mode"])),
        "ignore_index": ignore_index,
        "ignored": choose(("some", "none", "all") if ignored_targets(dtype, ignore_index) else ("none",)),
    }


def _of_logits(choose: Choose) -> Configuration:
    return {
        "label_smoothing": choose(SMOOTHINGS),
        "z_loss": choose((0.0, 0.01)),
        "softcap": choose((0.0, 5.0, 30.0)),
        "logit_scale": choose((1.0, 0.5, -2.0)),
        "return_stats": choose((False, True)),
    }


def _of_gradient_in_forward(choose: Choose, c: Configuration) -> Configuration:
    """It serves one backward pass. Who wants it of a float16 mean has to say what comes from upstream."""
    options: Configuration = {"grad_in_forward": False, "inplace": False, "loss_scale": None}
    if c["mode"] in ("twice", "second"):
        return options
    options["grad_in_forward"] = choose((False, True))
    options["inplace"] = "expanded" not in c["layout"] and choose((False, True))
    is_used = options["grad_in_forward"] or options["inplace"]
    is_required = is_used and c["reduction"] == "mean" and c["dtype"] == torch.float16
    options["loss_scale"] = choose((LOSS_SCALE,) if is_required else (None, LOSS_SCALE))
    if options["loss_scale"] is not None:
        options["upstream"] = choose((c["upstream"], "loss scale"))
    return options


def cross_entropy(choose: Choose) -> Configuration:
    c = _class_indices(choose, _of_rows(choose), -100) | _of_logits(choose)
    return c | _of_gradient_in_forward(choose, c)


def softmax_focal_loss(choose: Choose) -> Configuration:
    return cross_entropy(choose) | {"gamma": choose(GAMMAS)}


def nll_loss(choose: Choose) -> Configuration:
    return _class_indices(choose, _of_rows(choose), -100)


def soft_cross_entropy(choose: Choose) -> Configuration:
    c = _of_rows(choose) | _of_logits(choose)
    return c | {
        "weight_dtype": choose((None, *DTYPES)),
        "target_dtype": choose(DTYPES),
        "target_layout": choose(_layouts(c["rank"], c["mode"])),
        "differentiable": choose(("all", "input", "others")),
        "grad_in_forward": choose((False, True)),  # does nothing
    }


def soft_focal_loss(choose: Choose) -> Configuration:
    return soft_cross_entropy(choose) | {"gamma": choose(GAMMAS)}


def log_softmax(choose: Choose) -> Configuration:
    c = _sized(choose, _of_autograd(choose), (2, 1, 3, 4), ROWS, CLASSES, MOST_ELEMENTS)
    return c | {
        "dtype": choose(DTYPES),
        "out_dtype": choose(OUT_DTYPES),
        "dim": choose([dim for dim in (-1, 0, 1) if dim < c["rank"]]),
    }


def _factor(choose: Choose, c: Configuration, name: str) -> Configuration:
    shapes = [shape for shape, (least, _) in FACTOR_SHAPES.items() if least <= c["rank"]]
    shape = choose((None, *shapes))
    layouts = _layouts(c["rank"] if shape == "elements" else 0, c["mode"])
    return {
        name: shape,
        f"{name}_dtype": shape and choose(DTYPES),
        f"{name}_layout": shape and choose(layouts),
    }


def _of_elements(choose: Choose, ranks: Sequence[int] = (2, 0, 1, 3, 4), least_classes: int = 1) -> Configuration:
    columns = [count for count in COLUMNS if count >= least_classes]
    c = _sized(choose, _of_any_loss(choose), ranks, ROWS_OF_COLUMNS, columns, MOST_IN_COLUMNS)
    c |= {"label_smoothing": choose(SMOOTHINGS), **_factor(choose, c, "weight")}
    return c


def _elements(choose: Choose, c: Configuration) -> Configuration:
    """Targets that have the shape of the input."""
    dtype = choose((*DTYPES, *INTEGERS, torch.bool))
    ignore_index, ignore_nan = choose((None, -100, 0, 1)), choose((False, True))
    return c | {
        "target_dtype": dtype,
        "target_layout": choose(_layouts(c["rank"], c["mode"])),
        "ignore_index": ignore_index,
        "ignore_nan": ignore_nan,
        "ignored": choose(("some", "none", "all") if ignored_targets(dtype, ignore_index, ignore_nan) else ("none",)),
    }


def _with_leaves(choose: Choose, c: Configuration) -> Configuration:
    others = c["target_dtype"].is_floating_point or c["weight"] or c.get("pos_weight")
    return c | {"differentiable": choose(("all", "input", "others") if others else ("all", "input"))}


def binary_cross_entropy(choose: Choose) -> Configuration:
    return _with_leaves(choose, _elements(choose, _of_elements(choose)))


def binary_cross_entropy_with_logits(choose: Choose) -> Configuration:
    c = _elements(choose, _of_elements(choose))
    return _with_leaves(choose, c | _factor(choose, c, "pos_weight"))


def binary_class_indices(choose: Choose) -> Configuration:
    c = _class_indices(choose, _of_elements(choose, (2, 1, 3, 4), least_classes=2), None)
    return _with_leaves(choose, c | _factor(choose, c, "pos_weight"))


def sigmoid_focal(choose: Choose, c: Configuration) -> Configuration:
    shapes = [shape for shape, (least, _) in FACTOR_SHAPES.items() if least <= c["rank"]]
    return c | {"alpha": choose((0.25, -1.0, 0.0, 1.0, *shapes)), "gamma": choose(GAMMAS)}


def asymmetric(choose: Choose, c: Configuration) -> Configuration:
    return c | {
        "gamma_neg": choose((4.0, 0.0, 0.5, 1.0, 3.7)),
        "gamma_pos": choose((1.0, 0.0, 0.5, 2.0, 3.7)),
        "margin": choose((0.05, 0.0, 0.3)),
    }
