"""The rows of the losses of classes in the table that every test file and the benchmarks are driven by."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import ce_ext
from tests.support import oracles, references

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# Relative error of one rounding in each dtype. Results are computed in opmath and rounded once, so half types are held
# to half a unit in the last place and a bit; float32 and float64 to a few roundings.
ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 4.2e-3, torch.float16: 5.5e-4}


@dataclass(frozen=True)
class BadCall:
    """A call that must raise what torch raises, in words that name the argument and show the offending value."""

    name: str
    arguments: Callable[[], tuple[Any, ...]]
    message: str
    options: dict[str, Any] = field(default_factory=dict)
    # Where ce_ext means to differ from torch.
    error: type[Exception] | None = None


@dataclass(frozen=True)
class Loss:
    name: str
    function: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    oracle: Callable[..., Tensor]
    module: type[torch.nn.Module]
    reference_module: type[torch.nn.Module]
    make_inputs: Callable[..., tuple[Tensor, Tensor]]
    shapes: tuple[tuple[int, ...], ...]
    options: tuple[dict[str, Any], ...]
    bad_calls: tuple[BadCall, ...]
    # What it has besides weight, ignore_index and reduction, away from its defaults.
    extras: dict[str, Any] = field(default_factory=dict)
    reads_all: bool = True  # of its input, and not the targets' classes alone, in which it is linear
    is_binary: bool = False  # of elements and not of rows of classes

    def weight_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of a weight, for an input of this shape."""
        return shape[-1:] if self.is_binary else (class_count(shape),)

    def ignore(self, target: Tensor, *place: int) -> None:
        """Makes it one that is ignored, if there is such a target by default."""
        if not self.is_binary:
            target[place] = -100

    @property
    def variants(self) -> tuple[dict[str, Any], ...]:
        """With its defaults, and with its extras."""
        return ({}, self.extras) if self.extras else ({},)


@dataclass(frozen=True)
class Case:
    loss: Loss
    shape: tuple[int, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        options = ",".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.loss.name}-{shape}-{options or 'defaults'}"

    @property
    def factors(self) -> dict[str, str]:
        """What it is a combination of: none of it is what another loss has."""
        names = {name for options in self.loss.options for name in options}
        factors = {"shape": self.shape, **{name: self.options.get(name) for name in names}}
        return {name: f"{self.loss.name}-{value}" for name, value in factors.items()}

    def make(self, dtype: torch.dtype, device: str, seed: int = 0) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Input, target and options, with `weight=True` turned into a tensor and some rows ignored."""
        input, target = self.loss.make_inputs(self.shape, dtype, device, seed)
        options = dict(self.options)
        if options.get("weight"):
            generator = torch.Generator().manual_seed(seed + 1)
            weight = torch.rand(class_count(self.shape), generator=generator, dtype=torch.float64) + 0.1
            options["weight"] = weight.to(dtype).to(device)
        if target.numel() > 2:
            target.view(-1)[1] = options.get("ignore_index", -100)
        return input, target, options


def class_dim(shape: tuple[int, ...]) -> int:
    return 0 if len(shape) == 1 else 1


def class_count(shape: tuple[int, ...]) -> int:
    return shape[class_dim(shape)]


def class_index_inputs(
    shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    input = torch.randn(shape, generator=generator, device=device).mul_(3).to(dtype)
    rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
    target = torch.randint(0, class_count(shape), rows, generator=generator, device=device)
    return input, target


def log_probability_inputs(
    shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor]:
    input, target = class_index_inputs(shape, dtype, device, seed)
    return input.log_softmax(class_dim(shape)), target


def _options(**choices: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    """Every combination; None leaves an option out."""
    return tuple(
        {name: value for name, value in zip(choices, values, strict=True) if value is not None}
        for values in itertools.product(*choices.values())
    )


def _logits(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


def _indices(*values: int) -> Tensor:
    return torch.tensor(values)


# Of class indices, which all of these losses take.
BAD_CALLS = (
    BadCall("input list", lambda: ([0.0, 1.0], _indices(1)), "input must be a Tensor, but got list"),
    BadCall("target list", lambda: (_logits(4, 5), [0, 1, 2, 3]), "target must be a Tensor, but got list"),
    BadCall("0-d input", lambda: (torch.tensor(1.0), torch.tensor(0)), r"input .* got shape \[\]"),
    BadCall("integer input", lambda: (_logits(4, 5).long(), _indices(0, 1, 2, 3)), "input must be .* Long"),
    BadCall("complex input", lambda: (_logits(2, 5).cfloat(), _indices(0, 1)), "input must be .* ComplexFloat"),
    BadCall("batch size", lambda: (_logits(4, 5), _indices(0, 1, 2)), r"target must have shape \[4\] .* \[3\]"),
    BadCall("scalar target", lambda: (_logits(4, 5), torch.tensor(1)), r"target must have shape \[4\] .* \[\]"),
    BadCall("long target", lambda: (_logits(5), _indices(0, 1)), r"target must have shape \[\] .* \[2\]"),
    BadCall("2-d target", lambda: (_logits(4, 5), torch.zeros(4, 1).long()), r"shape \[4\] .* \[4, 1\]"),
    BadCall("same shape", lambda: (_logits(4, 5), torch.zeros(4, 5).long()), r"shape \[4\] .* \[4, 5\]"),
    BadCall(
        "spatial size",
        lambda: (_logits(2, 3, 4, 5), torch.zeros(2, 4, 4).long()),
        r"target must have shape \[2, 4, 5\] .* \[2, 4, 4\]",
    ),
    BadCall(
        "spatial dims",
        lambda: (_logits(2, 3, 4, 5), torch.zeros(2, 4).long()),
        r"target must have shape \[2, 4, 5\] .* \[2, 4\]",
    ),
    BadCall(
        "spatial batch",
        lambda: (_logits(2, 3, 4, 5), torch.zeros(1, 4, 5).long()),
        r"target must have shape \[2, 4, 5\] .* \[1, 4, 5\]",
    ),
    BadCall("float target", lambda: (_logits(2, 5), _indices(0, 1).float()), r"target .* got (Float|shape \[2\])"),
    BadCall("bool target", lambda: (_logits(2, 5), _indices(0, 1).bool()), "target .* but got Bool"),
    BadCall("target device", lambda: (_logits(2, 5), _indices(0, 1).to("meta")), "target on meta"),
    BadCall("reduction", lambda: (_logits(2, 5), _indices(0, 1)), "reduction .* 'avg'", {"reduction": "avg"}),
    BadCall(
        "weight length",
        lambda: (_logits(2, 5), _indices(0, 1)),
        r"weight must have shape \[5\].* \[4\]",
        {"weight": torch.ones(4)},
    ),
    BadCall(
        "weight dims",
        lambda: (_logits(2, 5), _indices(0, 1)),
        r"weight must have shape \[5\].* \[5, 1\]",
        {"weight": torch.ones(5, 1)},
    ),
    BadCall(
        "weight dtype",
        lambda: (_logits(2, 5), _indices(0, 1)),
        "weight must have the dtype of input, Float, but got Double",
        {"weight": torch.ones(5).double()},
    ),
    BadCall(
        "weight device",
        lambda: (_logits(2, 5), _indices(0, 1)),
        "weight on meta",
        {"weight": torch.ones(5, device="meta")},
    ),
    BadCall(
        "weight requires grad",
        lambda: (_logits(2, 5).requires_grad_(), _indices(0, 1)),
        "weight is not differentiable",
        {"weight": torch.ones(5, requires_grad=True)},
    ),
    BadCall("target too large", lambda: (_logits(4, 5), _indices(0, 1, 7, 3)), r"target\[2\] = 7 .* 5 classes"),
    BadCall("negative target", lambda: (_logits(4, 5), _indices(0, -1, 2, -2)), r"target\[1\] = -1 .* 5 classes"),
    BadCall("target of one row", lambda: (_logits(5), torch.tensor(9)), "target = 9 .* 5 classes"),
    BadCall(
        "target of a pixel",
        lambda: (_logits(2, 3, 2, 2), torch.tensor([[[0, 1], [2, 0]], [[0, 1], [3, 0]]])),
        r"target\[1, 1, 0\] = 3 .* 3 classes",
    ),
    BadCall("no classes", lambda: (_logits(2, 0), _indices(0, 0)), r"target\[0\] = 0 .* 0 classes"),
)

# Of losses that torch takes class probabilities for, and that smooth them.
BAD_DISTRIBUTIONS = (
    BadCall(
        "smoothing above 1",
        lambda: (_logits(2, 5), _indices(0, 1)),
        "label_smoothing must be between 0.0 and 1.0, but got 1.5",
        {"label_smoothing": 1.5},
    ),
    BadCall(
        "negative smoothing",
        lambda: (_logits(2, 5), _indices(0, 1)),
        "label_smoothing .* -0.1",
        {"label_smoothing": -0.1},
        error=RuntimeError,  # torch says that it must not be, and takes it for 0
    ),
    BadCall(
        "NaN smoothing",
        lambda: (_logits(2, 5), _indices(0, 1)),
        "label_smoothing .* nan",
        {"label_smoothing": float("nan")},
        error=RuntimeError,  # likewise
    ),
)

CROSS_ENTROPY = Loss(
    name="cross_entropy",
    function=ce_ext.functional.cross_entropy,
    reference=torch.nn.functional.cross_entropy,
    oracle=oracles.cross_entropy,
    module=ce_ext.nn.CrossEntropyLoss,
    reference_module=torch.nn.CrossEntropyLoss,
    make_inputs=class_index_inputs,
    # Around the sizes where a kernel changes its ways: vectors, class blocks, rows as lanes or classes as lanes, more
    # rows than are summed at a time.
    shapes=(
        (5,),
        (1, 1),
        (7, 3),
        (3, 17),
        (4, 63),
        (5, 64),
        (33, 100),
        (600, 10),
        (9000, 3),
        (3, 257),
        (2, 4097),
        (2, 9000),
        (3, 10, 4),
        (2, 19, 7, 9),
        (2, 130, 5, 3),
        (2, 4, 3, 2, 5),
    ),
    options=_options(reduction=("mean", "sum", "none"), weight=(None, True), label_smoothing=(None, 0.1, 1.0))
    + ({"ignore_index": 0}, {"ignore_index": 2, "label_smoothing": 0.3}),
    bad_calls=BAD_CALLS + BAD_DISTRIBUTIONS,
    extras={"label_smoothing": 0.1},
)

NLL = Loss(
    name="nll_loss",
    function=ce_ext.functional.nll_loss,
    reference=torch.nn.functional.nll_loss,
    oracle=oracles.nll_loss,
    module=ce_ext.nn.NLLLoss,
    reference_module=torch.nn.NLLLoss,
    make_inputs=log_probability_inputs,
    # It reads one class a row, so that their number changes nothing.
    shapes=((5,), (1, 1), (7, 3), (33, 100), (9000, 3), (3, 10, 4), (2, 19, 7, 9)),
    options=(*_options(reduction=("mean", "sum", "none"), weight=(None, True)), {"ignore_index": 0}),
    bad_calls=BAD_CALLS,
    reads_all=False,
)

# On the loops of cross entropy, whose switches need not all be tried again.
SOFTMAX_FOCAL = Loss(
    name="softmax_focal_loss",
    function=ce_ext.functional.softmax_focal_loss,
    reference=references.softmax_focal_loss,
    oracle=oracles.softmax_focal_loss,
    module=ce_ext.nn.SoftmaxFocalLoss,
    reference_module=references.SoftmaxFocalLoss,
    make_inputs=class_index_inputs,
    shapes=((5,), (7, 3), (4, 63), (5, 64), (600, 10), (3, 257), (2, 4097), (2, 19, 7, 9), (2, 130, 5, 3)),
    options=(
        *_options(reduction=("mean", "none"), weight=(None, True), gamma=(None, 0.0, 0.7)),
        {"reduction": "sum", "weight": True, "gamma": 5.0},
        {"ignore_index": 2, "weight": True, "gamma": 1.0, "label_smoothing": 0.3},
    ),
    bad_calls=BAD_CALLS + BAD_DISTRIBUTIONS,
    extras={"gamma": 1.5, "label_smoothing": 0.1},
)

CLASS_LOSSES = (CROSS_ENTROPY, NLL, SOFTMAX_FOCAL)


def cases() -> Iterator[Case]:
    for loss in CLASS_LOSSES:
        for shape in loss.shapes:
            for options in loss.options:
                if options.get("ignore_index", -1) < class_count(shape):
                    yield Case(loss, shape, options)
