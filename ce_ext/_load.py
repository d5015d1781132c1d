"""Finds and loads the compiled libraries, and says what to do when they do not fit."""

import importlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

_FOLDER = Path(__file__).resolve().parent
_BUILD = "pip install --no-build-isolation -e ."
_REBUILD = "pip install --force-reinstall --no-deps --no-build-isolation ."

# What torch reports as its own instruction set, and the libraries that run on such a CPU, best first.
_ISAS_FOR_CAPABILITY = {"AVX512": ("avx512", "avx2", "default"), "AVX2": ("avx2", "default")}


def load_libraries() -> None:
    """Registers the ops, their kernels for this CPU and, if they were built, those for CUDA."""
    _check_torch_version()
    load_backend = importlib.import_module("ce_ext._C").load_backend
    load_backend("cpu", str(cpu_library()[1]))
    cuda_library = _path("_cuda")
    if cuda_library.exists():
        load_backend("cuda", str(cuda_library))


def cpu_library() -> tuple[str, Path]:
    """The instruction set of the CPU library in use, and its file.

    It is the best that `torch.backends.cpu.get_cpu_capability()` allows, so that the environment variable
    ATEN_CPU_CAPABILITY chooses here as it does in torch.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    for isa in _ISAS_FOR_CAPABILITY.get(capability, ("default",)):
        library = _path(f"_cpu_{isa}")
        if library.exists():
            return isa, library
    raise ImportError(f"ce_ext was built without a CPU library for {capability}. Rebuild it: {_REBUILD}")


def _path(name: str) -> Path:
    return Path(__file__).with_name(name + EXTENSION_SUFFIXES[0])


def _check_torch_version() -> None:
    try:
        built_with = importlib.import_module("ce_ext._built_with")
    except ModuleNotFoundError:
        raise ImportError(_why_not_built()) from None
    if (folder := Path(built_with.__file__ or "").resolve().parent) != _FOLDER:
        raise ImportError(_why_not_built(folder))  # of an editable install, which fills in what is missing here
    if _major_minor(built_with.TORCH) != _major_minor(torch.__version__):
        raise ImportError(
            f"ce_ext was built with torch {built_with.TORCH}, but torch {torch.__version__} is installed, and their "
            f"C++ interfaces differ. Rebuild ce_ext from its source folder: {_REBUILD}"
        )


def _why_not_built(elsewhere: Path | None = None) -> str:
    folders = [Path(entry).resolve() / "ce_ext" for entry in sys.path]
    found = [folder for folder in folders if folder != _FOLDER and (folder / "_built_with.py").exists()]
    installed = found[0] if found else elsewhere
    if installed is None:
        return f"ce_ext has not been built in this folder, {_FOLDER}. Build and install it: {_BUILD}"
    return (
        f"ce_ext is installed in {installed}, but Python imports the sources in {_FOLDER}, which have not been built, "
        f"because that folder comes first. Run from another folder, or build them there: {_BUILD}"
    )


def _major_minor(version: str) -> list[str]:
    return version.split(".")[:2]
