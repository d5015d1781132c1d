import pytest
import torch

from tests.cases import DEVICES


def pytest_addoption(parser: pytest.Parser) -> None:
    help = "run only the tests of this device, and none that have no device; may be repeated"
    parser.addoption("--device", action="append", choices=("cpu", "emulated", "cuda"), help=help)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if chosen := config.getoption("--device"):
        device_of = {item: item.callspec.params.get("device") for item in items if hasattr(item, "callspec")}
        config.hook.pytest_deselected(items=[item for item in items if device_of.get(item) not in chosen])
        items[:] = [item for item in items if device_of.get(item) in chosen]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
