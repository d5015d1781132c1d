"""The CUDA kernels, compiled by the host compiler and run on the CPU, in the place of the CPU's own kernels."""

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.cpp_extension import get_cxx_compiler, include_paths, library_paths

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CSRC = ROOT / "csrc"

# The engine switches stacks in assembly, and knows how Linux maps them.
IS_SUPPORTED = platform.machine() in ("x86_64", "AMD64") and platform.system() == "Linux"

_FLAGS = ("-std=c++20", "-g1", "-fno-omit-frame-pointer", "-fPIC", "-Wall", "-Wno-unknown-pragmas")
# Of the kernels, and what tells the engine, which is never instrumented itself.
_SANITIZERS = {
    None: ((), ()),
    "address": (("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"), ("-DCUDA_EMU_ASAN",)),
    "thread": (("-fsanitize=thread",), ("-DCUDA_EMU_TSAN",)),
}

Source = tuple[Path, tuple[str, ...]]  # a file, and its flags


def compile_kernels(csrc: Path = CSRC, sanitizer: str | None = None) -> Path:
    """A library with the launchers of `csrc/cuda`, their kernels and those of the emulator's own tests."""
    kernel_flags, engine_flags = _SANITIZERS[sanitizer]
    engine = _library("engine", [HERE], [(HERE / "engine.cpp", ("-O2", *engine_flags))])
    flags = ("-O1", f"-I{HERE / 'include'}", f"-I{csrc}", *kernel_flags, "-x", "c++")
    sources = [(file, flags) for file in (*sorted(csrc.glob("cuda/*.cu")), HERE / "selftest.cu")]
    return _library("kernels", [HERE, csrc], sources, (*kernel_flags, str(engine)))


def _compile_binding() -> Path:
    flags = ("-O1", f"-I{CSRC}", *(f"-isystem{path}" for path in include_paths()))
    sources = [(file, flags) for file in (HERE / "binding.cpp", *sorted(CSRC.glob("host/*.cpp")))]
    return _library(
        "binding", [HERE, CSRC], sources, (*(f"-L{path}" for path in library_paths()), "-lc10", "-ltorch_cpu")
    )


def _library(name: str, folders: Sequence[Path], sources: Sequence[Source], link: Sequence[str] = ()) -> Path:
    """Compiles and links, unless there is a library that was made of just what is in these folders."""
    made_of = repr((sources, link, torch.__version__))
    for folder in folders:
        made_of = made_of.replace(str(folder), folder.name)  # wherever it is
    content = hashlib.sha256(made_of.encode())
    for path in sorted(path for folder in folders for path in folder.rglob("*.*") if path.suffix != ".pyc"):
        content.update(path.name.encode() + path.read_bytes())
    library = ROOT / "build" / "cuda_emu" / f"{name}-{content.hexdigest()[:16]}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def compile_one(source: Source) -> str:
            file, flags = source
            object_file = f"{folder}/{file.stem}.o"
            _run(get_cxx_compiler(), *_FLAGS, *flags, "-c", str(file), "-o", object_file)
            return object_file

        linked = f"{folder}/{library.name}"
        _run(get_cxx_compiler(), "-shared", *pool.map(compile_one, sources), *link, "-o", linked)
        os.replace(linked, library)  # at once: somebody else may be doing the same
    return library


def _run(*command: str) -> None:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{run.stdout}{run.stderr}")


class Emulator:
    """The CUDA kernels in this process. Of several libraries with kernels, a process can load one."""

    def __init__(self, kernels: Path) -> None:
        self.kernels = ctypes.CDLL(str(kernels), mode=ctypes.RTLD_GLOBAL)  # the binding calls what is in it
        self._binding = ctypes.CDLL(str(_compile_binding()))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the ops of ce_ext run the emulated CUDA kernels on CPU tensors."""
        self._binding.start_emulation()
        try:
            yield
        finally:
            self._binding.stop_emulation()
