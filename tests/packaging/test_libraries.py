"""The compiled libraries: which one is chosen, that each of them is right, and what the import checks."""

import functools
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import ce_ext
from ce_ext import _C, _load, info
from tests.support.forks import KERNEL_TESTS, Forks

ISAS = _C.cpu_isas.split(";")
# Every library that this machine can run: a machine runs what it reports and all that is less.
RUNNABLE = {"AVX512": ("avx512", "avx2", "default"), "AVX2": ("avx2", "default")}.get(
    torch.backends.cpu.get_cpu_capability(), ("default",)
)

IS_GCC = _C.compiler[0].isdigit()  # others put their name before the number

# The loop over the logits of a row, in the disassembly of a library.
SUMS_OF_A_ROW = re.compile(
    r"^[0-9a-f]+ <ce_ext::SoftmaxSums<.* ce_ext::cpu::softmax_sums<.*\(ce_ext::cpu::RowLogits<(?!.*Pieces)"
)

# Ops that take no tensor, by which the dispatcher could choose.
ABOUT_CUDA = ("ce_ext::check_targets", "ce_ext::cuda_policy", "ce_ext::override_cuda_policy")


def _python(*arguments: str, **environment: str) -> str:
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=os.environ | environment)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@functools.cache
def _forks(isa: str) -> Forks:
    """Processes that load another library than this one."""
    environment = {"ATEN_CPU_CAPABILITY": isa}
    chosen = _python("-c", "from ce_ext import _load; print(_load.cpu_library()[0])", **environment)
    assert chosen.strip() == isa
    return Forks(environment)


@pytest.mark.thorough
@pytest.mark.parametrize("part", KERNEL_TESTS)
@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa in RUNNABLE and isa != RUNNABLE[0]])
def test_kernels_of_every_instruction_set(isa: str, part: str) -> None:
    """The kernel tests again. The best library is what this process has."""
    run = _forks(isa).pytest("--device", "cpu", *KERNEL_TESTS[part])
    assert run.returncode == 0, run.stdout


def test_best_library_is_chosen() -> None:
    if "ATEN_CPU_CAPABILITY" not in os.environ:
        assert _load.cpu_library()[0] == RUNNABLE[0]


@pytest.mark.skipif(not IS_GCC or shutil.which("objdump") is None, reason="needs a build by GCC, and objdump")
@pytest.mark.parametrize("isa", ISAS)
def test_logits_are_prefetched(isa: str) -> None:
    """A compiler may drop the hint unseen: no result changes, and instructions get fewer, but long rows take longer."""
    run = subprocess.run(
        ["objdump", "-d", "-C", "--no-show-raw-insn", _load._path(f"_cpu_{isa}")],
        capture_output=True,
        text=True,
        check=True,
    )
    loops = [code for code in run.stdout.split("\n\n") if SUMS_OF_A_ROW.match(code)]
    assert loops
    for code in loops:
        assert re.search(r"\t(prefetch|prfm)", code), code.partition("\n")[0]


@pytest.mark.torch_modes
def test_every_op_has_its_kernels() -> None:
    """For the CPU and tensors without data; for CUDA in a CUDA build, which CE_EXT_CUDA=1 asks for here as in
    setup.py."""
    with_cuda = bool(_C.cuda_architectures) or os.environ.get("CE_EXT_CUDA") == "1"
    ops = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("ce_ext::")]
    assert ops
    for name in ops:
        if name in ABOUT_CUDA:
            keys = ["CompositeExplicitAutograd"] if with_cuda else []
        else:
            keys = ["CPU", "Meta", *(["CUDA"] if with_cuda else [])]
        if name.endswith("_traced"):  # calls another
            keys = ["CompositeImplicitAutograd"]
        for key in keys:
            assert torch._C._dispatch_has_kernel_for_dispatch_key(name, key), f"{name} has no kernel for {key}"


@pytest.mark.skipif(bool(_C.cuda_architectures), reason="this build has CUDA")
@pytest.mark.parametrize("which", [None, 0, "cuda", "cuda:1", torch.device("cuda")], ids=str)
def test_cuda_check_without_cuda(which: Any) -> None:
    with pytest.raises(RuntimeError, match=r"ce_ext was built without CUDA: ."):
        ce_ext.cuda.check(which)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="reads the run time of threads there")
def test_parallel_for_is_parallel() -> None:
    """A library compiled without OpenMP runs at::parallel_for on one thread, and says nothing."""
    input, target = torch.randn(4096, 1000), torch.zeros(4096, dtype=torch.int64)

    def worked() -> dict[str, int]:
        """The nanoseconds that each thread has run, which tell who works however busy the machine is."""
        tasks = Path("/proc/self/task").iterdir()
        return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks}

    def workers() -> int:
        before, start = worked(), time.process_time()
        while time.process_time() - start < 0.2:
            ce_ext.functional.cross_entropy(input, target)
        shares = [after - before.get(task, 0) for task, after in worked().items()]
        return sum(share > max(shares) / 4 for share in shares)

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert any(workers() == 2 for _ in range(5))
        torch.set_num_threads(1)
        assert any(workers() == 1 for _ in range(5))
    finally:
        torch.set_num_threads(threads)


def test_info() -> None:
    facts = info.info()
    assert facts["ce_ext"] == ce_ext.__version__
    assert facts["CPU library"].split()[0] in ISAS
    printed = _python("-W", "error", "-m", "ce_ext.info")
    for name, value in facts.items():
        assert name in printed
        if name != "threads":
            assert value in printed


@pytest.mark.parametrize(("built_with", "fits"), [("2.1.0", False), (torch.__version__, True), ("9.13.0+cu130", False)])
def test_import_checks_the_torch_it_was_built_with(
    built_with: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ce_ext import _built_with

    monkeypatch.setattr(_built_with, "TORCH", built_with)
    if fits:
        _load._check_torch_version()
    else:
        with pytest.raises(ImportError) as error:
            _load._check_torch_version()
        message = str(error.value)
        assert built_with in message and torch.__version__ in message and "pip install" in message


def test_import_without_a_build_says_how_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ce_ext._built_with", None)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ImportError, match=r"has not been built .* pip install"):
        _load._check_torch_version()


def test_import_of_sources_in_place_of_what_is_installed(tmp_path: Path) -> None:
    """Of a checkout whose folder is the current one, which comes first."""
    sources, installed = tmp_path / "checkout" / "ce_ext", tmp_path / "site-packages" / "ce_ext"
    package = Path(ce_ext.__file__).parent
    for folder in (sources, installed):
        folder.mkdir(parents=True)
        for file in package.glob("*.py"):
            shutil.copy(file, folder)
    (sources / "_built_with.py").unlink()
    run = subprocess.run(
        [sys.executable, "-c", "import ce_ext"],
        capture_output=True,
        text=True,
        cwd=sources.parent,
        env=os.environ | {"PYTHONPATH": str(installed.parent)},
    )
    error = run.stderr.splitlines()[-1]
    assert error.startswith(f"ImportError: ce_ext is installed in {installed}, but Python imports the sources in ")
    assert f"{sources}, which have not been built" in error
    assert error.endswith("Run from another folder, or build them there: pip install --no-build-isolation -e .")


def test_import_of_sources_in_place_of_an_editable_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose finder has the files that have to be built, and they must not be mixed."""
    from ce_ext import _built_with

    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(_built_with, "__file__", str(tmp_path / "ce_ext" / "_built_with.py"))
    with pytest.raises(ImportError, match=rf"installed in {tmp_path}/ce_ext, but Python imports the sources in "):
        _load._check_torch_version()
