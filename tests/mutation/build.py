"""One build with every bug in it, for the instruction set of this machine, compiled in a hurry."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from ce_ext import _load
from tests.mutation.planted import Planted, plant
from tests.support.forks import ROOT

BUILD = ROOT / "build" / "mutation"
COPIED = ("csrc", "ce_ext", "tests", "benchmarks", "tools", "build_backend", "setup.py", "pyproject.toml")
IGNORED = shutil.ignore_patterns("*.so", "*.pyc", "__pycache__", "_built_with.py")

HEADER = """#pragma once
extern "C" __attribute__((visibility("default"))) int ce_ext_mutant;
inline bool mutant_is(int number) { return ce_ext_mutant == number; }
"""
DEFINITION = 'extern "C" __attribute__((visibility("default"))) int ce_ext_mutant = -1;\n'

# Of setup.py: what is compiled how.
FLAGS = 'CXX_FLAGS = ["-O3",'
BEFORE_CUDA = "try:\n    CUDA_ARCHS"


def build(mutants: tuple[Planted, ...]) -> Path:
    """The folder of a copy of this project, built with these bugs; kept until something changes."""
    isa = _load.cpu_library()[0]
    content = hashlib.sha256(repr((isa, mutants)).encode())
    for part in COPIED:
        files = [ROOT / part] if (ROOT / part).is_file() else sorted((ROOT / part).rglob("*.*"))
        for file in files:
            if file.is_file() and file.suffix in (".h", ".cpp", ".py", ".toml") and file.name != "_built_with.py":
                content.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    folder = BUILD / content.hexdigest()[:16]
    BUILD.mkdir(parents=True, exist_ok=True)
    with FileLock(BUILD / "lock"):
        if not (folder / "ce_ext" / "_built_with.py").exists():
            for old in BUILD.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            _copy(folder)
            plant(enumerate(mutants), folder)
            _add_switch(folder, isa)
            command = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
            environment = os.environ | {"CE_EXT_CUDA": "0", "PYTHONPATH": str(folder / "build_backend")}
            run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if run.returncode:
                raise RuntimeError(f"{run.stdout}{run.stderr}"[-20_000:])
    return folder


def _copy(folder: Path) -> None:
    for part in COPIED:
        if (ROOT / part).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / part, folder / part)
        else:
            shutil.copytree(ROOT / part, folder / part, ignore=IGNORED)


def _add_switch(folder: Path, isa: str) -> None:
    (folder / "csrc" / "mutant_switch.h").write_text(HEADER)
    for part in ("cpu", "host"):  # a file of each library
        (folder / "csrc" / part / "mutant_switch.cpp").write_text(DEFINITION)
    setup = (folder / "setup.py").read_text()
    for old, new in (
        (FLAGS, 'CXX_FLAGS = ["-O1", "-include", os.path.abspath("csrc/mutant_switch.h"),'),
        (BEFORE_CUDA, f'ISA_FLAGS = {{"{isa}": ISA_FLAGS["{isa}"]}}\n\n{BEFORE_CUDA}'),
    ):
        if setup.count(old) != 1:
            raise RuntimeError(f"setup.py does not have once: {old}")
        setup = setup.replace(old, new)
    (folder / "setup.py").write_text(setup)
