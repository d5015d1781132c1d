"""Where and with what the numbers were measured."""

import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.providers import versions
from ce_ext.info import info


def describe(device: str) -> dict[str, Any]:
    on_cuda = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if on_cuda else _cpu_name(),
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if on_cuda else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "ce_ext": info(),
        "cuda": torch.version.cuda,
        "peers": versions() if on_cuda else {},
        "python": platform.python_version(),
        "system": platform.platform(),
        "load": os.getloadavg()[0],  # from before the run: a busy machine spoils the ratios, too
        "commit": _commit(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # `platform` knows only the architecture on Linux
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    # A copy of the sources is no repository: there, whoever runs the benchmark says what they are.
    return _output("git", "describe", "--always", "--dirty", "--abbrev=40") or os.environ.get("COMMIT")


def _output(*command: str) -> str | None:
    """The first line of it."""
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.partition("\n")[0]
