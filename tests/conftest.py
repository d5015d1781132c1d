import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ce_ext
from tests import cuda_emu
from tests.support.cases import DEVICES
from tests.support.tiers import mark_thorough


def pytest_addoption(parser: pytest.Parser) -> None:
    help = "run only the tests of this device, or those that have none; may be repeated"
    parser.addoption("--device", action="append", choices=("cpu", "emulated", "cuda", "none"), help=help)
    help = "a library with the emulated CUDA kernels, in place of the one that is compiled from csrc"
    parser.addoption("--emulated-kernels", type=Path, metavar="FILE", help=help)


def pytest_configure() -> None:
    """MKL's functions choose their kernels in their first call. In two threads at a time that may take one of low
    accuracy (pytorch/pytorch#188792), of which the float64 formulas that tests compare with would be wrong by 3e-9."""
    for dtype in (torch.float32, torch.float64):
        one = torch.ones(1, dtype=dtype)
        for function in (torch.exp, torch.expm1, torch.log, torch.log1p, torch.tanh, torch.sqrt):
            function(one)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Everything runs on the CPU and a GPU; tests of kernels also run the CUDA kernels without a GPU."""
    if "device" in metafunc.fixturenames:
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        is_emulated = cuda_emu.IS_SUPPORTED and "kernel" in marks and "not_emulated" not in marks
        devices = (*DEVICES, *(("emulated",) if is_emulated else ()))
        if "not_cpu" in marks:
            devices = devices[1:]
        metafunc.parametrize("device", devices, indirect=True)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Short ones, which -k can tell apart: float32, 3x257."""
    if isinstance(val, torch.dtype):
        return str(val).removeprefix("torch.")
    if val and isinstance(val, tuple) and all(type(x) is int for x in val):
        return "x".join(map(str, val))
    return None


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mark_thorough(items)
    if chosen := config.getoption("--device"):
        is_chosen = {item: (_device_of(item) or "none") in chosen for item in items}
        config.hook.pytest_deselected(items=[item for item in items if not is_chosen[item]])
        items[:] = [item for item in items if is_chosen[item]]


def pytest_collection_finish() -> None:
    """Tests are a million objects that stay. torch's compiler and the benchmark ask for collections, over and over."""
    gc.collect()
    gc.freeze()


def _device_of(item: pytest.Item) -> str | None:
    for fixture, device in (("emulator", "emulated"), ("gpu", "cuda")):
        if fixture in item.fixturenames:
            return device
    return item.callspec.params.get("device") if hasattr(item, "callspec") else None


@pytest.fixture(scope="session")
def emulator(request: pytest.FixtureRequest) -> cuda_emu.Emulator:
    return cuda_emu.Emulator(request.config.getoption("--emulated-kernels") or cuda_emu.compile_kernels())


@pytest.fixture
def gpu() -> str:
    """The device of tests that nothing else can run."""
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return "cuda"


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device to put tensors on; that of the emulated CUDA kernels is the CPU.

    Of bad targets that kernels report, a test has to ask: one that is left is a report that should not be.
    """
    if request.param == "emulated":
        with request.getfixturevalue("emulator").running():
            yield "cpu"
            ce_ext.cuda.check()
    else:
        yield request.param
        if request.param == "cuda":
            ce_ext.cuda.check()


@pytest.fixture
def runs_cuda_kernels(request: pytest.FixtureRequest) -> bool:
    return _device_of(request.node) != "cpu"


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Makes torch fill new tensors with NaN, so that no result can be right by what was there before."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
