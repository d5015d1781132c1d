"""Runs checks in processes that share a mesh. They take longer to start than to run: all checks are one job."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

import torch

from tests.distributed.cases import CHECKS
from tests.support.forks import ROOT

TIME_LIMIT = 120  # in seconds


def run(names: Iterable[str], mesh_shape: Sequence[int], folder: Path) -> dict[str, str]:
    """By the names of checks, how each failed in the first process that it failed in; an empty string if in none.

    They run in the order of `CHECKS`.
    """
    names = sorted(names, key=list(CHECKS).index)
    (folder / "job.json").write_text(json.dumps({"names": names, "mesh_shape": mesh_shape}))
    ranks = range(torch.Size(mesh_shape).numel())
    logs = [folder / f"log-{rank}" for rank in ranks]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), str(rank)],
            cwd=folder,
            env=environment() | {"OMP_NUM_THREADS": "1"},
            stdout=logs[rank].open("w"),
            stderr=subprocess.STDOUT,
        )
        for rank in ranks
    ]
    try:
        codes = [process.wait(TIME_LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(codes), "\n".join(log.read_text() for log in logs)
    failures = [json.loads((folder / f"failures-{rank}").read_text()) for rank in ranks]
    return {name: next((of_rank[name] for of_rank in failures if of_rank[name]), "") for name in failures[0]}


def environment() -> dict[str, str]:
    """Of a process that imports what this one does, be it installed or not; and the tests."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([*map(os.path.abspath, sys.path), str(ROOT)])}


def _serve(folder: Path, rank: int) -> None:
    import torch.distributed
    from torch.distributed.tensor import init_device_mesh

    job = json.loads((folder / "job.json").read_text())
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=torch.Size(job["mesh_shape"]).numel(),
        timeout=timedelta(seconds=TIME_LIMIT / 4),  # for who fails alone and leaves the others waiting
    )
    mesh = init_device_mesh("cpu", tuple(job["mesh_shape"]))
    failures = {}
    for name in job["names"]:
        torch.manual_seed(0)
        try:
            CHECKS[name](mesh)
            failures[name] = ""
        except Exception:
            failures[name] = f"in process {rank}:\n{traceback.format_exc()}"
    (folder / f"failures-{rank}").write_text(json.dumps(failures))
    torch.distributed.barrier()  # or one that is done would close the connection that others still use
    os._exit(0)  # without finalizing Python, which threads of torch's gloo may abort: they still drop tensors


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
