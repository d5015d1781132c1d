"""Company of more than two: Hypothesis draws configurations of the same factors as the covering arrays have, and of one
that fails it finds the values that it needs to."""

from typing import Any

import pytest
import torch

from tests.support.company_results import SUBJECTS, check
from tests.support.company_tensors import Configuration

pytest.importorskip("hypothesis")
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.losses.softmax.test_properties import SETTINGS

pytestmark = [pytest.mark.kernel, pytest.mark.heavy]

FLOAT, DOUBLE = torch.float32, torch.float64


def configurations(name: str) -> st.SearchStrategy[Configuration]:
    @st.composite
    def configuration(draw: st.DrawFn) -> Configuration:
        return SUBJECTS[name].configure(lambda values: draw(st.sampled_from(values)))

    return configuration()


def calls() -> st.SearchStrategy[tuple[str, Configuration]]:
    """The name of a function, and a configuration of it."""
    return st.sampled_from(list(SUBJECTS)).flatmap(lambda name: st.tuples(st.just(name), configurations(name)))


def _call(name: str, **values: Any) -> tuple[str, Configuration]:
    """One with these values, and else with the first of every factor, where all options are off."""
    return name, SUBJECTS[name].configure(lambda choices: choices[0]) | values


@SETTINGS
@given(call=calls())
# A row weight has the dtype of logits that wider targets promote.
@example(call=_call("cross_entropy_of_probabilities", dtype=FLOAT, target_dtype=DOUBLE, sample_weight=FLOAT))
# Sums of many terms that are alike, which one thread adds up.
@example(
    call=_call(
        "softmax_focal_loss_of_probabilities",
        **{"dtype": FLOAT, "target_dtype": FLOAT, "classes": 33_000, "rows": 1, "dim": 0, "return_stats": True},
        **{"layout": "first expanded", "target_layout": "first expanded"},
    )
)
# Positive targets of classes whose alpha is small.
@example(
    call=_call("sigmoid_focal_loss", dtype=FLOAT, target_dtype=FLOAT, reduction="none", rows=257, alpha="elements")
)
def test_any_company(call: tuple[str, Configuration], device: str) -> None:
    check(*call, device)


@pytest.mark.thorough
@pytest.mark.parametrize("name", SUBJECTS)
@settings(SETTINGS, max_examples=200)
@given(data=st.data())
def test_company_of_each(name: str, data: st.DataObject, device: str) -> None:
    check(name, data.draw(configurations(name)), device)
