"""Copies of this project, for bugs to be planted in."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.support.forks import ROOT

BUILD = ROOT / "build" / "mutation"
COMPILED = ("csrc", "build_backend", "setup.py", "pyproject.toml")
READ = ("ce_ext", "tests", "benchmarks", "examples", "tools")
_PRODUCTS = ("*.so", "_built_with.py")


def copy_parts(parts: Iterable[str], folder: Path, products: bool = False) -> None:
    """Over what is in that folder; with what was compiled, or without."""
    ignored = shutil.ignore_patterns("*.pyc", "__pycache__", *(() if products else _PRODUCTS))
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if (ROOT / part).is_file():
            shutil.copy(ROOT / part, folder / part)
        else:
            shutil.copytree(ROOT / part, folder / part, ignore=ignored, dirs_exist_ok=True)
