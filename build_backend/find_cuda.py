"""Finds the CUDA toolkit for setup.py, more robustly than torch.utils.cpp_extension does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import torch
from torch.utils import cpp_extension

DEFAULT_GPUS = {(8, 0), (9, 0), (10, 0)}  # compute capabilities, where no GPU is visible


class NoCuda(Exception):
    """Why the CUDA kernels are not built."""


def prepare_cuda() -> str:
    """Tell torch the toolkit and the architectures to build for, and return the latter."""
    if os.environ.get("CE_EXT_CUDA") == "0":
        raise NoCuda("CE_EXT_CUDA=0")
    if torch.version.cuda is None:
        raise NoCuda(f"torch {torch.__version__} is not a CUDA build")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    path = f"{home}/bin" if home else f"{os.environ['PATH']}:/usr/local/cuda/bin"
    nvcc = shutil.which("nvcc", path=path)
    if nvcc is None:
        where = path if home else "PATH; set CUDA_HOME"
        raise NoCuda(f"torch has CUDA {torch.version.cuda} and there is no nvcc in {where}")

    def ask_nvcc(pattern: str, *options: str) -> list:
        answer = subprocess.run([nvcc, *options], capture_output=True, text=True, check=True)
        return re.findall(pattern, answer.stdout + answer.stderr)

    [version] = ask_nvcc(r"release ([\d.]+)", "--version")
    if version.split(".")[0] != torch.version.cuda.split(".")[0]:
        raise NoCuda(f"torch has CUDA {torch.version.cuda} and {nvcc} has CUDA {version}")

    # Torch guesses the toolkit from the place of nvcc, which may be that of a wrapper or a link.
    [folder] = ask_nvcc(r"_HERE_=(.*)", "--dryrun", "-c", "-x", "cu", os.devnull)
    cpp_extension.CUDA_HOME = str(Path(folder).parent)

    if not os.environ.get("TORCH_CUDA_ARCH_LIST"):  # torch's own default fails without a GPU
        known = {(int(a), int(b)) for a, b in ask_nvcc(r"compute_(\d+)(\d)", "--list-gpu-arch")}
        visible = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
        archs = sorted({min(gpu, max(known)) for gpu in visible or DEFAULT_GPUS})
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(f"{a}.{b}" for a, b in archs) + "+PTX"
    return os.environ["TORCH_CUDA_ARCH_LIST"]
