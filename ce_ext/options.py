"""The options of each loss, in the order in which its ops take them after the tensors."""

from typing import NamedTuple


class CrossEntropyOptions(NamedTuple):
    reduction: int
    ignore_index: int
    label_smoothing: float
    batch_dims: int = 0  # of a call that no vmap has been through
