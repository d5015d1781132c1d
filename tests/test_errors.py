"""Bad input raises what torch raises, in words that name the argument and show the value."""

import pytest
import torch

import ce_ext
from tests.cases import LOSSES, BadCall, Loss

CALLS = [(loss, call) for loss in LOSSES for call in loss.bad_calls]


@pytest.mark.parametrize(("loss", "call"), CALLS, ids=lambda x: x.name)
def test_bad_call(loss: Loss, call: BadCall) -> None:
    expected = call.error
    if expected is None:
        with pytest.raises(Exception) as torch_error:  # noqa: PT011  (whatever torch raises is what is expected)
            loss.reference(*call.arguments(), **call.options)
        expected = torch_error.type
    with pytest.raises(expected, match=call.message) as error:
        loss.function(*call.arguments(), **call.options)
    assert error.type is expected


@pytest.mark.parametrize("classes", [5, 100])
def test_bad_target_names_the_first_row_whatever_the_threads(classes: int) -> None:
    target = torch.zeros(20000, dtype=torch.int64)
    target[[777, 12000, 19999]] = classes
    for _ in range(5):
        with pytest.raises(IndexError, match=rf"target\[777\] = {classes} is out of bounds: input has {classes}"):
            ce_ext.functional.cross_entropy(torch.zeros(20000, classes), target)


def test_bad_target_in_backward() -> None:
    """The backward op is public, and trusts no forward to have looked."""
    op = torch.ops.ce_ext.cross_entropy_backward
    input, stats = torch.zeros(3, 5), torch.zeros(3, 2)
    with pytest.raises(IndexError, match=r"target\[1\] = 5"):
        op(torch.ones(3), input, torch.tensor([0, 5, 1]), None, stats, torch.empty(0), 0, -100, 0.0, 0)


def test_backward_checks_what_it_gets_from_forward() -> None:
    op = torch.ops.ce_ext.cross_entropy_backward
    input, target = torch.zeros(3, 5), torch.tensor([0, 4, 1])
    good = {"grad_output": torch.ones(()), "stats": torch.zeros(3, 2), "denominator": torch.ones(())}
    bad = {
        "grad_output": (torch.ones(3), torch.ones(()).double()),
        "stats": (torch.zeros(2, 2), torch.zeros(3), torch.zeros(3, 2).double()),
        "denominator": (torch.ones(0), torch.ones(3), torch.ones(()).half()),
    }
    op(good["grad_output"], input, target, None, good["stats"], good["denominator"], 1, -100, 0.0, 0)
    for name, values in bad.items():
        for value in values:
            tensors = good | {name: value}
            with pytest.raises(RuntimeError, match=f"{name} must be a .* tensor of shape"):
                op(
                    tensors["grad_output"], input, target, None, tensors["stats"], tensors["denominator"],
                    1, -100, 0.0, 0,
                )  # fmt: skip
