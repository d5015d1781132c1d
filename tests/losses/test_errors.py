"""Bad input raises what torch raises, in words that name the argument and show the value."""

import pytest
import torch
from torch import Tensor

from ce_ext.options import CrossEntropyOptions
from tests.support.cases import BadCall, Loss
from tests.support.losses import LOSSES
from tests.support.marks import ALL_CLASS_LOSSES

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


@ALL_CLASS_LOSSES
@pytest.mark.parametrize("classes", [5, 100])
def test_bad_target_names_the_first_row_whatever_the_threads(loss: Loss, classes: int) -> None:
    """A thread comes to it at the end of its share, while the next one finds others from the start of its own on."""
    target = torch.zeros(200_000, dtype=torch.int64)
    target[99_900:] = classes
    input = torch.zeros(classes).expand(200_000, classes)
    for _ in range(20):
        with pytest.raises(IndexError, match=rf"target\[99900\] = {classes} is out of bounds: input has {classes}"):
            loss.function(input, target)


@pytest.mark.parametrize("input_is_log_prob", [False, True])
def test_bad_target_in_backward(input_is_log_prob: bool) -> None:
    """The backward op is public, and trusts no forward to have looked."""
    op = torch.ops.ce_ext.cross_entropy_backward
    input, stats = torch.zeros(3, 5), torch.zeros(3, 0 if input_is_log_prob else 3)
    options = CrossEntropyOptions(0, -100, input_is_log_prob=input_is_log_prob).of_backward()
    with pytest.raises(IndexError, match=r"target\[1\] = 5"):
        op(torch.ones(3), input, torch.tensor([0, 5, 1]), None, None, stats, torch.empty(0), *options)


def test_backward_checks_what_it_gets_from_forward() -> None:
    input, target = torch.zeros(3, 5), torch.tensor([0, 4, 1])
    options = CrossEntropyOptions(reduction=1, ignore_index=-100)
    _, stats, denominator, *_ = torch.ops.ce_ext.cross_entropy_forward(input, target, None, None, *options)
    good = {"grad_output": torch.ones(()), "stats": stats, "denominator": denominator}

    def call(grad_output: Tensor, stats: Tensor | None, denominator: Tensor) -> Tensor:
        others = (input, target, None, None, stats, denominator, *options.of_backward())
        return torch.ops.ce_ext.cross_entropy_backward(grad_output, *others)

    bad = {
        "grad_output": (torch.ones(3), torch.ones(()).double()),
        "stats": (torch.zeros(2, 3), torch.zeros(3), torch.zeros(3, 3).double()),
        "denominator": (torch.ones(0), torch.ones(3), torch.ones(()).half()),
    }
    one_hot = torch.nn.functional.one_hot(target, 5)
    torch.testing.assert_close(call(**good), (0.2 - one_hot) / 3)
    for name, values in bad.items():
        for value in values:
            with pytest.raises(RuntimeError, match=f"{name} must be a .* tensor of shape"):
                call(**good | {name: value})
    with pytest.raises(RuntimeError, match="stats must be a Tensor, but got None"):
        call(good["grad_output"], None, good["denominator"])
