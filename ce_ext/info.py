"""`python -m ce_ext.info` prints how ce_ext was built and which of its libraries is in use."""

import torch

from ce_ext import _C, _built_with, _load


def info() -> dict[str, str]:
    """What there is to know of this installation, for bug reports and benchmark records."""
    return {
        "ce_ext": _C.version,
        "torch": f"{torch.__version__} (built with {_C.torch_version})",
        "CPU library": f"{_load.cpu_library()[0]} of {_C.cpu_isas}",
        "CUDA architectures": _C.cuda_architectures or f"none: {_built_with.NO_CUDA}",
        "compiler": _C.compiler,
        "OpenMP": str(_C.openmp or "no"),
        "threads": str(torch.get_num_threads()),
    }


def main() -> None:
    facts = info()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
