"""A gradient of the forward pass times the one from upstream."""

import pytest
import torch

from ce_ext.functional import cross_entropy
from tests.support.cases import DTYPES, ROUNDING

pytestmark = pytest.mark.kernel

scale_gradient = torch.ops.ce_ext.scale_gradient.default

# Scalars for dense memory, where rows do not matter, and for memory with gaps; a number for each row, whose classes lie
# side by side, in short rows, long ones and more than there are threads for, or apart, in whole packs of rows or not.
LAYOUTS = {
    "dense": lambda: torch.randn(7, 33),
    "large": lambda: torch.randn(300, 1000),
    "transposed": lambda: torch.randn(33, 7).t(),
    "cropped": lambda: torch.randn(9, 40)[1:8, 3:36],
    "long rows": lambda: torch.randn(3, 9001)[:, 1:],
    "many rows": lambda: torch.randn(40_000, 9)[:, 1:],
    "images": lambda: torch.randn(2, 19, 4, 8),
    "odd images": lambda: torch.randn(2, 19, 3, 7),
    "channels last": lambda: torch.randn(2, 19, 4, 8).to(memory_format=torch.channels_last),
    "one row": lambda: torch.randn(50),
    "nothing": lambda: torch.randn(0, 5),
    "no classes": lambda: torch.randn(5, 0),
}


@pytest.mark.covering(2)
@pytest.mark.parametrize("by_row", [False, True], ids=["scalar", "rows"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_product(layout: str, dtype: torch.dtype, by_row: bool, device: str) -> None:
    grad = LAYOUTS[layout]().to(device)
    # A view of the same strides in this dtype, with what lies around it.
    whole = torch.zeros(grad.untyped_storage().nbytes() // 4, dtype=dtype, device=device)
    whole.copy_(grad.as_strided((whole.numel(),), (1,), 0))
    grad = whole.as_strided(grad.shape, grad.stride(), grad.storage_offset())
    class_dim = 0 if grad.dim() == 1 else 1
    rows = grad.select(class_dim, 0).shape if by_row and grad.shape[class_dim] else ()
    first = 2 if rows else 3  # of rows the first factor is 1, and that of all is not
    grad_output = (torch.arange(first, first + torch.Size(rows).numel(), device=device).reshape(rows) % 5).to(dtype)
    before, others = grad.double().clone(), whole.double().clone()
    scale_gradient(grad, grad_output, 2.0, 0)
    factors = grad_output.double() / 2
    expected = before * (factors.unsqueeze(class_dim) if factors.dim() else factors)
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    torch.testing.assert_close(grad.double(), expected, rtol=ROUNDING[dtype], atol=smallest)
    untouched = torch.ones_like(whole, dtype=torch.bool)
    untouched.as_strided(grad.shape, grad.stride(), grad.storage_offset()).fill_(False)
    assert torch.equal(whole.double()[untouched], others[untouched])


def test_a_factor_of_one_leaves_every_bit(device: str) -> None:
    """Of numbers that no product leaves as they are."""
    signalling = torch.tensor([0x7FA00000, 0x7F800001], dtype=torch.int32, device=device)
    grad = signalling.view(torch.float32).repeat(3, 50)
    before = grad.view(torch.int32).clone()
    for grad_output in (torch.tensor(4.0, device=device), torch.full((3,), 4.0, device=device)):
        scale_gradient(grad, grad_output, 4.0, 0)
        assert torch.equal(grad.view(torch.int32), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_loss_of_half_logits(dtype: torch.dtype, device: str) -> None:
    """The factor is not rounded to the dtype of the gradient."""
    grad = torch.full((4, 30), 3.0, dtype=dtype, device=device)
    scale_gradient(grad, torch.tensor(1.0 + 2**-12, device=device), 3.0, 0)
    assert torch.equal(grad, torch.full_like(grad, 1.0 + 2**-12))


def test_batches_of_losses(device: str) -> None:
    """One number for each sample of a batch, which all of its rows share."""
    grad = torch.randn(4, 3, 5, 2, device=device)
    expected = grad * torch.arange(1.0, 5.0, device=device).view(4, 1, 1, 1) / 2
    scale_gradient(grad, torch.arange(1.0, 5.0, device=device), 2.0, 1)
    torch.testing.assert_close(grad, expected)


def test_it_is_a_change_that_autograd_notices(device: str) -> None:
    grad = torch.ones(3, 5, device=device)
    version = grad._version
    scale_gradient(grad, torch.tensor(2.0, device=device), 1.0, 0)
    assert grad._version == version + 1


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_in_forward_take_any_upstream(reduction: str, inplace: bool, device: str) -> None:
    logits = torch.randn(8, 3000, dtype=torch.float64, device=device)
    target = torch.randint(0, 3000, (8,), device=device)
    upstream = torch.rand(() if reduction == "mean" else (8,), dtype=torch.float64, device=device)
    exact = logits.clone().requires_grad_()
    torch.nn.functional.cross_entropy(exact, target, reduction=reduction).backward(upstream)
    input = logits.clone().requires_grad_()
    how = {"inplace": True} if inplace else {"grad_in_forward": True}
    cross_entropy(input * 1, target, reduction=reduction, **how).backward(upstream)
    torch.testing.assert_close(input.grad, exact.grad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3, 5), torch.ones(4), 1.0, 0), r"grad_output must have shape \[\] or \[3\], .* \[4\]"),
        ((torch.ones(2, 3, 5), torch.ones(()), 1.0, 1), r"grad_output must have shape \[2\] or \[2, 3\], .* \[\]"),
        (
            (torch.ones(3, 5), torch.ones(()).double(), 1.0, 0),
            "grad_output must have .* grad_input, Float, but got Double",
        ),
        (
            (torch.ones(3, 5), torch.ones(3, 5), 1.0, 2),
            r"grad_input must have a dimension of classes besides .* \[3, 5\]",
        ),
        ((torch.ones(()), torch.ones(()), 1.0, 0), r"grad_input must have a dimension of classes, but got shape \[\]"),
        ((torch.ones(3, 5), torch.ones((), device="meta"), 1.0, 0), "meta"),
    ],
)
def test_bad_call(arguments: tuple, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        scale_gradient(*arguments)
