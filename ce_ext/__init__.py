"""Classification losses for PyTorch as hand-written C++ and CUDA kernels.

`ce_ext.functional` is shaped like `torch.nn.functional`, `ce_ext.nn` like `torch.nn`. `ce_ext.cuda.check` asks a GPU
whether all targets were right.
"""

from ce_ext import _load

_load.load_libraries()

from ce_ext import cuda, functional, nn  # noqa: E402  (they need the ops, which are loaded by now)
from ce_ext._C import version as __version__  # noqa: E402

__all__ = ["__version__", "cuda", "functional", "nn"]
