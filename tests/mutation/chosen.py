"""Of the files that pytest collects, the tests that are chosen, in their order, as a plugin: thousands of names as
arguments take pytest longer to find than the tests take to run."""

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(Path(os.environ["CE_EXT_CHOSEN"]).read_text().splitlines())}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in order])
    items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])
