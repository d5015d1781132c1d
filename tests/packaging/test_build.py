"""What the build says where it cannot go on, or goes on without CUDA. Nothing is compiled here."""

import runpy
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

BACKEND = Path(__file__).parents[2] / "build_backend"


@pytest.fixture(autouse=True)
def backend_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BACKEND))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("CE_EXT_CUDA", "CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("found", [None, "2.10.1"])
def test_without_a_torch_to_build_against(found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(BACKEND / "backend.py"))
    message = str(stop.value)
    assert "pip install torch" in message and "2.11 or newer" in message
    assert f"has {found or 'none'}" in message and sys.prefix in message


def test_with_torch_it_is_setuptools() -> None:
    hooks = runpy.run_path(str(BACKEND / "backend.py"))
    assert {"build_wheel", "build_editable", "build_sdist", "get_requires_for_build_wheel"} <= hooks.keys()


def _toolkit(folder: Path, release: str) -> Path:
    """A CUDA toolkit with an nvcc that answers questions."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        f"""#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release {release}, V{release}.1" ;;
  --dryrun) echo "#$ _HERE_={nvcc.parent}" >&2 ;;
  --list-gpu-arch) printf 'compute_75\\ncompute_80\\ncompute_90\\n' ;;
esac
"""
    )
    nvcc.chmod(0o755)
    return folder


def _reason() -> str:
    import find_cuda

    with pytest.raises(find_cuda.NoCuda) as reason:
        find_cuda.prepare_cuda()
    return str(reason.value)


def test_cuda_is_left_out_for_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is not a CUDA build" in _reason()

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nothing"))
    assert "torch has CUDA 13.0 and there is no nvcc" in _reason()

    monkeypatch.setenv("CUDA_HOME", str(_toolkit(tmp_path / "old", "12.4")))
    assert "torch has CUDA 13.0" in _reason() and "has CUDA 12.4" in _reason()

    monkeypatch.setenv("CE_EXT_CUDA", "0")
    assert _reason() == "CE_EXT_CUDA=0"


def test_default_architectures_are_those_that_nvcc_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import find_cuda

    toolkit = _toolkit(tmp_path / "toolkit", "13.0")
    monkeypatch.setattr(torch.version, "cuda", "13.1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(find_cuda.cpp_extension, "CUDA_HOME", None)
    monkeypatch.setenv("CUDA_HOME", str(toolkit))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "")
    assert find_cuda.prepare_cuda() == "8.0;9.0+PTX"
    assert str(toolkit) == find_cuda.cpp_extension.CUDA_HOME

    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5")
    assert find_cuda.prepare_cuda() == "7.5"


def test_cuda_that_was_asked_for_is_not_left_out_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setenv("CE_EXT_CUDA", "1")
    with pytest.raises(SystemExit, match=r"CE_EXT_CUDA=1, but torch .* is not a CUDA build"):
        runpy.run_path(str(BACKEND.parent / "setup.py"))
