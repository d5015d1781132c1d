"""The rows of the losses of elements in the table that every test file and the benchmarks are driven by."""

from typing import Any

import torch
from torch import Tensor

import ce_ext
from tests.support import oracles, references
from tests.support.cases import BadCall, Loss


def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    alpha: Tensor | float = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
    **options: Any,
) -> Tensor:
    """With the mean for its default, as all other losses have it."""
    return ce_ext.functional.sigmoid_focal_loss(input, target, alpha, gamma, reduction, **options)


class SigmoidFocalLoss(ce_ext.nn.SigmoidFocalLoss):
    def __init__(self, reduction: str = "mean", **options: Any) -> None:
        super().__init__(reduction=reduction, **options)


def logit_inputs(
    shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Logits, and targets of which a third is neither 0 nor 1."""
    generator = torch.Generator(device).manual_seed(seed)
    input = torch.randn(shape, generator=generator, device=device).mul_(3).to(dtype)
    target = torch.rand(shape, generator=generator, device=device)
    return input, target.where(target < 1 / 3, target.gt(2 / 3).float()).to(dtype)


def probability_inputs(
    shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor]:
    input, target = logit_inputs(shape, dtype, device, seed)
    return (input / 3).sigmoid(), target


def _elements(*shape: int) -> Tensor:
    """Numbers that are logits as well as probabilities."""
    return torch.linspace(0, 1, torch.Size(shape).numel()).reshape(shape)


# Of all binary losses. The errors that are not torch's are those of the other losses for the same mistake.
BAD_CALLS = (
    BadCall("input list", lambda: ([0.0], _elements(1)), "input must be a Tensor, but got list", error=TypeError),
    BadCall("target list", lambda: (_elements(1), [0.0]), "target must be a Tensor, but got list", error=TypeError),
    BadCall("integer input", lambda: (_elements(4).long(), _elements(4)), "input .* Long", error=NotImplementedError),
    BadCall(
        "complex input",
        lambda: (_elements(4).cfloat(), _elements(4)),
        "input .* ComplexFloat",
        error=NotImplementedError,
    ),
    BadCall(
        "complex target", lambda: (_elements(4), _elements(4).cfloat()), "target .* ComplexFloat", error=RuntimeError
    ),
    BadCall("size", lambda: (_elements(3, 4), _elements(2, 4)), r"target .* \[3, 4\].* \[2, 4\]"),
    BadCall("dims", lambda: (_elements(3, 1), _elements(3)), r"target .* \[3, 1\].* \[3\]"),
    BadCall("labels of one class", lambda: (_elements(3, 1), torch.tensor([0, 1, 1])), r"target .* \[3, 1\].* \[3\]"),
    BadCall("target device", lambda: (_elements(4), _elements(4).to("meta")), "target on meta"),
    BadCall("reduction", lambda: (_elements(4), _elements(4)), "reduction .* 'avg'", {"reduction": "avg"}),
    BadCall(
        "weight size",
        lambda: (_elements(3, 4), _elements(3, 4)),
        r"weight must be broadcastable to .* \[3, 4\], but got shape \[3\]",
        {"weight": torch.ones(3)},
    ),
    BadCall(
        "weight dims",
        lambda: (_elements(3, 4), _elements(3, 4)),
        r"weight must be broadcastable to .* \[3, 4\], but got shape \[2, 3, 4\]",
        {"weight": torch.ones(2, 3, 4)},
    ),
    BadCall(
        "weight device",
        lambda: (_elements(4), _elements(4)),
        "weight on meta",
        {"weight": torch.ones(4, device="meta")},
    ),
    BadCall(
        "smoothing above 1",
        lambda: (_elements(4), _elements(4)),
        "label_smoothing must be between 0.0 and 1.0, but got 1.5",
        {"label_smoothing": 1.5},
        error=RuntimeError,
    ),
    BadCall(
        "NaN smoothing",
        lambda: (_elements(4), _elements(4)),
        "label_smoothing .* nan",
        {"label_smoothing": float("nan")},
        error=RuntimeError,
    ),
    BadCall(
        "on_empty", lambda: (_elements(4), _elements(4)), "on_empty .* 'one'", {"on_empty": "one"}, error=ValueError
    ),
    BadCall(
        "denominator without a mean",
        lambda: (_elements(4), _elements(4)),
        "denominator .* reduction is 'sum'",
        {"denominator": 3.0, "reduction": "sum"},
        error=ValueError,
    ),
)
BAD_LOGIT_CALLS = (
    *BAD_CALLS,
    BadCall(
        "pos_weight size",
        lambda: (_elements(3, 4), _elements(3, 4)),
        r"pos_weight must be broadcastable to .* \[3, 4\], but got shape \[3\]",
        {"pos_weight": torch.ones(3)},
    ),
    BadCall(
        "pos_weight device",
        lambda: (_elements(4), _elements(4)),
        "pos_weight on meta",
        {"pos_weight": torch.ones(4, device="meta")},
    ),
)
# Of those whose targets may be classes.
BAD_CLASSES = (
    BadCall(
        "class",
        lambda: (_elements(3, 4), torch.tensor([0, 4, 5])),
        r"target\[2\] = 5 is out of bounds: input has 4 classes, and 4 is the background",
        error=IndexError,
    ),
    BadCall(
        "negative class",
        lambda: (_elements(2, 3, 2), torch.tensor([[0, -100], [-1, 2]])),
        r"target\[1, 0\] = -1 is out of bounds",
        {"ignore_index": -100},
        error=IndexError,
    ),
    BadCall(
        "floating classes",
        lambda: (_elements(3, 4), torch.tensor([0.0, 1.0, 2.0])),
        r"target .* shape \[3\], but got Float of shape \[3\]",
        error=ValueError,
    ),
)

# Around the sizes where a kernel changes its ways: vectors, tiles, chunks, slices.
SHAPES = ((), (1,), (7,), (1, 1), (5, 3), (33, 100), (2, 1031), (3, 8200), (20, 1700), (2, 3, 4, 5))

BCE = Loss(
    name="binary_cross_entropy",
    function=ce_ext.functional.binary_cross_entropy,
    reference=references.binary_cross_entropy,
    oracle=oracles.binary_cross_entropy,
    module=ce_ext.nn.BCELoss,
    reference_module=references.BCELoss,
    make_inputs=probability_inputs,
    shapes=SHAPES,
    options=({}, {"label_smoothing": 0.2}),
    bad_calls=(
        *BAD_CALLS,
        BadCall("above 1", lambda: (torch.tensor([[0.5, 1.0], [1.5, 2.0]]), _elements(2, 2)), r"input\[1, 0\] = 1.5"),
        BadCall("below 0", lambda: (torch.tensor([0.5, -0.25]), _elements(2)), r"input\[1\] = -0.25"),
        BadCall("NaN", lambda: (torch.tensor(torch.nan), torch.tensor(0.0)), "input = nan"),
        BadCall("target above 1", lambda: (_elements(2), torch.tensor([1.0, 2.0])), r"target\[1\] = 2"),
        BadCall("target below 0", lambda: (_elements(2), torch.tensor([-0.25, 1.0])), r"target\[0\] = -0.25"),
        BadCall("NaN target", lambda: (_elements(2), torch.tensor([0.0, torch.nan])), r"target\[1\] = nan"),
        BadCall(
            "target that is no label",
            lambda: (_elements(2, 2), torch.tensor([[0, 1], [2, 1]])),
            r"target\[1, 0\] = 2",
            error=RuntimeError,  # torch refuses integers
        ),
    ),
    extras={"label_smoothing": 0.1},
    is_binary=True,
)

BCE_WITH_LOGITS = Loss(
    name="binary_cross_entropy_with_logits",
    function=ce_ext.functional.binary_cross_entropy_with_logits,
    reference=references.binary_cross_entropy_with_logits,
    oracle=oracles.binary_cross_entropy_with_logits,
    module=ce_ext.nn.BCEWithLogitsLoss,
    reference_module=references.BCEWithLogitsLoss,
    make_inputs=logit_inputs,
    shapes=SHAPES,
    options=({}, {"label_smoothing": 0.2}, {"pos_weight": True}),
    bad_calls=BAD_LOGIT_CALLS,
    extras={"label_smoothing": 0.1},
    is_binary=True,
)

SIGMOID_FOCAL = Loss(
    name="sigmoid_focal_loss",
    function=sigmoid_focal_loss,
    reference=references.sigmoid_focal_loss,
    oracle=oracles.sigmoid_focal_loss,
    module=SigmoidFocalLoss,
    reference_module=references.SigmoidFocalLoss,
    make_inputs=logit_inputs,
    shapes=SHAPES,
    options=(
        {},
        {"gamma": 0.0},
        {"gamma": 1.0, "alpha": -1.0},
        {"gamma": 0.5},
        {"gamma": 3.7, "alpha": 0.9, "label_smoothing": 0.2, "pos_weight": True},
    ),
    bad_calls=(
        *BAD_LOGIT_CALLS,
        BadCall(
            "negative gamma", lambda: (_elements(4), _elements(4)), "gamma .* -1", {"gamma": -1.0}, error=ValueError
        ),
        BadCall("alpha", lambda: (_elements(4), _elements(4)), "alpha .* -0.5", {"alpha": -0.5}, error=ValueError),
        BadCall("alpha above 1", lambda: (_elements(4), _elements(4)), "alpha .* 2", {"alpha": 2}, error=ValueError),
        BadCall(
            "alpha size",
            lambda: (_elements(3, 4), _elements(3, 4)),
            r"alpha must be broadcastable .* \[3\]",
            {"alpha": torch.ones(3)},
            error=RuntimeError,
        ),
        BadCall(
            "alpha requires grad",
            lambda: (_elements(4), _elements(4)),
            "alpha is not differentiable",
            {"alpha": torch.ones(4, requires_grad=True)},
            error=RuntimeError,
        ),
        *BAD_CLASSES,
    ),
    extras={"gamma": 1.5, "alpha": 0.4, "label_smoothing": 0.1},
    is_binary=True,
)

ASYMMETRIC = Loss(
    name="asymmetric_loss",
    function=ce_ext.functional.asymmetric_loss,
    reference=references.asymmetric_loss,
    oracle=oracles.asymmetric_loss,
    module=ce_ext.nn.AsymmetricLoss,
    reference_module=references.AsymmetricLoss,
    make_inputs=logit_inputs,
    shapes=SHAPES,
    options=(
        {},
        {"gamma_neg": 0.0, "gamma_pos": 0.0, "margin": 0.0},
        {"gamma_neg": 3.0, "gamma_pos": 0.0, "margin": 0.3},
        {"gamma_neg": 0.5, "gamma_pos": 2.0},
        {"gamma_neg": 3.7, "gamma_pos": 1.5, "margin": 0.0, "label_smoothing": 0.2, "pos_weight": True},
    ),
    bad_calls=(
        *BAD_LOGIT_CALLS,
        *(
            BadCall(
                f"{name} {value}",
                lambda: (_elements(4), _elements(4)),
                f"{name} .* {value:g}",
                {name: value},
                error=ValueError,
            )
            for name, values in {
                "gamma_neg": (-1.0, "inf"),
                "gamma_pos": (-1.0, "nan"),
                "margin": (-0.5, 1.0, "nan"),
            }.items()
            for value in map(float, values)
        ),
        *BAD_CLASSES,
    ),
    extras={"gamma_neg": 2.5, "gamma_pos": 1.5, "margin": 0.1, "label_smoothing": 0.1},
    is_binary=True,
)

BINARY_LOSSES = (BCE, BCE_WITH_LOGITS, SIGMOID_FOCAL, ASYMMETRIC)
