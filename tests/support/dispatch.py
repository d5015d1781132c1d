"""What ops are called with, and what they return, below autograd."""

from typing import Any, NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode


class OpCall(NamedTuple):
    op: Any
    arguments: tuple[Any, ...]
    results: Any


class OpCalls(TorchDispatchMode):
    """All of them, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[OpCall] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        self.seen.append(OpCall(function, args, results))
        return results

    def names(self) -> list[str]:
        """Of those of ce_ext."""
        return [call.op.name() for call in self.seen if call.op.namespace == "ce_ext"]

    def last(self, name: str) -> OpCall:
        return next(call for call in reversed(self.seen) if call.op.name() == name)
