"""The samples that torch tests its own losses on: its OpInfo for functions, its ModuleInfo for modules."""

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support import oracles
from tests.support.cases import DTYPES, ROUNDING
from tests.support.comparison import assert_rounded, on_cpu, to_double

pytest.importorskip("expecttest", reason="torch's samples import it")
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import ModuleInfo, ModuleInput, module_db
from torch.testing._internal.opinfo.core import OpInfo, SampleInput

pytestmark = pytest.mark.torch_modes

Function = Callable[..., Tensor]


def _cross_entropy(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    oracle = oracles.soft_cross_entropy if target.is_floating_point() else oracles.cross_entropy
    return oracle(input, target, **options)


FUNCTIONS: dict[str, Function] = {
    "nn.functional.cross_entropy": ce_ext.functional.cross_entropy,
    "nn.functional.nll_loss": ce_ext.functional.nll_loss,
    "nn.functional.binary_cross_entropy": ce_ext.functional.binary_cross_entropy,
    "nn.functional.binary_cross_entropy_with_logits": ce_ext.functional.binary_cross_entropy_with_logits,
}
MODULES: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.CrossEntropyLoss: ce_ext.nn.CrossEntropyLoss,
    torch.nn.NLLLoss: ce_ext.nn.NLLLoss,
    torch.nn.BCELoss: ce_ext.nn.BCELoss,
    torch.nn.BCEWithLogitsLoss: ce_ext.nn.BCEWithLogitsLoss,
}
ORACLES: dict[Any, Function] = {
    "nn.functional.cross_entropy": _cross_entropy,
    "nn.functional.nll_loss": oracles.nll_loss,
    "nn.functional.binary_cross_entropy": oracles.binary_cross_entropy,
    "nn.functional.binary_cross_entropy_with_logits": oracles.binary_cross_entropy_with_logits,
    torch.nn.CrossEntropyLoss: _cross_entropy,
    torch.nn.NLLLoss: oracles.nll_loss,
    torch.nn.BCELoss: oracles.binary_cross_entropy,
    torch.nn.BCEWithLogitsLoss: oracles.binary_cross_entropy_with_logits,
}

OPS: dict[str, OpInfo] = {op.name: op for op in op_db if op.name in FUNCTIONS}
MODULE_INFOS: dict[str, ModuleInfo] = {info.name: info for info in module_db if info.module_cls in MODULES}


@dataclass(frozen=True)
class OpSample:
    """One of the samples of an OpInfo, by its number: the tensors are made for a dtype and a device."""

    op_name: str
    number: int
    name: str

    def make(self, dtype: torch.dtype, device: str, seed: int = 0) -> SampleInput:
        return _make_op_samples(self.op_name, dtype, device, seed)[self.number]

    @property
    def function(self) -> Function:
        return FUNCTIONS[self.op_name]

    @property
    def reference(self) -> Function:
        return OPS[self.op_name].op

    @property
    def oracle(self) -> Function:
        return ORACLES[self.op_name]


@dataclass(frozen=True)
class ModuleSample:
    info_name: str
    number: int
    name: str

    def make(self, dtype: torch.dtype, device: str) -> ModuleInput:
        return _make_module_samples(self.info_name, dtype, device)[self.number]

    @property
    def oracle(self) -> Function:
        return ORACLES[MODULE_INFOS[self.info_name].module_cls]


@cache
def _make_op_samples(op_name: str, dtype: torch.dtype, device: str, seed: int) -> list[SampleInput]:
    torch.manual_seed(seed)
    return list(OPS[op_name].sample_inputs(device, dtype, requires_grad=True))


@cache
def _make_module_samples(info_name: str, dtype: torch.dtype, device: str) -> list[ModuleInput]:
    torch.manual_seed(0)
    info = MODULE_INFOS[info_name]
    return info.module_inputs_func(info, device=device, dtype=dtype, requires_grad=True, training=True)


def _op_samples() -> Iterator[OpSample]:
    for op_name in OPS:
        for number, sample in enumerate(_make_op_samples(op_name, torch.float64, "cpu", 0)):
            shapes = [str(list(x.shape)).replace(" ", "") for x in (sample.input, *sample.args)]
            options = [f"{k}={'...' if isinstance(v, Tensor) else v}" for k, v in sample.kwargs.items()]
            yield OpSample(op_name, number, "-".join([op_name.split(".")[-1], str(number), *shapes, *options]))


def _module_samples() -> Iterator[ModuleSample]:
    for info_name in MODULE_INFOS:
        for number, sample in enumerate(_make_module_samples(info_name, torch.float64, "cpu")):
            yield ModuleSample(info_name, number, f"{info_name}-{number}-{sample.desc}")


OP_SAMPLES = pytest.mark.parametrize("sample", list(_op_samples()), ids=lambda sample: sample.name)
MODULE_SAMPLES = pytest.mark.parametrize("sample", list(_module_samples()), ids=lambda sample: sample.name)
# Heavy not by their elements, but by their number.
KERNEL = lambda test: pytest.mark.kernel(pytest.mark.heavy(test))  # noqa: E731
ALL_DTYPES = pytest.mark.parametrize("dtype", DTYPES)


def test_there_are_samples_of_every_function_and_module() -> None:
    assert OPS.keys() == FUNCTIONS.keys()
    assert {info.module_cls for info in MODULE_INFOS.values()} == MODULES.keys()
    for op in OPS.values():
        assert op.supported_dtypes("cpu") == set(DTYPES)
        assert op.error_inputs_func is None  # or they would have to be tried, too


def _options_in_double(options: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(options, to_double(*options.values()), strict=True))


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().clone().requires_grad_(x.is_floating_point()) for x in tensors]


def _results(function: Function, *tensors: Tensor) -> list[Tensor]:
    """The loss, and its gradients in the floating tensors for an upstream gradient that differs from row to row."""
    loss = function(*tensors)
    grad_output = torch.linspace(0.5, 1.5, loss.numel(), device=loss.device).reshape(loss.shape).to(loss.dtype)
    leaves = [x for x in tensors if x.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, leaves, grad_output)]


def _sizes(oracle: Function, tensors: list[Tensor], options: dict[str, Any]) -> list[float]:
    """How large the largest of the results would be if nothing in them cancelled: that is what rounding is relative to.

    Among torch's random weights there are negative ones, so that a sum may be much less than its terms, and the sum of
    weights, which a mean divides by, too.
    """
    weights = {name: x.abs() for name, x in options.items() if isinstance(x, Tensor)}
    sizes = [x.nan_to_num().abs().max().item() for x in _results(partial(oracle, **options | weights), *tensors)]
    of_indices = not tensors[1].is_floating_point()
    if of_indices and "weight" in weights and options.get("reduction", "mean") == "mean":
        counts = partial(oracles.nll_loss, torch.full_like(tensors[0], -1), tensors[1], reduction="sum")
        counts = partial(counts, ignore_index=options.get("ignore_index", -100))
        cancelled = (counts(weight=weights["weight"]) / counts(weight=options["weight"])).abs().item()
        sizes = [size * cancelled**2 for size in sizes]  # once of the sum, once of what it is divided by
    return sizes


def _assert_exact(actual: list[Tensor], oracle: Function, tensors: list[Tensor], options: dict[str, Any]) -> None:
    """The results are those of float64, to the rounding of their dtype and of the one that kernels compute in."""
    tensors, options = _leaves(*to_double(*tensors)), _options_in_double(options)
    exact = _results(partial(oracle, **options), *tensors)
    for ours, theirs, size in zip(actual, exact, _sizes(oracle, tensors, options), strict=True):
        assert ours.shape == theirs.shape
        rounded = theirs.to(ours.dtype)
        theirs = theirs.where(rounded.isfinite(), rounded.double())  # what is too large for a half type is infinite
        opmath = ROUNDING[torch.promote_types(ours.dtype, torch.float32)]
        assert_rounded(ours, theirs, roundings=2, scale=size * opmath / ROUNDING[ours.dtype])


def _assert_same_kind(actual: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype and ours.is_contiguous() == theirs.is_contiguous()


def _assert_oracle_agrees(
    reference: Function, oracle: Function, tensors: list[Tensor], options: dict[str, Any]
) -> None:
    """torch has the same values as the oracle, but for digits that it loses."""
    tensors, options = _leaves(*to_double(*tensors)), _options_in_double(options)
    exact, theirs = _results(partial(oracle, **options), *tensors), _results(reference, *tensors)
    for expected, result, size in zip(exact, theirs, _sizes(oracle, tensors, options), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-7, atol=1e-7 * max(1, size), equal_nan=True)


@pytest.mark.covering(1)
@ALL_DTYPES
@OP_SAMPLES
@KERNEL
def test_loss_and_gradients(sample: OpSample, dtype: torch.dtype, device: str) -> None:
    made = sample.make(dtype, device)
    tensors = _leaves(made.input, *made.args)
    actual = _results(partial(sample.function, **made.kwargs), *tensors)
    _assert_same_kind(actual, _results(partial(on_cpu(sample.reference), **made.kwargs), *tensors))
    _assert_exact(actual, sample.oracle, tensors, made.kwargs)


@OP_SAMPLES
def test_oracle_agrees_with_torch(sample: OpSample) -> None:
    made = sample.make(torch.float64, "cpu")
    reference = partial(sample.reference, **made.kwargs)
    _assert_oracle_agrees(reference, sample.oracle, [made.input, *made.args], made.kwargs)


@OP_SAMPLES
@KERNEL
def test_noncontiguous(sample: OpSample, device: str) -> None:
    """Every tensor of the sample with gaps between its elements, the weight too."""
    made = sample.make(torch.float32, device)
    spread = made.noncontiguous()
    actual = _results(partial(sample.function, **spread.kwargs), spread.input, *spread.args)
    _assert_exact(actual, sample.oracle, [made.input, *made.args], made.kwargs)


@OP_SAMPLES
@KERNEL
def test_tensors_that_share_their_memory_until_written(sample: OpSample, device: str) -> None:
    """A kernel that asks for a writable pointer to what it only reads makes torch copy a lazy clone."""
    made = sample.make(torch.float32, device)
    tensors = [torch._lazy_clone(x.detach()).requires_grad_(x.is_floating_point()) for x in (made.input, *made.args)]
    _results(partial(sample.function, **made.kwargs), *tensors)
    assert [torch._C._is_cow_tensor(x) for x in tensors] == [True] * len(tensors)


@pytest.mark.thorough
@OP_SAMPLES
def test_gradcheck(sample: OpSample, device: str) -> None:
    made = sample.make(torch.float64, device)
    function = partial(sample.function, **made.kwargs)
    tensors = _leaves(made.input, *made.args)
    assert torch.autograd.gradcheck(
        function, tensors, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradgradcheck(
        function, tensors, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )


@OP_SAMPLES
def test_jvp(sample: OpSample, device: str) -> None:
    made = sample.make(torch.float64, device)
    tensors = [x.detach() for x in (made.input, *made.args)]
    tangents = [torch.randn_like(x) if x.is_floating_point() else None for x in tensors]
    moving = [x for x in tensors if x.is_floating_point()]
    fixed = [x for x in tensors if not x.is_floating_point()]
    results = [
        torch.func.jvp(
            lambda *x, function=function: function(*x, *fixed, **made.kwargs),
            tuple(moving),
            tuple(tangent for tangent in tangents if tangent is not None),
        )
        for function in (sample.function, sample.reference)
    ]
    torch.testing.assert_close(*results)


@pytest.mark.covering(1)
@OP_SAMPLES
@pytest.mark.parametrize("mapped", ["input", "target", "both"])
@KERNEL
def test_vmap(sample: OpSample, mapped: str, device: str) -> None:
    made = [sample.make(torch.float64, device, seed) for seed in range(3)]
    inputs, targets = [x.input.detach() for x in made], [x.args[0].detach() for x in made]
    input = inputs[0] if mapped == "target" else torch.stack(inputs, -1)
    target = targets[0] if mapped == "input" else torch.stack(targets)
    in_dims = (None if mapped == "target" else -1, None if mapped == "input" else 0)

    ours = partial(sample.function, **made[0].kwargs)
    theirs = partial(sample.reference, **made[0].kwargs)
    pairs = [(inputs[0 if mapped == "target" else i], targets[0 if mapped == "input" else i]) for i in range(3)]
    for transform in (lambda function: function, torch.func.jacrev):
        expected = torch.stack([transform(theirs)(*pair) for pair in pairs])
        torch.testing.assert_close(torch.func.vmap(transform(ours), in_dims)(input, target), expected)


def _modules(sample: ModuleSample, made: ModuleInput) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch_class = MODULE_INFOS[sample.info_name].module_cls
    arguments = made.constructor_input
    return tuple(cls(*arguments.args, **arguments.kwargs) for cls in (MODULES[torch_class], torch_class))


@pytest.mark.covering(1)
@ALL_DTYPES
@MODULE_SAMPLES
def test_module(sample: ModuleSample, dtype: torch.dtype, device: str) -> None:
    made = sample.make(dtype, device)
    ours, theirs = _modules(sample, made)
    tensors = _leaves(*made.forward_input.args)
    actual = _results(ours, *tensors)
    _assert_same_kind(actual, _results(on_cpu(copy.deepcopy(theirs).cpu()), *tensors))
    _assert_exact(actual, sample.oracle, tensors, made.constructor_input.kwargs)


@MODULE_SAMPLES
def test_oracle_agrees_with_module(sample: ModuleSample) -> None:
    made = sample.make(torch.float64, "cpu")
    _, theirs = _modules(sample, made)
    _assert_oracle_agrees(theirs, sample.oracle, list(made.forward_input.args), made.constructor_input.kwargs)


@MODULE_SAMPLES
def test_module_against_the_formula_that_torch_tests_itself_with(sample: ModuleSample, device: str) -> None:
    made = sample.make(torch.float64, device)
    ours, theirs = _modules(sample, made)
    tensors = [x.detach() for x in made.forward_input.args]
    expected = made.reference_fn(theirs, *tensors)  # which may call it, for one sample after another
    torch.testing.assert_close(ours(*tensors), expected, equal_nan=True)


@MODULE_SAMPLES
def test_module_is_saved_copied_and_moved_as_torch_s(sample: ModuleSample, device: str) -> None:
    made = sample.make(torch.float64, device)
    ours, theirs = _modules(sample, made)
    tensors = [x.detach() for x in made.forward_input.args]
    expected = ours(*tensors)
    assert list(ours.parameters()) == []
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(twin(*tensors), expected, rtol=0, atol=0, equal_nan=True)
    for name, buffer in ours.named_buffers():  # what is loaded counts
        setattr(theirs, name, buffer * 2)
    ours.load_state_dict(theirs.state_dict())
    options = made.constructor_input.kwargs
    _assert_exact(_results(ours, *_leaves(*tensors)), sample.oracle, tensors, options | dict(ours.named_buffers()))
    ours.float()
    assert all(buffer.dtype == torch.float32 for buffer in ours.buffers())
    single = [x.float() if x.is_floating_point() else x for x in tensors]
    _assert_exact(_results(ours, *_leaves(*single)), sample.oracle, single, options | dict(ours.named_buffers()))
