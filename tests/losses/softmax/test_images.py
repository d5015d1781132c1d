"""Images, whose pixels lie side by side and their classes apart: several pixels are worked on together."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ce_ext.functional import cross_entropy, log_softmax
from tests.support import oracles
from tests.support.comparison import assert_all_rounded, loss_and_gradients, to_double

pytestmark = pytest.mark.kernel

# Few enough to be held in registers; more; and more than one sum takes.
CLASSES = (3, 24, 25, 70)

# Whole packs of pixels; rows of them with gaps between, in which no pack may lie; and some that begin within a pack.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "dense": lambda x: x,
    "gaps": lambda x: torch.cat([x, torch.full_like(x[..., :1], torch.nan)], -1)[..., :-1],
    "gaps of packs": lambda x: torch.cat([x, torch.full_like(x, torch.nan)], -1)[..., : x.shape[-1]],
    "misaligned": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x),
}
ALL_CLASSES = pytest.mark.parametrize("classes", CLASSES)
ALL_LAYOUTS = pytest.mark.parametrize("layout", LAYOUTS)
ALL_DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
# The width is no multiple of a pack where there are gaps, but the number of pixels is.
WIDTHS = {"gaps": 7}


def _image(classes: int, layout: str, dtype: torch.dtype, device: str) -> Tensor:
    shape = (2, classes, 4, WIDTHS.get(layout, 8))
    image = torch.randn(shape, generator=torch.Generator().manual_seed(classes), dtype=torch.float64).mul_(3)
    return LAYOUTS[layout](image.to(device, dtype))


def _target(image: Tensor) -> Tensor:
    pixels = image[:, 0].numel()
    target = torch.arange(pixels, device=image.device).reshape(image[:, 0].shape) % image.shape[1]
    target[1, 2] = -100  # some packs of pixels are ignored
    target[0, 0, ::2] = -100  # of others some pixels
    return target


def _in_place(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    return cross_entropy(input * 1, target, inplace=True, loss_scale=1.0, **options)


WAYS = {
    "forward and backward": cross_entropy,
    "gradient in forward": partial(cross_entropy, grad_in_forward=True, loss_scale=1.0),
    "gradient in place": _in_place,
}


@pytest.mark.covering(3)
@ALL_CLASSES
@ALL_LAYOUTS
@ALL_DTYPES
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing: float, way: str, dtype: torch.dtype, layout: str, classes: int, device: str) -> None:
    image = _image(classes, layout, dtype, device)
    target, options = _target(image), {"label_smoothing": smoothing}
    exact = loss_and_gradients(lambda x: oracles.cross_entropy(x, target, **options), *to_double(image))
    assert_all_rounded(loss_and_gradients(lambda x: WAYS[way](x, target, **options), image), exact)


@pytest.mark.covering(2)
@ALL_CLASSES
@ALL_LAYOUTS
@ALL_DTYPES
def test_class_probabilities(dtype: torch.dtype, layout: str, classes: int, device: str) -> None:
    image = _image(classes, layout, dtype, device)
    target = LAYOUTS[layout](image.double().mul(0.5).softmax(1).to(dtype).contiguous())
    exact = loss_and_gradients(oracles.soft_cross_entropy, *to_double(image, target))
    assert_all_rounded(loss_and_gradients(cross_entropy, image, target), exact, scale=1)


@pytest.mark.covering(2)
@ALL_CLASSES
@ALL_LAYOUTS
@ALL_DTYPES
def test_log_softmax(dtype: torch.dtype, layout: str, classes: int, device: str) -> None:
    image = _image(classes, layout, dtype, device)
    exact = loss_and_gradients(lambda x: x.log_softmax(1), *to_double(image))
    assert_all_rounded(loss_and_gradients(lambda x: log_softmax(x, 1), image), exact, scale=1)
