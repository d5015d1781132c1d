"""What a GPU alone shows: graphs, streams, waiting and memory. And that no order of blocks changes a bit of what they
add up to, which the emulator's schedules show, too."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from benchmarks.memory import peak_extra_bytes
from ce_ext.functional import binary_cross_entropy_with_logits, cross_entropy, log_softmax
from tests.cuda_emu import Emulator
from tests.support.binary_cases import logit_inputs
from tests.support.cases import class_index_inputs
from tests.support.comparison import loss_and_gradients
from tests.support.marks import NEEDS_EMULATOR

SMOOTHED = {"label_smoothing": 0.1, "weight": torch.ones(16)}
Make = Callable[..., tuple[Tensor, Tensor]]  # of shape, dtype, device and seed
Call = tuple[Callable[..., Tensor], Make, tuple[int, ...]]

with_grad = partial(cross_entropy, grad_in_forward=True, loss_scale=1.0)
# Every kind of kernel, with a mean that several blocks add up.
CALLS: dict[str, Call] = {
    "rows": (cross_entropy, class_index_inputs, (4096, 1000)),
    "few classes": (cross_entropy, class_index_inputs, (100_000, 10)),
    "classes apart": (cross_entropy, class_index_inputs, (4, 19, 200, 200)),
    "long rows": (cross_entropy, class_index_inputs, (3, 300_000)),
    "rows, gradient in forward": (with_grad, class_index_inputs, (4096, 1000)),
    "rows of clusters, gradient in forward": (with_grad, class_index_inputs, (600, 100_000)),
    "long rows, gradient in forward": (with_grad, class_index_inputs, (3, 300_000)),
    "elements": (binary_cross_entropy_with_logits, logit_inputs, (1 << 20,)),
}
EMULATED_CALLS: dict[str, Call] = {
    "rows": (cross_entropy, class_index_inputs, (300, 100)),
    "few classes": (cross_entropy, class_index_inputs, (1000, 10)),
    "classes apart": (cross_entropy, class_index_inputs, (2, 19, 20, 20)),
    "long rows": (cross_entropy, class_index_inputs, (2, 40_000)),
    "rows, gradient in forward": (with_grad, class_index_inputs, (300, 100)),
    "rows of clusters, gradient in forward": (with_grad, class_index_inputs, (3, 20_000)),
    "long rows, gradient in forward": (with_grad, class_index_inputs, (2, 40_000)),
}
ALL_CALLS = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def _results(function: Callable[..., Tensor], input: Tensor, target: Tensor) -> list[Tensor]:
    """The loss and its gradient."""
    return loss_and_gradients(lambda x: function(x, target), input)


def _are_equal(actual: list[Tensor], expected: list[Tensor]) -> bool:
    return all(map(torch.equal, actual, expected))


@ALL_CALLS
def test_graph_is_replayed_with_other_inputs(call: Call, gpu: str) -> None:
    function, make, shape = call
    input, target = make(shape, torch.float32, gpu, seed=0)
    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):  # once before, as torch asks for
        _results(function, input, target)
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _results(function, input, target)
    for seed in (1, 2, 1, 3):
        others = make(shape, torch.float32, gpu, seed=seed)
        input.copy_(others[0])
        target.copy_(others[1])
        graph.replay()
        assert _are_equal(captured, _results(function, *others))


@ALL_CALLS
def test_streams_do_not_meet(call: Call, gpu: str) -> None:
    function, make, shape = call
    streams = [torch.cuda.Stream() for _ in range(4)]
    inputs = [make(shape, torch.float32, gpu, seed=seed) for seed in range(len(streams))]
    expected = [_results(function, *pair) for pair in inputs]
    for _ in range(20):
        torch.cuda.synchronize()
        found = []
        for stream, pair in zip(streams, inputs, strict=True):
            with torch.cuda.stream(stream):
                found.append(_results(function, *pair))
        torch.cuda.synchronize()
        assert all(map(_are_equal, found, expected))


@ALL_CALLS
def test_every_run_has_the_same_bits(call: Call, gpu: str) -> None:
    function, make, shape = call
    pair = make(shape, torch.float32, gpu)
    expected = _results(function, *pair)
    for _ in range(100):
        assert _are_equal(_results(function, *pair), expected)


@pytest.mark.kernel
@NEEDS_EMULATOR
@pytest.mark.parametrize("call", EMULATED_CALLS.values(), ids=EMULATED_CALLS)
def test_every_schedule_has_the_same_bits(call: Call, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    function, make, shape = call
    pair = make(shape, torch.float32)
    results = []
    with emulator.running():
        for schedule in ("forward", "reverse", "random:1", "random:2"):
            monkeypatch.setenv("CUDA_EMU_SCHEDULE", schedule)
            results.append(_results(function, *pair))
    assert all(_are_equal(result, results[0]) for result in results)


# Calls, and what their launch needs besides its problem: memory, and counters.
LAUNCHES = {
    "few rows": (cross_entropy, class_index_inputs, (8, 16), {}, (False, False)),
    "few rows, gradient in forward": (with_grad, class_index_inputs, (8, 16), {}, (False, False)),
    "few rows, smoothed": (cross_entropy, class_index_inputs, (8, 16), SMOOTHED, (True, False)),
    "many rows": (cross_entropy, class_index_inputs, (4096, 16), {}, (True, False)),
    "many rows, gradient in forward": (with_grad, class_index_inputs, (4096, 16), {}, (True, False)),
    "many rows, not reduced": (cross_entropy, class_index_inputs, (4096, 16), {"reduction": "none"}, (False, False)),
    "long rows": (cross_entropy, class_index_inputs, (2, 40_000), {}, (True, True)),
    "long rows, not reduced": (cross_entropy, class_index_inputs, (2, 40_000), {"reduction": "none"}, (True, True)),
    "log_softmax": (lambda input, _: log_softmax(input, 1), class_index_inputs, (4096, 16), {}, (False, False)),
    "few elements": (binary_cross_entropy_with_logits, logit_inputs, (8, 16), {}, (False, False)),
    "many elements": (binary_cross_entropy_with_logits, logit_inputs, (400, 1000), {}, (True, False)),
}


@pytest.mark.kernel
@NEEDS_EMULATOR
@pytest.mark.parametrize(("function", "make", "shape", "options", "needs"), LAUNCHES.values(), ids=LAUNCHES)
def test_launches_ask_for_no_memory_that_they_do_not_use(
    function: Callable[..., Tensor],
    make: Make,
    shape: tuple[int, ...],
    options: dict[str, Any],
    needs: tuple[bool, bool],
    emulator: Emulator,
) -> None:
    input, target = make(shape, torch.float32)
    with emulator.running():
        loss = function(input.requires_grad_(), target, **options)
        allocated, has_counters = emulator.memory_of_last_launch()
        assert (allocated > 0, has_counters) == needs
        loss.sum().backward()
        allocated, has_counters = emulator.memory_of_last_launch()
        assert (allocated > 0, has_counters) == (bool(options.get("label_smoothing")), False)


@ALL_CALLS
def test_nothing_waits_for_the_gpu(call: Call, gpu: str) -> None:
    function, make, shape = call
    pair = make(shape, torch.float32, gpu)
    _results(function, *pair)  # by now all memory and all kernels are there
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")  # of what torch is asked to wait for
    try:
        torch.cuda._sleep(1 << 30)  # cycles: half a second
        _results(function, *pair)
        assert not torch.cuda.current_stream().query()  # and of what CUDA is
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()


@pytest.mark.parametrize(
    ("function", "make", "shape"),
    [
        (cross_entropy, class_index_inputs, (16_384, 1024)),
        (with_grad, class_index_inputs, (16_384, 1024)),
        (cross_entropy, class_index_inputs, (4, 1 << 22)),
        (binary_cross_entropy_with_logits, logit_inputs, (1 << 24,)),
    ],
)
def test_memory_is_that_of_the_results(
    function: Callable[..., Tensor], make: Make, shape: tuple[int, ...], gpu: str
) -> None:
    pair = make(shape, torch.float32, gpu)
    returned = sum(result.nbytes for result in _results(function, *pair))
    extra = peak_extra_bytes(lambda: _results(function, *pair), gpu) - returned
    assert extra <= 4 << 20  # a sixteenth of the input: numbers of every row, and what the allocator rounds up


def test_target_out_of_bounds_is_reported_and_survived(gpu: str) -> None:
    input = torch.randn(4, 5, device=gpu)
    target = torch.tensor([0, 1, 7, 3], device=gpu)
    loss = cross_entropy(input, target, reduction="none")
    with pytest.raises(IndexError, match="7 is out of bounds"):
        ce_ext.cuda.check()
    assert loss.isnan().tolist() == [False, False, True, False]
    ce_ext.cuda.check()  # it is reported once
    assert cross_entropy(input, target.clamp(max=4)).isfinite()
