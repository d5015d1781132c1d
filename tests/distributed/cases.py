"""What the processes compare: losses of DTensors with the same losses of the full tensors."""

import itertools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from ce_ext.options import BinaryCrossEntropyOptions, CrossEntropyOptions
from ce_ext.reductions import MEAN, NONE, SUM
from tests.support.binary_cases import logit_inputs, probability_inputs
from tests.support.cases import class_count, class_dim, class_index_inputs, log_probability_inputs

F = ce_ext.functional
IGNORED = -100


def _probabilities(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    input, _ = class_index_inputs(shape, dtype)
    return input, class_index_inputs(shape, dtype, seed=1)[0].softmax(class_dim(shape))


def _missing_labels(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    input, target = logit_inputs(shape, dtype)
    return input, target.where(target != 0, torch.nan)


@dataclass(frozen=True)
class Variant:
    """A loss, and what it takes."""

    function: Callable[..., Any]
    make_inputs: Callable[..., tuple[Tensor, Tensor]]
    options: dict[str, Any]
    is_binary: bool = False

    def tensors(self, shape: tuple[int, ...], weighted: bool) -> dict[str, Tensor]:
        input, target = self.make_inputs(shape, torch.float64)
        tensors = {"input": input, "target": target}
        if weighted:
            rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
            shapes = {"weight": (class_count(shape),), "sample_weight": rows}
            if self.is_binary:
                shapes = {"weight": shape, "pos_weight": shape[-1:], "alpha": (*shape[:1], *(1,) * (len(shape) - 1))}
                names = {"binary_cross_entropy": 1, "binary_cross_entropy_with_logits": 2, "sigmoid_focal_loss": 3}
                names["asymmetric_loss"] = 2
                shapes = dict(list(shapes.items())[: names[self.function.__name__]])
            tensors |= {name: torch.rand(shape, dtype=torch.float64) + 0.1 for name, shape in shapes.items()}
        return tensors

    def is_differentiable(self, name: str, tensor: Tensor) -> bool:
        names = ("input", "target", "weight", "pos_weight") if self.is_binary else ("input", "target")
        return name in names and tensor.is_floating_point()


VARIANTS = {
    "cross_entropy": Variant(F.cross_entropy, class_index_inputs, {"label_smoothing": 0.1, "z_loss": 0.01}),
    "probabilities": Variant(F.cross_entropy, _probabilities, {"label_smoothing": 0.1}),
    "focal probabilities": Variant(F.softmax_focal_loss, _probabilities, {"gamma": 1.5}),
    "nll_loss": Variant(F.nll_loss, log_probability_inputs, {}),
    "softmax_focal_loss": Variant(F.softmax_focal_loss, class_index_inputs, {"gamma": 1.5}),
    "binary_cross_entropy": Variant(F.binary_cross_entropy, probability_inputs, {}, is_binary=True),
    "binary_cross_entropy_with_logits": Variant(
        F.binary_cross_entropy_with_logits, logit_inputs, {"label_smoothing": 0.1}, is_binary=True
    ),
    "sigmoid_focal_loss": Variant(F.sigmoid_focal_loss, logit_inputs, {"ignore_index": 0}, is_binary=True),
    "asymmetric_loss": Variant(F.asymmetric_loss, _missing_labels, {"ignore_nan": True}, is_binary=True),
    "sigmoid_focal_loss of classes": Variant(
        F.sigmoid_focal_loss, class_index_inputs, {"ignore_index": IGNORED}, is_binary=True
    ),
}
# Shapes, and for each dimension of the mesh the one that is sharded along it, or None for replicas. Some shards are
# uneven, and of one row there is not one for each process.
LAYOUTS: dict[str, tuple[tuple[int, ...], tuple[int | None, ...]]] = {
    "replicas": ((5, 3), (None,)),
    "uneven": ((5, 7), (0,)),
    "one row": ((1, 6), (0,)),
    "one sample": ((6,), (None,)),
    "sequences": ((3, 4, 5), (2,)),
    "images": ((4, 3, 2, 5), (0,)),
    "columns": ((2, 3, 4, 5), (3,)),
    "classes": ((4, 6), (1,)),
    "channels": ((2, 4, 6), (1,)),
}
# For a mesh of two dimensions.
LAYOUTS_2D: dict[str, tuple[tuple[int, ...], tuple[int | None, ...]]] = {
    "rows twice": ((7, 5), (0, 0)),
    "rows and replicas": ((5, 3), (0, None)),
    "replicas and rows": ((5, 3), (None, 0)),
    "samples and rows": ((3, 4, 5), (0, 2)),
    "rows and classes": ((6, 8), (0, 1)),
}


@dataclass(frozen=True)
class Case:
    variant: str
    layout: str
    reduction: str
    weighted: bool
    follow: bool  # target and weights of rows sharded as the input is, or replicated

    def __str__(self) -> str:
        extras = ("weighted" if self.weighted else "plain", "aligned" if self.follow else "replicated")
        return "-".join((self.variant, self.layout, self.reduction, *extras))

    @property
    def factors(self) -> dict[str, Any]:
        return vars(self)

    def check(self, mesh: Any) -> None:
        """That loss and gradients are those of the full tensors, and are sharded as the input is."""
        from torch.distributed.tensor import Shard

        variant = VARIANTS[self.variant]
        shape, sharded = (LAYOUTS | LAYOUTS_2D)[self.layout]
        full = variant.tensors(shape, self.weighted)
        if full["target"].dtype == torch.int64:
            self._ignore(full["target"], sharded[0])
        options = {"reduction": self.reduction} | variant.options

        def results(tensors: dict[str, Tensor], upstream: Tensor | None = None) -> list[Tensor]:
            leaves = {
                name: tensor.requires_grad_(variant.is_differentiable(name, tensor)) for name, tensor in tensors.items()
            }
            others = {name: leaf for name, leaf in leaves.items() if name not in ("input", "target")}
            loss = variant.function(leaves["input"], leaves["target"], **others, **options)
            wanted = [leaf for leaf in leaves.values() if leaf.requires_grad]
            upstream = torch.randn_like(loss) if upstream is None else upstream
            return [loss, upstream, *torch.autograd.grad(loss, wanted, upstream)]

        expected = results(full)
        shards = {
            name: distribute(tensor.detach(), mesh, self._dims(name, tensor, shape, sharded))
            for name, tensor in full.items()
        }
        upstream_dims = self._dims("upstream", expected[1], shape, sharded)
        actual = results(shards, distribute(expected[1], mesh, upstream_dims))
        for ours, theirs in zip(actual, expected, strict=True):
            torch.testing.assert_close(ours.full_tensor(), theirs.detach())

        if self._may_stay(shape, sharded, mesh):
            loss, _, grad_input, *_ = actual
            assert grad_input.placements == shards["input"].placements
            of_rows = distribute(expected[0].detach(), mesh, self._place(expected[0], shape, sharded))
            if self.reduction == "none":
                assert loss.placements == of_rows.placements
            if self.reduction == "sum":
                assert all(
                    placement.is_partial() == isinstance(before, Shard)
                    for placement, before in zip(loss.placements, shards["input"].placements, strict=True)
                )

    def _ignore(self, target: Tensor, dim: int | None) -> None:
        """All rows of the second process, or the first row of all."""
        if target.dim() > 0 and target.numel() > 1:
            dim = max(0, (dim or 0) - 1)
            first = (target.shape[dim] + 1) // 2
            target.narrow(dim, first, target.shape[dim] - first).fill_(IGNORED)

    def _dims(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], sharded: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        if name == "input" or (self.follow and name in ("target", "sample_weight", "upstream")):
            return self._place(tensor, shape, sharded)
        return (None,) * len(sharded)

    @staticmethod
    def _place(tensor: Tensor, shape: tuple[int, ...], sharded: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Where the sharded dimensions are in a tensor of the shape of the input, or of its rows."""
        if tensor.shape == shape:
            return sharded
        of_rows = [dim for dim in range(len(shape)) if dim != class_dim(shape)]
        return tuple(of_rows.index(dim) if dim in of_rows and tensor.dim() > 0 else None for dim in sharded)

    def _may_stay(self, shape: tuple[int, ...], sharded: tuple[int | None, ...], mesh: Any) -> bool:
        of_rows = not VARIANTS[self.variant].is_binary or self.variant.endswith("classes")
        fits = all(dim is None or shape[dim] >= mesh.size() for dim in sharded)
        return fits and not (of_rows and class_dim(shape) in sharded)


def distribute(tensor: Tensor, mesh: Any, dims: tuple[int | None, ...]) -> Any:
    """As a DTensor, without a message: every process has the same tensor."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    replicas = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicas.redistribute(placements=[Replicate() if dim is None else Shard(dim) for dim in dims]).detach()


def _cases(layouts: Iterable[str]) -> list[Case]:
    return [Case(*choice) for choice in itertools.product(VARIANTS, layouts, REDUCTIONS, (False, True), (True, False))]


REDUCTIONS = ("none", "sum", "mean")
CASES, CASES_2D = _cases(LAYOUTS), _cases(LAYOUTS_2D)


def compiled(mesh: Any) -> None:
    """Of all checks the first: the compiler is the first to see a DTensor."""
    assert "ce_ext.sharding" not in sys.modules
    input, target = class_index_inputs((5, 7), torch.float64)
    weight = torch.rand(7, dtype=torch.float64)
    logits = distribute(input, mesh, (0,)).requires_grad_()
    shards = distribute(target, mesh, (0,)), distribute(weight, mesh, (None,))
    loss = torch.compile(F.cross_entropy, backend="aot_eager", fullgraph=True)(logits, *shards)
    _assert_equal(loss, F.cross_entropy(input, target, weight))
    loss.backward()
    _assert_equal(logits.grad, _gradient(F.cross_entropy, input, target, weight))


def messages(mesh: Any) -> None:
    """Of a mean, the sum of the weights is sent, and of other losses nothing."""
    from torch.distributed.tensor.debug import CommDebugMode

    input, target = class_index_inputs((8, 7), torch.float64)
    shards = [distribute(tensor, mesh, (0,)) for tensor in (input, target, input.sigmoid(), input)]
    logits, target, labels, probabilities = (shard.requires_grad_(shard.is_floating_point()) for shard in shards)
    probabilities = probabilities.detach().softmax(1).requires_grad_()
    weight = distribute(torch.rand(7, dtype=torch.float64), mesh, (None,))

    def sent(function: Callable[..., Any], *tensors: Tensor, **options: Any) -> int:
        with CommDebugMode() as sent:
            loss = function(*tensors, **options)
            loss.backward(torch.ones_like(loss))
        return sent.get_total_counts()

    for reduction in REDUCTIONS:
        is_mean = reduction == "mean"
        assert sent(F.cross_entropy, logits, target, reduction=reduction) == is_mean
        assert sent(F.softmax_focal_loss, logits, target, weight, reduction=reduction) == is_mean
        assert sent(F.nll_loss, logits, target, sample_weight=None, reduction=reduction) == is_mean
        assert sent(F.cross_entropy, logits, probabilities, reduction=reduction) == 0
        assert sent(F.binary_cross_entropy_with_logits, logits, labels.detach(), weight, reduction=reduction) == 0
        assert sent(F.sigmoid_focal_loss, logits, target, reduction=reduction, ignore_index=0) == is_mean
    assert sent(F.log_softmax, logits, 1) == 0


def means_over_nothing(mesh: Any) -> None:
    for function, ignored in ((F.cross_entropy, {}), (F.sigmoid_focal_loss, {"ignore_index": IGNORED})):
        for on_empty in ("nan", "zero"):
            input, target = class_index_inputs((5, 7), torch.float64)
            target.fill_(IGNORED)
            options = {"reduction": "mean", "on_empty": on_empty, **ignored}
            logits = distribute(input, mesh, (0,)).requires_grad_()
            loss = function(logits, distribute(target, mesh, (0,)), **options)
            _assert_equal(loss, function(input, target, **options), equal_nan=True)
            loss.backward()
            _assert_equal(logits.grad, _gradient(function, input, target, **options), equal_nan=True)


def denominators(mesh: Any) -> None:
    input, target = class_index_inputs((5, 7), torch.float64)
    for function, labels in ((F.cross_entropy, target), (F.binary_cross_entropy_with_logits, input > 0)):
        logits, shards = distribute(input, mesh, (0,)), distribute(labels, mesh, (0,))
        expected = function(input, labels, denominator=7.0)
        _assert_equal(function(logits, shards, denominator=7.0), expected)
        divisor = torch.tensor(7.0, dtype=torch.float64)
        given = distribute(divisor, mesh, (None,)).requires_grad_()
        loss = function(logits, shards, denominator=given)
        _assert_equal(loss, expected)
        loss.backward()
        _assert_equal(given.grad, -expected / 7)


def half_means(mesh: Any) -> None:
    """Of more rows than the sum of their losses has numbers for."""
    input = torch.zeros(20_001, 50, dtype=torch.float16)
    target = torch.arange(20_001) % 50
    logits, shards = distribute(input, mesh, (0,)).requires_grad_(), distribute(target, mesh, (0,))
    loss = F.cross_entropy(logits, shards)
    assert loss.dtype == torch.float16
    torch.testing.assert_close(loss.full_tensor(), F.cross_entropy(input, target), rtol=2e-3, atol=0)
    loss = F.cross_entropy(logits, shards, out_dtype=torch.float32)
    _assert_equal(loss, F.cross_entropy(input, target, out_dtype=torch.float32))
    assert loss.dtype == torch.float32
    weight, sample_weight = torch.rand(50).half(), torch.rand(20_001).half()
    options = {"weight": weight, "sample_weight": sample_weight}
    of_shards = {"weight": distribute(weight, mesh, (None,)), "sample_weight": distribute(sample_weight, mesh, (0,))}
    loss = F.cross_entropy(logits, shards, **of_shards, out_dtype=torch.float32)
    _assert_equal(loss, F.cross_entropy(input, target, **options, out_dtype=torch.float32))


def stats(mesh: Any) -> None:
    from torch.distributed.tensor import Shard

    for shape, dim, dim_of_rows in (((5, 7), 0, 0), ((2, 3, 5), 2, 1)):
        input, target = class_index_inputs(shape, torch.float64)
        expected = F.cross_entropy(input, target, return_stats=True)
        shards = distribute(input, mesh, (dim,)), distribute(target, mesh, (dim_of_rows,))
        loss, stats = F.cross_entropy(*shards, return_stats=True)
        _assert_equal(loss, expected[0])
        for ours, theirs in zip(stats, expected[1], strict=True):
            _assert_equal(ours, theirs)
            assert ours.placements == (Shard(dim_of_rows),)


def gradients_in_forward(mesh: Any) -> None:
    """DTensors do without, and their values are left alone."""
    input, target = class_index_inputs((5, 7), torch.float64)
    leaf, shards = distribute(input, mesh, (0,)).requires_grad_(), distribute(target, mesh, (0,))
    for option in ("grad_in_forward", "inplace"):
        logits = leaf * 1
        loss = F.cross_entropy(logits, shards, **{option: True})
        _assert_equal(loss, F.cross_entropy(input, target))
        _assert_equal(logits, input)
        (grad,) = torch.autograd.grad(loss, leaf)
        _assert_equal(grad, _gradient(F.cross_entropy, input, target))


def one_weight_or_the_other(mesh: Any) -> None:
    """As many rows as classes, and DTensor does not take the one weight for the other, which torch 2.11's does: it
    finds its plan of a call by the tensors alone, wherever they stand, and the op raises."""
    if torch.__version__.startswith("2.11."):
        return
    input, target = class_index_inputs((6, 6), torch.float64)
    factor = torch.rand(6, dtype=torch.float64)
    shards = distribute(input, mesh, (0,)), distribute(target, mesh, (0,))
    for reduction in ("sum", "mean"):
        for name in ("weight", "sample_weight"):
            actual = F.cross_entropy(*shards, reduction=reduction, **{name: distribute(factor, mesh, (None,))})
            _assert_equal(actual, F.cross_entropy(input, target, reduction=reduction, **{name: factor}))


def teaching(mesh: Any) -> None:
    """Whichever function is the first to see a DTensor."""
    input, target = (distribute(tensor, mesh, (0,)) for tensor in class_index_inputs((6, 6), torch.float64))
    calls: list[tuple[Callable[..., Any], Any, dict[str, Any]]] = [
        (F.cross_entropy, target, {}),
        (F.cross_entropy, input.softmax(1), {}),
        (F.cross_entropy, target, {"return_stats": True, "reduction": "none"}),
        (F.nll_loss, target, {"reduction": "sum"}),
        (F.softmax_focal_loss, target, {}),
        (F.binary_cross_entropy_with_logits, input > 0, {}),
        (F.sigmoid_focal_loss, target, {}),
        (F.log_softmax, 1, {}),
    ]
    for function, argument, options in calls:
        if sys.modules.pop("ce_ext.sharding", None):
            del ce_ext.sharding
        function(input, argument, **options)
        assert "ce_ext.sharding" in sys.modules, function


def ops(mesh: Any) -> None:
    """The mean of an op, which has to see all rows, and samples of a batch, each with a mean of its own."""
    forward, backward = torch.ops.ce_ext.cross_entropy_forward, torch.ops.ce_ext.cross_entropy_backward
    binary = torch.ops.ce_ext.binary_cross_entropy_forward
    for batch_dims, dim in itertools.product((0, 1), (0, 1, 2)):
        input, target = class_index_inputs((5, 4, 3), torch.float64)
        if batch_dims:  # of samples of shape (4, 3)
            target = class_index_inputs((20, 3), torch.float64)[1].view(5, 4)
        of_rows = max(0, dim - 1) if batch_dims == 0 else min(dim, 1)
        weight = torch.rand(3 if batch_dims else 4, dtype=torch.float64)
        logits, shards, weights = (
            distribute(tensor, mesh, (place,)) for tensor, place in ((input, dim), (target, of_rows), (weight, None))
        )
        options = CrossEntropyOptions(MEAN, IGNORED, batch_dims=batch_dims)
        expected = forward(input, target, weight, None, *options)
        actual = forward(logits, shards, weights, None, *options)
        for ours, theirs in zip(actual, expected, strict=True):
            if theirs is None:
                assert ours is None
            else:
                _assert_equal(ours, theirs)
        if batch_dims and dim == 0:
            assert actual[0].placements == logits.placements

        upstream, settings = torch.rand_like(expected[0]), options.of_backward()
        _assert_equal(
            backward(distribute(upstream, mesh, (None,)), logits, shards, weights, None, *actual[1:3], *settings),
            backward(upstream, input, target, weight, None, *expected[1:3], *settings),
        )

        factor = torch.rand((5, 3) if batch_dims else (4, 1), dtype=torch.float64)
        tensors = (input, input.sigmoid(), factor, factor)
        places = (dim, dim, None, None)
        shares = [distribute(tensor, mesh, (place,)) for tensor, place in zip(tensors, places, strict=True)]
        for reduction in (NONE, MEAN, SUM):
            binary_options = BinaryCrossEntropyOptions(reduction, batch_dims=batch_dims)
            _assert_equal(binary(*shares, None, *binary_options)[0], binary(*tensors, None, *binary_options)[0])


def replicated_logits(mesh: Any) -> None:
    """They stay so, and their gradient with them, though it would be less work to take a share."""
    input, target = class_index_inputs((6, 7), torch.float64)
    logits = distribute(input, mesh, (None,)).requires_grad_()
    for reduction in REDUCTIONS:
        loss = F.cross_entropy(logits, distribute(target, mesh, (0,)), reduction=reduction)
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        assert grad.placements == logits.placements


def log_softmax(mesh: Any) -> None:
    input = torch.randn(4, 3, 5, dtype=torch.float64)
    upstream = torch.randn_like(input)
    for dim in range(3):
        expected = input.log_softmax(dim), _gradient(lambda x, dim=dim: (x.log_softmax(dim) * upstream).sum(), input)
        for sharded in (0, 1, 2, None):
            x = distribute(input, mesh, (sharded,)).requires_grad_()
            y = F.log_softmax(x, dim)
            _assert_equal(y, expected[0])
            y.backward(distribute(upstream, mesh, (sharded,)))
            _assert_equal(x.grad, expected[1])
            if sharded != dim and (sharded is None or input.shape[sharded] >= mesh.size()):
                assert y.placements == x.grad.placements == x.placements


def partial_logits(mesh: Any) -> None:
    """Sums that are still to be taken, as products with a sharded inner dimension leave them."""
    from torch.distributed.tensor import DTensor, Partial

    input, target = class_index_inputs((6, 7), torch.float64)
    part = input if mesh.get_local_rank() == 0 else torch.zeros_like(input)
    logits = DTensor.from_local(part, mesh, [Partial()])
    for reduction in REDUCTIONS:
        actual = F.cross_entropy(logits, distribute(target, mesh, (0,)), reduction=reduction)
        _assert_equal(actual, F.cross_entropy(input, target, reduction=reduction))


def errors(mesh: Any) -> None:
    input, target = class_index_inputs((6, 7), torch.float64)
    logits, shards = distribute(input, mesh, (0,)), distribute(target, mesh, (0,))
    weight = torch.ones(7, dtype=torch.float64)
    for reduction in REDUCTIONS:
        options = {"reduction": reduction}
        for tensors in ((logits, target), (input, shards), (logits, shards, weight)):
            with pytest.raises(RuntimeError, match=r"mixed torch\.Tensor and DTensor"):
                F.cross_entropy(*tensors, **options)
        with pytest.raises(IndexError, match="= 9 is out of bounds"):
            F.cross_entropy(logits, distribute(torch.full_like(target, 9), mesh, (0,)), **options)
        with pytest.raises(RuntimeError, match="weight must have shape"):
            F.cross_entropy(logits, shards, distribute(torch.ones(4).double(), mesh, (None,)), **options)
        with pytest.raises(
            (ValueError, RuntimeError), match="target must have shape"
        ):  # of one DTensor makes the other
            F.cross_entropy(logits, distribute(target[:4], mesh, (0,)), **options)


def _gradient(function: Callable[..., Any], input: Tensor, *others: Any, **options: Any) -> Tensor:
    leaf = input.detach().requires_grad_()
    return torch.autograd.grad(function(leaf, *others, **options), leaf)[0]


def _assert_equal(actual: Any, expected: Tensor, equal_nan: bool = False) -> None:
    torch.testing.assert_close(actual.full_tensor(), expected, equal_nan=equal_nan)


_SPECIAL = (
    compiled, teaching, messages, means_over_nothing, denominators, half_means, stats, gradients_in_forward,
    one_weight_or_the_other, ops, replicated_logits, log_softmax, partial_logits, errors,
)  # fmt: skip
# By name: what takes the mesh and raises what is wrong.
CHECKS: dict[str, Callable[[Any], None]] = {check.__name__: check for check in _SPECIAL} | {
    str(case): case.check for case in (*CASES, *CASES_2D)
}
