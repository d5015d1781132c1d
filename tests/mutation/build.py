"""One build with every bug in it, compiled in a hurry."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from filelock import FileLock

from ce_ext import _load
from tests.mutation.copies import BUILD, COMPILED, READ, copy_parts
from tests.mutation.planted import Planted, plant
from tests.support.forks import ROOT

BUILT = BUILD / "planted"

HEADER = """#pragma once
extern "C" __attribute__((visibility("default"))) int ce_ext_mutant;
inline bool mutant_is(int number) { return ce_ext_mutant == number; }
"""
DEFINITION = 'extern "C" __attribute__((visibility("default"))) int ce_ext_mutant = -1;\n'

# Of setup.py: what is compiled how.
FLAGS = 'CXX_FLAGS = ["-O3",'
BEFORE_CUDA = "try:\n    CUDA_ARCHS"


def isas() -> list[str]:
    """Those of this machine that have bugs of their own."""
    best = _load.cpu_library()[0]
    return [best, "avx2"] if best == "avx512" else [best]


def build(mutants: tuple[Planted, ...]) -> Path:
    """The folder of a copy of this project, built with these bugs, and with the tests as they are now."""
    changes = [(mutant.place((ROOT / mutant.file).read_text()), mutant.old, mutant.new) for mutant in mutants]
    content = hashlib.sha256(repr((isas(), changes, torch.__version__)).encode())
    for part in COMPILED:
        for file in sorted((ROOT / part, *(ROOT / part).rglob("*.*"))):
            if file.is_file() and file.suffix != ".pyc":
                content.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    folder = BUILT / content.hexdigest()[:16]
    BUILD.mkdir(parents=True, exist_ok=True)
    with FileLock(BUILD / "lock"):
        copy_parts(READ, folder)
        if not (folder / "ce_ext" / "_built_with.py").exists():
            for old in BUILT.iterdir():
                if old != folder:
                    shutil.rmtree(old)
            copy_parts(COMPILED, folder)
            plant(enumerate(mutants), folder)
            _add_switch(folder)
            command = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
            environment = os.environ | {"CE_EXT_CUDA": "0", "PYTHONPATH": str(folder / "build_backend")}
            run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if run.returncode:
                raise RuntimeError(f"{run.stdout}{run.stderr}"[-20_000:])
    return folder


def _add_switch(folder: Path) -> None:
    (folder / "csrc" / "mutant_switch.h").write_text(HEADER)
    for part in ("cpu", "host"):  # a file of each library
        (folder / "csrc" / part / "mutant_switch.cpp").write_text(DEFINITION)
    setup = (folder / "setup.py").read_text()
    for old, new in (
        (FLAGS, 'CXX_FLAGS = ["-O1", "-include", os.path.abspath("csrc/mutant_switch.h"),'),
        (BEFORE_CUDA, f"ISA_FLAGS = {{isa: ISA_FLAGS[isa] for isa in {isas()}}}\n\n{BEFORE_CUDA}"),
    ):
        if setup.count(old) != 1:
            raise RuntimeError(f"setup.py does not have once: {old}")
        setup = setup.replace(old, new)
    (folder / "setup.py").write_text(setup)
