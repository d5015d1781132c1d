"""The CUDA kernels, compiled by the host compiler and run on the CPU, in the place of the CPU's own kernels."""

import ctypes
import functools
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
from filelock import FileLock
from torch.utils.cpp_extension import get_cxx_compiler, include_paths, library_paths

from ce_ext import _C, _load

ROOT = Path(__file__).parent.parent.parent
# What is compiled, below the root.
CSRC, EMULATOR = Path("csrc"), Path("tests", "cuda_emu")
BUILD = ROOT / "build" / "cuda_emu"

# The engine switches stacks in assembly, and knows how Linux maps them.
IS_SUPPORTED = platform.machine() in ("x86_64", "AMD64") and platform.system() == "Linux"

_FLAGS = ("-std=c++20", "-g1", "-fno-omit-frame-pointer", "-fPIC", "-Wall", "-Wno-unknown-pragmas")
# What tells the engine, which is never instrumented itself, of the sanitizers that it has to help.
_TOLD = {"address": "-DCUDA_EMU_ASAN", "thread": "-DCUDA_EMU_TSAN"}

Source = tuple[Path, tuple[str, ...]]  # a file, and its flags


def compile_kernels(root: Path = ROOT, sanitizer: str | None = None, changed: Sequence[str] | None = None) -> Path:
    """A library with the launchers of `csrc/cuda`, their kernels and those of the emulator's own tests.

    `sanitizer` is what -fsanitize takes. With `changed`, only the sources of these names are the ones in `root`, for a
    few tests: they alone are sanitized, and compiled in a hurry. They come first: of an inline function that several
    objects have, the linker takes the first.
    """
    sanitizers = sanitizer.split(",") if sanitizer else []
    sanitized = (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all") if sanitizer else ()
    engine_flags = [_TOLD[name] for name in sanitizers if name in _TOLD]
    parts = [(root / EMULATOR / part, ("-O2", *engine_flags)) for part in ("engine.cpp", "copies.cpp")]
    engine = compile_library("engine", root, [EMULATOR], parts)

    def source(file: Path) -> Source:
        is_changed = changed is not None and file.stem in changed
        of = root if is_changed or changed is None else ROOT
        include = (f"-I{of / EMULATOR / 'include'}", f"-I{of / CSRC}")
        kernel_flags = sanitized if is_changed or changed is None else ()
        return of / file, ("-O0" if is_changed else "-O1", *include, *kernel_flags, "-x", "c++")

    found = (*(root / CSRC).glob("cuda/**/*.cu"), *(root / EMULATOR).glob("selftest*.cu"))
    files = [file.relative_to(root) for file in found]
    sources = [source(file) for file in sorted(files, key=lambda file: (file.stem not in (changed or ()), file))]
    link = (*sanitized, f"-L{engine.parent}", f"-l:{engine.name}", "-Wl,-rpath,$ORIGIN")
    return compile_library("kernels", root, [CSRC, EMULATOR], sources, link)


def _compile_binding() -> Path:
    csrc, emulator = ROOT / CSRC, ROOT / EMULATOR
    flags = ("-O1", f"-I{csrc}", *(f"-isystem{path}" for path in include_paths()))
    sources = [(emulator / "binding.cpp", flags), (csrc / "cuda" / "host" / "bad_target.cpp", flags)]
    link = (*(f"-L{path}" for path in library_paths()), "-lc10", "-ltorch_cpu")
    return compile_library("binding", ROOT, [CSRC, EMULATOR], sources, link)


def compile_library(
    name: str, root: Path, folders: Sequence[Path], sources: Sequence[Source], link: Sequence[str] = ()
) -> Path:
    """Compiles and links, unless there is a library that was made of just what is in these folders."""
    made_of = repr((sources, link, torch.__version__)).replace(str(root), "")  # wherever that is
    content = hashlib.sha256(made_of.encode())
    files = (path for folder in folders for path in (root / folder).rglob("*.*") if path.suffix != ".pyc")
    for path in sorted(files):
        content.update(path.name.encode() + path.read_bytes())
    library = BUILD / f"{name}-{content.hexdigest()[:16]}.so"
    if library.exists():
        return library
    BUILD.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(
            pool.map(lambda source: _object(*source, None if source[0].is_relative_to(ROOT) else root), sources)
        )
    _make(library, get_cxx_compiler(), "-shared", *map(str, objects), *link)
    return library


@functools.cache  # nobody changes the sources of this folder while tests run
def _object(file: Path, flags: tuple[str, ...], elsewhere: Path | None) -> Path:
    """Compiles a file, unless the preprocessor makes the same of it as of one that has been compiled."""
    command = (get_cxx_compiler(), *_FLAGS, *flags)
    text = repr(command) + _run(*command, "-E", str(file))
    for root in (elsewhere, ROOT):
        text = text.replace(str(root), "")
    compiled = BUILD / f"{file.stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.o"
    _make(compiled, *command, "-c", str(file))
    return compiled


def _make(output: Path, *command: str) -> None:
    """Once, if several processes ask for it, and all at once."""
    with FileLock(BUILD / f"{output.name}.lock"):
        if not output.exists():
            with tempfile.TemporaryDirectory(dir=output.parent) as folder:
                made = Path(folder, output.name)
                _run(*command, "-o", str(made))
                os.replace(made, output)


def _run(*command: str) -> str:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{run.stdout}{run.stderr}")
    return run.stdout


class Emulator:
    """The CUDA kernels in this process. Of several libraries with kernels, a process can load one."""

    def __init__(self, kernels: Path) -> None:
        self.kernels = ctypes.CDLL(str(kernels), mode=ctypes.RTLD_GLOBAL)  # the binding calls what is in it
        self._backend = _compile_binding()
        self._binding = ctypes.CDLL(str(self._backend))
        self._binding.last_allocated_bytes.restype = ctypes.c_int64
        self._binding.last_had_counters.restype = ctypes.c_bool

    def memory_of_last_launch(self) -> tuple[int, bool]:
        """The bytes that it has allocated, and whether it has asked for counters."""
        return self._binding.last_allocated_bytes(), self._binding.last_had_counters()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the ops of ce_ext run the emulated CUDA kernels on CPU tensors."""
        _C.load_backend("cpu", str(self._backend))
        self._binding.register_ops_of_cuda()
        try:
            yield
        finally:
            self._binding.unregister_ops_of_cuda()
            _C.load_backend("cpu", str(_load.cpu_library()[1]))
