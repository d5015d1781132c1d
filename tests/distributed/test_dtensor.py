"""Losses of DTensors are those of the full tensors, and nothing of the size of the logits is sent."""

import json
import subprocess
import sys

import pytest
import torch
from filelock import FileLock

from tests.distributed import processes
from tests.distributed.cases import CASES, CASES_2D, CHECKS

pytestmark = [
    pytest.mark.torch_modes,
    pytest.mark.skipif(
        not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch has no gloo"
    ),
]
SPECIAL = [name for name in CHECKS if name not in {str(case) for case in (*CASES, *CASES_2D)}]


@pytest.fixture(scope="session")
def failures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of all checks that were chosen, run by the first who asks."""
    shared = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # one of several processes of pytest, which all choose the same
        shared = shared.parent
    chosen = [item.callspec.params["check"] for item in request.session.items if "failures" in item.fixturenames]
    results = shared / "distributed.json"
    with FileLock(f"{results}.lock"):
        if not results.exists():
            meshes = {(2,): [], (2, 2): []}
            for check in chosen:
                meshes[(2, 2) if check in CASES_2D else (2,)].append(str(check))
            found = {}
            for shape, names in meshes.items():
                if names:
                    found |= processes.run(names, shape, tmp_path_factory.mktemp("distributed"))
            results.write_text(json.dumps(found))
    return json.loads(results.read_text())


def _assert_passed(check: object, failures: dict[str, str]) -> None:
    if failures[str(check)]:
        pytest.fail(failures[str(check)], pytrace=False)


@pytest.mark.covering(2)
@pytest.mark.parametrize("check", CASES, ids=str)
def test_full_tensors(check, failures):
    _assert_passed(check, failures)


@pytest.mark.thorough
@pytest.mark.parametrize("check", CASES_2D, ids=str)
def test_mesh_of_two_dimensions(check, failures):
    _assert_passed(check, failures)


@pytest.mark.parametrize("check", SPECIAL)
def test_special(check, failures):
    _assert_passed(check, failures)


def test_dtensor_is_not_imported(tmp_path):
    """Nor is the compiler, by who has no DTensor: both take longer to import than ce_ext."""
    program = """
import sys, torch, ce_ext
ce_ext.functional.cross_entropy(torch.nn.Parameter(torch.zeros(2, 3)), torch.tensor([0, 1])).backward()
print([name for name in ("torch.distributed.tensor", "torch._dynamo") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=processes.environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
