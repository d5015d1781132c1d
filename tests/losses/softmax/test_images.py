"""Images, whose pixels lie side by side and their classes apart: several pixels are worked on together."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ce_ext.functional import cross_entropy, log_softmax, softmax_focal_loss
from tests.support import oracles
from tests.support.comparison import assert_all_rounded, assert_reported, loss_and_gradients, on_cpu, to_double
from tests.support.layouts import misaligned

pytestmark = pytest.mark.kernel

# Around what CUDA threads hold by themselves, as slices of the classes that are alike or not, and not at all; and more
# than one sum takes.
CLASSES = (2, 8, 9, 24, 25, 33, 70, 150, 193)

# Whole packs of pixels; rows of them with gaps between, in which no pack may lie; and some that begin within a pack.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "dense": lambda x: x,
    "gaps": lambda x: torch.cat([x, torch.full_like(x[..., :1], torch.nan)], -1)[..., :-1],
    "gaps of packs": lambda x: torch.cat([x, torch.full_like(x, torch.nan)], -1)[..., : x.shape[-1]],
    "misaligned": misaligned,
}
ALL_CLASSES = pytest.mark.parametrize("classes", CLASSES)
ALL_LAYOUTS = pytest.mark.parametrize("layout", LAYOUTS)
ALL_DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
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


def _loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    return (softmax_focal_loss if "gamma" in options else cross_entropy)(input, target, **options)


def _in_place(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    return _loss(input * 1, target, inplace=True, loss_scale=1.0, **options)


WAYS = {
    "forward and backward": _loss,
    "gradient in forward": partial(_loss, grad_in_forward=True, loss_scale=1.0),
    "gradient in place": _in_place,
}
ALL_WAYS = pytest.mark.parametrize("way", WAYS)


@pytest.mark.covering(3)
@ALL_CLASSES
@ALL_LAYOUTS
@ALL_DTYPES
@ALL_WAYS
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing: float, way: str, dtype: torch.dtype, layout: str, classes: int, device: str) -> None:
    image = _image(classes, layout, dtype, device)
    target, options = _target(image), {"label_smoothing": smoothing}
    exact = loss_and_gradients(lambda x: oracles.cross_entropy(x, target, **options), *to_double(image))
    assert_all_rounded(loss_and_gradients(lambda x: WAYS[way](x, target, **options), image), exact)


@pytest.mark.covering(2)
@ALL_WAYS
@ALL_DTYPES
@ALL_CLASSES
@pytest.mark.parametrize(
    "options",
    [
        {"weight": True},
        {"sample_weight": True, "reduction": "sum"},
        {"gamma": 1.5},
        {"z_loss": 1e-3, "reduction": "none"},
        {"reduction": "none"},
        {"denominator": 7.0},
    ],
    ids=str,
)
def test_options(options: dict[str, Any], classes: int, dtype: torch.dtype, way: str, device: str) -> None:
    image = _image(classes, "dense", dtype, device)
    target = _target(image)
    if "weight" in options:
        options = options | {"weight": torch.linspace(0.5, 1.5, classes, device=device)}
    if "sample_weight" in options:
        options = options | {"sample_weight": torch.linspace(0, 2, target.numel(), device=device).view(target.shape)}
    in_double = {name: x.double() if isinstance(x, Tensor) else x for name, x in options.items()}
    exact = loss_and_gradients(lambda x: oracles.cross_entropy(x, target, **in_double), *to_double(image))
    assert_all_rounded(loss_and_gradients(lambda x: WAYS[way](x, target, **options), image), exact)


@pytest.mark.covering(2)
@ALL_WAYS
@ALL_DTYPES
@ALL_CLASSES
def test_infinities(classes: int, dtype: torch.dtype, way: str, device: str) -> None:
    """As torch has them; but rows that are ignored are not read."""
    image = _image(classes, "dense", dtype, device)
    target = _target(image).clamp(min=0)
    image[0, :, 0, 0] = -torch.inf
    image[0, classes - 1, 0, 3] = torch.inf
    image[0, classes // 2, 0, 4] = torch.nan
    image[0, classes // 2, 1, :3] = torch.nan
    target[0, 1, :3] = -100
    image[1, 1, 2] = 12  # confident rows
    target[1, 2] = 1
    image[1, :, 3, :2] = 2  # of equal classes
    image[1, 1:, 3, 2:] = -torch.inf  # of one that is left
    target[1, 3, 2:] = 0
    actual = loss_and_gradients(lambda x: WAYS[way](x, target, reduction="none"), image)
    in_double = image.double().masked_fill((target == -100)[:, None], 0)
    reference = partial(on_cpu(torch.nn.functional.cross_entropy), target=target, reduction="none")
    assert_all_rounded(actual, loss_and_gradients(reference, in_double))


@pytest.mark.covering(2)
@ALL_WAYS
@ALL_DTYPES
@pytest.mark.parametrize("bad", [-1, "classes", 2**32 + 1])
@ALL_CLASSES
def test_bad_targets(
    classes: int, bad: int | str, dtype: torch.dtype, way: str, device: str, runs_cuda_kernels: bool
) -> None:
    """The CPU raises. On CUDA, their loss and gradient are NaN, those of their neighbours are not."""
    image = _image(classes, "dense", dtype, device)
    target = _target(image)
    function = partial(WAYS[way], reduction="none")
    good = loss_and_gradients(lambda x: function(x, target), image)
    target[1, 1, 3] = value = classes if bad == "classes" else bad
    image.requires_grad_()
    if not runs_cuda_kernels:
        with pytest.raises(IndexError, match=rf"target\[1, 1, 3\] = {value} is out of bounds"):
            function(image, target)
        return
    loss = function(image, target)
    assert_reported(32 + 8 + 3, value, classes)
    (grad,) = torch.autograd.grad(loss.sum(), image)
    if way == "forward and backward":
        assert_reported(32 + 8 + 3, value, classes)
    loss = loss.detach()
    assert loss[1, 1, 3].isnan() and grad[1, :, 1, 3].isnan().all()
    loss[1, 1, 3], grad[1, :, 1, 3] = good[0][1, 1, 3], good[1][1, :, 1, 3]
    assert torch.equal(loss, good[0]) and torch.equal(grad, good[1])


@ALL_DTYPES
@ALL_CLASSES
def test_groups(classes: int, dtype: torch.dtype, device: str) -> None:
    """Each with a mean of its own."""
    images = torch.stack([_image(classes, "dense", dtype, device) * scale for scale in (1, 0.1, 2)])
    targets = torch.stack([_target(images[0])] * len(images))
    targets[1, 0] = -100
    losses, grads = loss_and_gradients(lambda x: torch.func.vmap(cross_entropy)(x, targets), images)
    for image, target, loss, grad in zip(images, targets, losses, grads, strict=True):
        exact = loss_and_gradients(partial(oracles.cross_entropy, target=target), *to_double(image))
        assert_all_rounded([loss, grad], exact)


@pytest.mark.thorough
@pytest.mark.heavy
@pytest.mark.parametrize(("classes", "pixels_of_block"), [(2, 256), (25, 128)])
@pytest.mark.parametrize("way", ["forward and backward", "gradient in forward"])
def test_more_pixels_than_blocks_take_at_a_time(way: str, classes: int, pixels_of_block: int, device: str) -> None:
    image = torch.randn(3, classes, 8192 * pixels_of_block // 3 + 1, device=device)
    target = torch.arange(image[:, 0].numel(), device=device).view_as(image[:, 0]) % classes
    exact = loss_and_gradients(lambda x: torch.nn.functional.cross_entropy(x, target), image.double())
    assert_all_rounded(loss_and_gradients(lambda x: WAYS[way](x, target), image), exact)


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
