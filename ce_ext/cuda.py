"""What only CUDA needs: asking for the targets out of bounds that its kernels have found."""

import torch

from ce_ext import _built_with


def check(device: torch.device | str | int | None = None) -> None:
    """Waits for a CUDA device, and raises if a target there was out of bounds in a call of ce_ext.

    A kernel looks at its targets long after the call that launched it has returned. One that is neither a class nor
    ignored it never uses: the loss and the gradient of that row are NaN, and the first that is found is kept for the
    next call of ce_ext on that device, whatever it computes, to raise. This costs no synchronisation, and leaves the
    CUDA context intact, unlike torch's device-side assert; but that call may come late or never.

    `check` is for those who have to know: once it has returned, the targets of all earlier calls on this device were
    right. It costs the wait, so call it once in a while, at the end of an epoch, say, or to explain a loss of NaN. It
    is not for graphs: neither in the capture of a CUDA graph, nor under `torch.compile`.

    Args:
        device: a CUDA device; the current one by default.

    Raises:
        IndexError: a target was out of bounds. It is raised once, here or elsewhere.
        RuntimeError: ce_ext was built without CUDA.

    Example:
        >>> ce_ext.functional.cross_entropy(torch.randn(3, 5, device="cuda"), torch.tensor([0, 7, 1], device="cuda"))
        tensor(nan, device='cuda:0')
        >>> ce_ext.cuda.check()
        IndexError: target.flatten()[1] = 7 is out of bounds: input has 5 classes. [...]
    """
    try:
        torch.ops.ce_ext.check_targets(torch.device("cuda", device) if isinstance(device, int) else device)
    except NotImplementedError:
        raise RuntimeError(f"ce_ext was built without CUDA: {_built_with.NO_CUDA}") from None
