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
