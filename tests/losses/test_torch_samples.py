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
from tests.support.cases import DTYPES
from tests.support.comparison import assert_rounded

pytest.importorskip("expecttest", reason="torch's samples import it")
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import ModuleInfo, ModuleInput, module_db
from torch.testing._internal.opinfo.core import OpInfo, SampleInput

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
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
    def function(self) -> Callable[..., Tensor]:
        return FUNCTIONS[self.op_name]

    @property
    def reference(self) -> Callable[..., Tensor]:
        return OPS[self.op_name].op


@dataclass(frozen=True)
class ModuleSample:
    info_name: str
    number: int
    name: str

    def make(self, dtype: torch.dtype, device: str) -> ModuleInput:
        return _make_module_samples(self.info_name, dtype, device)[self.number]


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


def _to_double(x: Any) -> Any:
    return x.detach().double() if isinstance(x, Tensor) and x.is_floating_point() else x


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().clone().requires_grad_(x.is_floating_point()) for x in tensors]


def _results(function: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """The loss, and its gradients in the floating tensors for an upstream gradient that differs from row to row."""
    loss = function(*tensors)
    grad_output = torch.linspace(0.5, 1.5, loss.numel(), device=loss.device).reshape(loss.shape).to(loss.dtype)
    leaves = [x for x in tensors if x.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, leaves, grad_output)]


def _assert_close_to_float64(actual: list[Tensor], exact: list[Tensor]) -> None:
    """To the rounding of the dtype. torch's own float64 is that good only next to the largest element."""
    for ours, theirs in zip(actual, exact, strict=True):
        assert ours.shape == theirs.shape
        scale = theirs.nan_to_num().abs().max().item() if ours.dtype in (torch.float64, torch.float32) else 0.0
        assert_rounded(ours, theirs, roundings=2, scale=scale)


def _assert_close_to_torch(actual: list[Tensor], expected: list[Tensor]) -> None:
    """As torch compares; in half types it rounds what it computes on the way, too."""
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype and ours.is_contiguous() == theirs.is_contiguous()
        if ours.dtype in (torch.float64, torch.float32):
            torch.testing.assert_close(ours, theirs, equal_nan=True)
        else:
            assert_rounded(ours, theirs, roundings=6, scale=theirs.nan_to_num().abs().max().item())


@pytest.mark.covering(1)
@ALL_DTYPES
@OP_SAMPLES
@KERNEL
def test_loss_and_gradients(sample: OpSample, dtype: torch.dtype, device: str) -> None:
    made = sample.make(dtype, device)
    function = partial(sample.function, **made.kwargs)
    tensors = _leaves(made.input, *made.args)
    actual = _results(function, *tensors)
    _assert_close_to_torch(actual, _results(partial(sample.reference, **made.kwargs), *tensors))

    exact_options = {name: _to_double(value) for name, value in made.kwargs.items()}
    exact = _results(partial(sample.reference, **exact_options), *_leaves(*map(_to_double, tensors)))
    _assert_close_to_float64(actual, exact)


@OP_SAMPLES
@KERNEL
def test_noncontiguous(sample: OpSample, device: str) -> None:
    """Every tensor of the sample with gaps between its elements, the weight too."""
    made = sample.make(torch.float32, device)
    spread = made.noncontiguous()
    function = sample.function
    expected = _results(partial(function, **made.kwargs), *_leaves(made.input, *made.args))
    torch.testing.assert_close(_results(partial(function, **spread.kwargs), spread.input, *spread.args), expected)


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
    _assert_close_to_torch(actual, _results(theirs, *tensors))
    exact_tensors = _leaves(*map(_to_double, tensors))
    _assert_close_to_float64(actual, _results(copy.deepcopy(theirs).double(), *exact_tensors))


@MODULE_SAMPLES
def test_module_against_the_formula_that_torch_tests_itself_with(sample: ModuleSample, device: str) -> None:
    made = sample.make(torch.float64, device)
    ours, _ = _modules(sample, made)
    tensors = [x.detach() for x in made.forward_input.args]
    expected = made.reference_fn(ours, *tensors)
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
    expected = theirs(*tensors)
    torch.testing.assert_close(ours(*tensors), expected, equal_nan=True)
    ours.float()
    assert all(buffer.dtype == torch.float32 for buffer in ours.buffers())
    single = [x.float() if x.is_floating_point() else x for x in tensors]
    torch.testing.assert_close(ours(*single), expected.float(), rtol=1e-4, atol=1e-4, equal_nan=True)
