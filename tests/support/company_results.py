"""Every function with its configurations, and the check of any of them: of the results, in a mode of autograd, against
the formulas in float64."""

import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from ce_ext import functional, nn
from tests.support import company, oracles
from tests.support.cases import ROUNDING
from tests.support.company import LOSS_SCALE, Choose
from tests.support.company_tensors import LAYOUTS, SAMPLES, Configuration, Tensors, Values
from tests.support.comparison import assert_rounded
from tests.support.tiers import covering

# From tensors by their names to the loss and to what is told of the rows next to it, which may be nothing.
Call = Callable[[Tensors], tuple[Tensor, Any]]

ROUNDINGS = 5


@dataclass(frozen=True)
class Subject:
    function: Callable[..., Any]
    module: Callable[..., torch.nn.Module] | None
    oracle: Callable[..., Tensor]
    configure: Callable[[Choose], Configuration]
    values: Callable[[Values], Tensors]
    # The dtype that the tensors of a configuration are promoted to.
    promoted: Callable[[Configuration], torch.dtype] = lambda c: c["dtype"]


def _log_softmax_as_loss(input: Tensor, dim: int, out_dtype: torch.dtype | None) -> Tensor:
    return functional.log_softmax(input, dim, dtype=out_dtype)


def _promoted_by(*names: str) -> Callable[[Configuration], torch.dtype]:
    """The input's, but for what these do to it if they are floating ones."""

    def promoted(c: Configuration) -> torch.dtype:
        floats = [c[name] for name in names if c[name] is not None and c[name].is_floating_point]
        return reduce(torch.promote_types, floats, c["dtype"])

    return promoted


_OF_PROBABILITIES = _promoted_by("target_dtype", "weight_dtype")
_OF_ELEMENTS = _promoted_by("target_dtype")

SUBJECTS = {
    "cross_entropy": Subject(
        functional.cross_entropy, nn.CrossEntropyLoss, oracles.cross_entropy, company.cross_entropy, Values.indices
    ),
    "cross_entropy_of_probabilities": Subject(
        functional.cross_entropy,
        nn.CrossEntropyLoss,
        oracles.soft_cross_entropy,
        company.soft_cross_entropy,
        Values.probabilities,
        _OF_PROBABILITIES,
    ),
    "softmax_focal_loss": Subject(
        functional.softmax_focal_loss,
        nn.SoftmaxFocalLoss,
        oracles.softmax_focal_loss,
        company.softmax_focal_loss,
        Values.indices,
    ),
    "softmax_focal_loss_of_probabilities": Subject(
        functional.softmax_focal_loss,
        nn.SoftmaxFocalLoss,
        oracles.soft_cross_entropy,
        company.soft_focal_loss,
        Values.probabilities,
        _OF_PROBABILITIES,
    ),
    "nll_loss": Subject(functional.nll_loss, nn.NLLLoss, oracles.nll_loss, company.nll_loss, Values.log_probabilities),
    "log_softmax": Subject(
        _log_softmax_as_loss,
        None,
        oracles.log_softmax,
        company.log_softmax,
        Values.log_softmax,
        lambda c: c["out_dtype"] or c["dtype"],
    ),
    "binary_cross_entropy": Subject(
        functional.binary_cross_entropy,
        nn.BCELoss,
        oracles.binary_cross_entropy,
        company.binary_cross_entropy,
        Values.probable_elements,
        _OF_ELEMENTS,
    ),
    "binary_cross_entropy_with_logits": Subject(
        functional.binary_cross_entropy_with_logits,
        nn.BCEWithLogitsLoss,
        oracles.binary_cross_entropy_with_logits,
        company.binary_cross_entropy_with_logits,
        Values.elements,
        _OF_ELEMENTS,
    ),
    "sigmoid_focal_loss": Subject(
        functional.sigmoid_focal_loss,
        nn.SigmoidFocalLoss,
        oracles.sigmoid_focal_loss,
        lambda choose: company.sigmoid_focal(choose, company.binary_cross_entropy_with_logits(choose)),
        Values.elements,
        _OF_ELEMENTS,
    ),
    "sigmoid_focal_loss_of_classes": Subject(
        functional.sigmoid_focal_loss,
        nn.SigmoidFocalLoss,
        oracles.sigmoid_focal_loss,
        lambda choose: company.sigmoid_focal(choose, company.binary_class_indices(choose)),
        Values.binary_indices,
    ),
    "asymmetric_loss": Subject(
        functional.asymmetric_loss,
        nn.AsymmetricLoss,
        oracles.asymmetric_loss,
        lambda choose: company.asymmetric(choose, company.binary_cross_entropy_with_logits(choose)),
        Values.elements,
        _OF_ELEMENTS,
    ),
    "asymmetric_loss_of_classes": Subject(
        functional.asymmetric_loss,
        nn.AsymmetricLoss,
        oracles.asymmetric_loss,
        lambda choose: company.asymmetric(choose, company.binary_class_indices(choose)),
        Values.binary_indices,
    ),
}

POOL = 1000


@cache
def array(name: str) -> list[Configuration]:
    """Configurations that have, together, every pair of values that meets in a pool of random ones; first those with
    most pairs that have not been there yet."""
    choose = random.Random(name).choice
    pool = [SUBJECTS[name].configure(choose) for _ in range(POOL)]
    return [pool[place] for place in covering(pool, 2)]


_OPTIONS = (
    "reduction", "ignore_index", "label_smoothing", "gamma", "gamma_neg", "gamma_pos", "margin", "alpha", "z_loss",
    "softcap", "logit_scale", "denominator", "on_empty", "ignore_nan",
)  # fmt: skip
# Those that the formulas know nothing of.
_OTHER_OPTIONS = ("dim", "out_dtype", "return_stats", "grad_in_forward", "inplace", "loss_scale")


class _Call:
    """One function of tensors, with the options of a configuration, and the formula of the same."""

    def __init__(self, subject: Subject, c: Configuration) -> None:
        self._subject, self._c = subject, c

    def actual(self, tensors: Tensors) -> tuple[Tensor, Any]:
        if self._c.get("inplace"):  # not of a leaf
            tensors = tensors | {"input": LAYOUTS[self._c["layout"]][1](tensors["input"] * 1)}
        function = self._of_module if self._c.get("as_module") else self._subject.function
        result = self._call(function, tensors, (*_OPTIONS, *_OTHER_OPTIONS))
        return result if self._c.get("return_stats") else (result, ())

    def exact(self, tensors: Tensors) -> tuple[Tensor, Any]:
        c = self._c
        if self._subject.oracle is oracles.log_softmax:
            return oracles.log_softmax(tensors["input"].to(c["out_dtype"] or torch.float64), c["dim"]), ()
        if c.get("dim") is not None and c["rank"] > 1:
            moved = ("input", "target") if tensors["target"].is_floating_point() else ("input",)
            tensors = tensors | {name: tensors[name].movedim(c["dim"], 1) for name in moved}
        loss = self._call(self._subject.oracle, tensors, _OPTIONS)
        if not c.get("return_stats"):
            return loss, ()
        options = {name: c[name] for name in ("ignore_index", "softcap", "logit_scale") if name in c}
        return loss, oracles.softmax_stats(tensors["input"], tensors["target"], **options)

    def _of_module(self, input: Tensor, target: Tensor, **options: Any) -> Any:
        return self._subject.module(**options)(input, target)

    def _call(self, function: Callable[..., Any], tensors: Tensors, names: Sequence[str]) -> Any:
        options = {name: self._c[name] for name in names if name in self._c and name not in tensors}
        positional = [tensors[name] for name in ("input", "target") if name in tensors]
        named = {name: tensor for name, tensor in tensors.items() if name not in ("input", "target")}
        return function(*positional, **named, **options)


class _Experiment:
    """What is done to a call, whichever of the two: with which numbers from upstream, and along which tangents."""

    def __init__(self, c: Configuration, dtypes: dict[str, torch.dtype]) -> None:
        self._c = c
        self._dtypes = dtypes  # in which numbers are made that go with a tensor, or with the loss

    def results(self, call: Call, tensors: Tensors, leaves: Sequence[str]) -> dict[str, Any]:
        """The loss, and what there is besides it: derivatives in `leaves`, statistics."""
        by_mode = {
            "forward alone": self._forward_alone,
            "jvp": self._jvp,
            "func.grad": self._func_grad,
            "twice": self._twice,
            "second": self._second,
        }
        mode = by_mode.get(self._c["mode"], self._reverse)
        given = {name: tensors[name].detach() for name in leaves}
        return (mode if leaves else self._forward_alone)(lambda given: call(tensors | given), given)

    def _forward_alone(self, call: Call, given: Tensors) -> dict[str, Any]:
        with torch.no_grad():
            loss, stats = call(_requiring_grad(given))
        return {"loss": loss, "stats": stats}

    def _reverse(self, call: Call, given: Tensors) -> dict[str, Any]:
        given = _requiring_grad(given)
        loss, stats = call(given)
        grads = torch.autograd.grad(loss, list(given.values()), self._upstream(loss))
        return {"loss": loss.detach(), "stats": stats, **_named("gradient", given, grads)}

    def _twice(self, call: Call, given: Tensors) -> dict[str, Any]:
        given = _requiring_grad(given)
        loss, stats = call(given)
        upstreams = {"first gradient": torch.ones_like(loss), "gradient": self._upstream(loss)}
        results = {"loss": loss.detach(), "stats": stats}
        for what, upstream in upstreams.items():
            grads = torch.autograd.grad(loss, list(given.values()), upstream, retain_graph=True)
            results |= _named(what, given, grads)
        return results

    def _second(self, call: Call, given: Tensors) -> dict[str, Any]:
        """Of a projection of the gradients, the gradients in all that they depend on."""
        given = _requiring_grad(given)
        loss, stats = call(given)
        upstream = self._upstream(loss).requires_grad_()
        grads = _named("gradient", given, torch.autograd.grad(loss, list(given.values()), upstream, create_graph=True))
        projected = sum((grad * self._numbers(name, grad)).sum() for name, grad in grads.items())
        sources = given | {"upstream": upstream}
        second = torch.autograd.grad(projected, list(sources.values()), materialize_grads=True)
        grads = {name: grad.detach() for name, grad in grads.items()}
        return {"loss": loss.detach(), "stats": stats, **grads, **_named("second gradient", sources, second)}

    def _jvp(self, call: Call, given: Tensors) -> dict[str, Any]:
        tangents = {name: self._numbers(f"tangent of {name}", x) for name, x in given.items()}
        loss, tangent, stats = torch.func.jvp(call, (given,), (tangents,), has_aux=True)
        return {"loss": loss, "stats": stats, "tangent": tangent}

    def _func_grad(self, call: Call, given: Tensors) -> dict[str, Any]:
        def pulled(given: Tensors) -> tuple[Tensor, Any]:
            loss, stats = call(given)
            return (loss * self._upstream(loss)).sum(), (loss, stats)

        grads, (loss, stats) = torch.func.grad(pulled, has_aux=True)(given)
        return {"loss": loss, "stats": stats, **_named("gradient", given, [grads[name] for name in given])}

    def _upstream(self, loss: Tensor) -> Tensor:
        how = self._c["upstream"]
        if how == "ones":
            return torch.ones_like(loss)
        if how == "loss scale":
            return torch.full_like(loss, LOSS_SCALE)
        if how == "expanded":
            return self._numbers("loss", loss.sum()).expand(loss.shape)
        return LAYOUTS[how][1](self._numbers("loss", loss))

    def _numbers(self, name: str, like: Tensor) -> Tensor:
        """The same for every tensor of a shape; none of them cancel each other."""
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        numbers = -0.5 - torch.rand(like.shape, generator=generator, dtype=torch.float64)
        dtype = self._dtypes[name.rpartition(" ")[2]]
        return numbers.to(dtype).to(like.device, like.dtype)


def _requiring_grad(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}


def _named(what: str, names: Iterable[str], values: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{what} of {name}": value for name, value in zip(names, values, strict=True)}


def _one_by_one(call: Call, batched: Sequence[str]) -> Call:
    """What vmap of a call is, without it."""

    def calls(tensors: Tensors) -> tuple[Tensor, Any]:
        samples = [
            call({name: tensor[i] if name in batched else tensor for name, tensor in tensors.items()})
            for i in range(SAMPLES)
        ]
        return _pytree.tree_map(lambda *parts: torch.stack(parts), *samples)

    return calls


def _tensors(subject: Subject, c: Configuration, batched: bool, device: str) -> tuple[Tensors, list[str]]:
    """Of a configuration, laid out, and those of them that are a batch."""
    samples = [subject.values(Values(c, sample)) for sample in range(SAMPLES if batched else 1)]
    names = [name for name in samples[0] if c["mode"] == "vmap" or name == "input"] if batched else []
    tensors = {}
    for name, tensor in samples[0].items():
        values = torch.stack([sample[name] for sample in samples]) if name in names else tensor
        layout = c.get("layout" if name == "input" else f"{name}_layout") or "contiguous"
        tensors[name] = LAYOUTS[layout][1](values.to(device))
    return tensors, names


def _leaves(c: Configuration, tensors: Tensors) -> list[str]:
    is_differentiable = {
        "input": True,
        "target": True,
        "weight": "target_dtype" in c and "sample_weight" not in c,  # of elements
        "pos_weight": True,
        "denominator": c.get("denominator") == "differentiable",
    }
    names = [name for name, tensor in tensors.items() if is_differentiable.get(name) and tensor.is_floating_point()]
    return {"all": names, "input": names[:1], "others": names[1:]}[c.get("differentiable", "all")]


def check(name: str, c: Configuration, device: str) -> None:
    """That the results of the configuration are those of the formula, but for rounding."""
    subject = SUBJECTS[name]
    tensors, batched = _tensors(subject, c, c["mode"].startswith("vmap"), device)
    leaves = _leaves(c, tensors)
    call = _Call(subject, c)
    ours, theirs = call.actual, call.exact
    if batched:
        in_dims = ({name: 0 if name in batched else None for name in tensors},)
        ours, theirs = torch.func.vmap(call.actual, in_dims), _one_by_one(call.exact, batched)

    promoted = subject.promoted(c)
    opmath = torch.promote_types(promoted, torch.float32)
    loss_dtype = c["out_dtype"] or promoted
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()} | {"loss": loss_dtype}
    experiment = _Experiment(c, dtypes)
    exact = experiment.results(theirs, _doubled(tensors), leaves)
    actual = experiment.results(ours, tensors, leaves)
    assert actual["loss"].dtype == loss_dtype
    _compare_stats(c, actual.pop("stats"), exact.pop("stats"))
    assert list(actual) == list(exact)
    for what, expected in exact.items():
        computed_in = [opmath]
        if name == "log_softmax" and what != "loss":  # from which its gradient is computed
            computed_in.append(loss_dtype)
        if batched and what.startswith("gradient") and what.rpartition(" ")[2] not in batched:  # which autograd adds up
            computed_in.append(actual[what].dtype)
        try:
            _compare(actual[what], expected, max(computed_in, key=ROUNDING.__getitem__), _scale(what, c, exact))
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None


def _doubled(tensors: Tensors) -> Tensors:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _scale(what: str, c: Configuration, exact: dict[str, Tensor]) -> float:
    """Of what may cancel in a result, or of what its error follows from besides its own size.

    Capped logits are rounded before the loss is taken of them. Tangents of a loss are sums of what is not larger than
    the loss, and second derivatives of what is not larger than the first.
    """
    if "reduction" not in c and what != "loss":  # of log_softmax: the error of the result that it is made of
        loss = exact["loss"].nan_to_num()
        return 4 * c["classes"] * _largest(loss.exp() * loss) + 4
    if what in ("tangent", "second gradient of upstream"):
        return 4 * max(1.0, _largest(exact["loss"]))
    if what == "loss":
        rows = 1 if c.get("reduction") == "none" else c["rows"]
        return 4 * c.get("softcap", 0.0) * rows
    upstream = LOSS_SCALE if c["upstream"] == "loss scale" else 2
    difference_of = 2 * upstream / _divisor(c) if _is_difference(c) else 0
    if what.startswith("second"):
        return 4 * (difference_of + max(_largest(exact[first]) for first in exact if first.startswith("gradient")))
    return difference_of + _largest(exact[what])


def _is_difference(c: Configuration) -> bool:
    """Whether the gradient in the logits is one of probabilities that may be alike: of targets that are no class."""
    is_of_rows = "sample_weight" in c
    return is_of_rows and (c["target_dtype"].is_floating_point or c.get("label_smoothing", 0.0) > 0)


def _divisor(c: Configuration) -> float:
    if c["reduction"] != "mean" or c["rows"] == 0:
        return 1
    return c["rows"] if c["denominator"] is None else 2


def _largest(x: Tensor) -> float:
    return x.nan_to_num(posinf=0, neginf=0).abs().max().item() if x.numel() else 0.0


def _compare(actual: Tensor, expected: Tensor, opmath: torch.dtype, scale: float) -> None:
    """To the rounding of its dtype, or of the one that it is computed in: `scale` is of what is rounded in that, where
    subnormal numbers may be 0."""
    dtype = max(actual.dtype, opmath, key=ROUNDING.__getitem__)
    scale = scale * ROUNDING[opmath] + torch.finfo(opmath).smallest_normal
    assert_rounded(actual.to(dtype), expected.to(dtype), ROUNDINGS, scale / ROUNDING[dtype])


def _compare_stats(c: Configuration, actual: Any, exact: Any) -> None:
    if not c.get("return_stats"):
        return
    scale = max(1.0, _largest(exact.logits))
    for what in ("lse", "entropy", "target_log_prob"):
        assert_rounded(getattr(actual, what), getattr(exact, what), ROUNDINGS, scale)
    if c["classes"] and c["rows"]:
        found = exact.logits.gather(-1, actual.argmax.unsqueeze(-1)).squeeze(-1)
        assert_rounded(found.to(actual.lse.dtype), exact.logits.amax(-1), ROUNDINGS)
