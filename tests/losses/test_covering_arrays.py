"""Every value of every factor of a function in the company of every value of every other: tests/support/company.py says
which factors there are, and what does not go together."""

import pytest

from tests.support.company_results import SUBJECTS, array, check

# The first configurations have most of the pairs.
FIRST = 100
FIRST_ON_CUDA = 50


@pytest.mark.kernel
@pytest.mark.parametrize("part", ["first", pytest.param("others", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", SUBJECTS)
def test_every_pair(name: str, part: str, device: str, runs_cuda_kernels: bool) -> None:
    first = FIRST_ON_CUDA if runs_cuda_kernels else FIRST
    failures = []
    for configuration in array(name)[:first] if part == "first" else array(name)[first:]:
        try:
            check(name, configuration, device)
        except Exception as error:
            failures.append(f"check({name!r}, {configuration}, {device!r})\n{type(error).__name__}: {error}")
    assert not failures, "\n\n".join(failures)
