"""What the benchmark measures with: its cases and their inputs, floors, clocks, counts of memory, and the oracle."""

import math
import time
from dataclasses import replace
from itertools import product

import pytest
import torch

from benchmarks.cases import DTYPES, GPU_CASES, IMAGES, ROWS, SHAPES, Case, select
from benchmarks.floors import floors
from benchmarks.functions import CROSS_ENTROPY, FUNCTIONS, LOG_SOFTMAX, SOFT_CROSS_ENTROPY
from benchmarks.inputs import make_inputs
from benchmarks.limits import Ceilings, Floor
from benchmarks.memory import make_memory_fresh, page_faults, peak_extra_bytes, warm_memory
from benchmarks.oracle import TOLERANCE, WrongResultError, check, exact
from benchmarks.passes import BACKWARD, BOTH, FORWARD, RUNS
from benchmarks.timing import Step, Timing, kernel_clock, may_wait_for_host, time_interleaved
from tests.support.losses import LOSSES

CPU_CASES = list(select((), (), (), (), "cpu", quick=False))
# Of another size, with as many dimensions.
SMALL = {ROWS: (40, 70), IMAGES: (2, 5, 6, 7)}


def _bytes(case: Case) -> list[tuple[int, int]]:
    """Read and written, by forward and by backward."""
    return [(floor.bytes - floor.written, floor.written) for floor in floors(case.loss, make_inputs(case, "cpu"))]


def test_floor_bytes_of_a_mean() -> None:
    logits, chosen, indices = 6 * 5 * 2, 6 * 2, 6 * 8  # bfloat16, and int64
    for loss in FUNCTIONS.values():
        floor = _bytes(Case(loss, (6, 5), torch.bfloat16)) if loss.is_reduced else []
        if loss.is_binary or loss is SOFT_CROSS_ENTROPY:
            assert floor == [(2 * logits, 0), (2 * logits, logits)]
        elif not loss.reads_all:
            assert floor == [(chosen + indices, 0), (indices, logits)]
        elif loss.is_reduced:
            assert floor == [(logits + indices, 0), (logits + indices, logits)]


def test_floor_bytes_of_what_is_not_reduced() -> None:
    logits, losses, indices = 6 * 5 * 4, 6 * 4, 6 * 8
    rows = Case(CROSS_ENTROPY, (6, 5), torch.float32, "none")
    elements = Case(FUNCTIONS["binary_cross_entropy"], (6, 5), torch.float32, "none")
    assert _bytes(rows) == [(logits + indices, losses), (logits + indices + losses, logits)]
    assert _bytes(elements) == [(2 * logits, logits), (3 * logits, logits)]
    assert _bytes(Case(LOG_SOFTMAX, (6, 5), torch.float32, "none")) == [(logits, logits), (2 * logits, logits)]


def test_floor_bytes_of_weights() -> None:
    for loss in LOSSES:
        plain = Case(FUNCTIONS[loss.name], (6, 5), torch.float32)
        weighted = replace(plain, options={"weight": True})
        assert _bytes(weighted) == [(read + 5 * 4, written) for read, written in _bytes(plain)]


def test_floor_bytes_do_not_depend_on_the_layout() -> None:
    plain = Case(CROSS_ENTROPY, (6, 5), torch.float32)
    assert _bytes(replace(plain, layout="crop")) == _bytes(plain)


def test_ceiling_of_a_floor() -> None:
    rates = Ceilings(read=2e9, copy=1e9, fill_fresh=1.0)
    assert Floor(read=100, copied=0, written=0).ceiling(rates) == 2e9
    assert Floor(read=0, copied=100, written=50).ceiling(rates) == 1e9
    # 20 bytes are copied to 20, at 1 GB/s, and 60 are read, at 2 GB/s.
    both = Floor(read=60, copied=0, written=0) + Floor(read=0, copied=40, written=20)
    assert both.ceiling(rates) == pytest.approx(100 / (40 / 1e9 + 60 / 2e9))
    assert floors(FUNCTIONS["nll_loss"], make_inputs(Case(FUNCTIONS["nll_loss"], (6, 50), torch.float32), "cpu")) == (
        Floor(read=6 * 8 + 6 * 4, copied=0, written=0),
        Floor(read=0, copied=6 * 8 + 6 * 50 * 4, written=6 * 50 * 4),
    )


def test_cases_cover_the_table() -> None:
    for loss in FUNCTIONS.values():
        cases = [case for case in CPU_CASES if case.loss is loss]
        assert {case.dtype_name for case in cases} == set(DTYPES)
        assert {case.reduction for case in cases} == ({"mean", "none"} if loss.is_reduced else {"none"})
        assert {"contiguous", "transposed"} <= {case.layout for case in cases}
        assert [options for options in loss.options if options not in [case.options for case in cases]] == []
    mean = {(case.shape, case.dtype_name) for case in CPU_CASES if case.is_plain and case.loss is CROSS_ENTROPY}
    assert {shape for shape, dtype in mean if dtype == "float32"} == set(SHAPES)
    assert {shape[1] for shape, _ in mean} >= {2, 5, 10, 19, 32, 100}


def test_cases_have_names_of_their_own() -> None:
    assert len({str(case) for case in CPU_CASES}) == len(CPU_CASES)


def test_cases_asked_for() -> None:
    [case] = select(["cross_entropy"], ["8192x1000, transposed"], ["bfloat16"], ["mean"], "cpu", quick=False)
    assert str(case) == "cross_entropy, bfloat16, 8192x1000, transposed"
    assert {case.reduction for case in select((), (), (), ["none"], "cpu", quick=False)} == {"none"}
    assert len({case.loss.name for case in select(["focal"], (), (), (), "cpu", quick=True)}) == 2


def test_cases_of_a_gpu() -> None:
    """Every function, dtype, reduction and an option; none twice; those of most worth first."""
    cases = list(select((), (), (), (), "cuda", quick=False))
    assert len({str(case) for case in cases}) == len(cases)
    gigabytes = [math.prod(case.shape) * case.dtype.itemsize * 1e-9 for case in cases]
    assert max(gigabytes) < 2.5  # the oracle holds four float64 copies of it at a time
    assert {case.loss.name for case in cases} == FUNCTIONS.keys()
    assert {case.dtype for case in cases} == {torch.bfloat16, torch.float16, torch.float32}
    assert {case.reduction for case in cases} == {"mean", "none"}
    assert [case.label for case in cases if case.options] == ["8192x32000, label_smoothing=0.1"]
    assert all(case.dtype == torch.float32 for case in cases if case.is_tiny)
    first, others = (list(select((), (), (), (), "cuda", quick=False, parts=[part])) for part in GPU_CASES)
    assert first + others == cases and max(len(first), len(others)) <= 15  # which take ten seconds each
    assert {case.loss.name for case in select((), (), (), (), "cuda", quick=True)} == FUNCTIONS.keys()
    assert {case.dtype_name for case in select((), (), ["float16"], (), "cuda", quick=False)} == {"float16"}


@pytest.mark.parametrize("case", [case for case in CPU_CASES if case.shape in SMALL], ids=str)
def test_inputs(case: Case, device: str) -> None:
    """Both providers agree with the oracle in every pass, on inputs of the layout that the case names."""
    inputs = make_inputs(replace(case, shape=SMALL[case.shape]), device)
    truth = exact(case.loss, inputs)
    assert inputs.input.is_contiguous() == (case.layout == "contiguous")
    inputs.input.requires_grad_()
    for call, name in product((case.loss.function, case.loss.reference), (FORWARD, BOTH, BACKWARD)):
        loss, gradient = RUNS[name](call, inputs)()
        assert (gradient is None) == (name == FORWARD)
        check(loss, gradient, truth, is_ours=call is case.loss.function)


def test_peak_memory_is_exact(device: str) -> None:
    def call() -> torch.Tensor:
        large = torch.empty(1 << 20, dtype=torch.uint8, device=device)
        del large
        return torch.empty(1 << 18, dtype=torch.uint8, device=device)

    assert peak_extra_bytes(call, device) == 1 << 20


def test_kernel_clock(device: str) -> None:
    source = torch.ones(1 << 24, device=device)
    target = torch.zeros_like(source)
    clock = kernel_clock(device)

    def copies(count: int) -> Step:
        def call() -> torch.Tensor:
            for _ in range(count):
                target.copy_(source)
            return target

        return Step(call, restore=target.zero_)

    one, eight = (min(clock(copies(count), 2) for _ in range(10)) for count in (1, 8))
    assert 4 < eight / one < 16
    assert (target == source).all()
    gigabytes_per_second = 2 * source.nbytes / one * 1e-9
    assert 0.1 < gigabytes_per_second < 20_000


def test_host_that_is_late(gpu: str) -> None:
    values = torch.ones(1 << 20, device=gpu)

    def late() -> torch.Tensor:
        time.sleep(0.05)
        return values.sum()

    assert may_wait_for_host(Step(late), gpu) and not may_wait_for_host(Step(values.sum), gpu)


def test_no_gpu_waits_on_a_cpu() -> None:
    assert not may_wait_for_host(Step(lambda: pytest.fail("there is nothing to call it for")), "cpu")


LARGE = 100 << 20  # beyond what glibc ever keeps for itself


def _faults() -> int:
    before = page_faults()
    torch.ones(LARGE, dtype=torch.uint8)
    return page_faults() - before


def test_warm_memory_has_its_pages() -> None:
    make_memory_fresh()
    fresh = _faults()
    assert fresh > 0
    with warm_memory(4 * LARGE):  # small ones may come to lie in the middle of it
        assert 10 * _faults() < fresh
    assert min(_faults(), _faults()) > fresh / 2


def test_memory_is_fresh_below_what_was_warm() -> None:
    make_memory_fresh()
    fresh = _faults()
    above = []
    for _ in range(3):
        with warm_memory(4 * LARGE):
            below = torch.ones(2 * LARGE, dtype=torch.uint8)
            above += [torch.ones(LARGE // 4, dtype=torch.uint8) for _ in range(4)]  # one of them at least
            del below
            assert 10 * _faults() < fresh
        assert min(_faults() for _ in range(8)) > fresh / 2


def test_page_faults_of_a_call() -> None:
    step = Step(lambda: torch.ones(100 << 20, dtype=torch.uint8))
    clock = kernel_clock("cpu")
    make_memory_fresh()
    fresh = time_interleaved({"ones": step}, clock, 0.0)["ones"]
    with warm_memory(400 << 20):
        warm = time_interleaved({"ones": step}, clock, 0.0)["ones"]
    # A few may be those of Python's own objects.
    assert 10 * warm.page_faults < fresh.page_faults, (warm, fresh)


def test_spread_is_that_of_the_quartiles() -> None:
    timing = Timing.of([5.0, 1.0, 2.0, 3.0, 90.0], [0.0, 0.0, 0.0, 8.0, 8.0], 4)
    assert timing == Timing(best=1.0, median=3.0, spread=1.0, samples=5, calls_per_sample=4, page_faults=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_wrong_results_are_noticed(dtype: torch.dtype) -> None:
    inputs = make_inputs(Case(CROSS_ENTROPY, (64, 100), dtype), "cpu")
    truth = exact(CROSS_ENTROPY, inputs)
    input = inputs.input.requires_grad_()
    loss = CROSS_ENTROPY.function(input, inputs.target)
    loss.backward()
    check(loss, input.grad, truth)
    with pytest.raises(WrongResultError, match="loss"):
        check(loss * 1.1, input.grad, truth)
    with pytest.raises(WrongResultError, match="loss"):
        check(loss * 0.9, input.grad, truth)
    with pytest.raises(WrongResultError, match="gradient"):
        check(loss, input.grad.roll(1), truth)
    with pytest.raises(WrongResultError, match="nan"):
        check(loss * torch.nan, input.grad, truth)
    slightly_wrong = loss * (1 + 2 * TOLERANCE[dtype])
    check(slightly_wrong, input.grad, truth)
    with pytest.raises(WrongResultError, match="loss"):
        check(slightly_wrong, input.grad, truth, is_ours=True)


def test_tolerance_is_that_of_the_logits() -> None:
    inputs = make_inputs(Case(CROSS_ENTROPY, (64, 100), torch.bfloat16), "cpu")
    truth = exact(CROSS_ENTROPY, inputs)
    input = inputs.input.requires_grad_()
    loss = torch.nn.functional.cross_entropy(input.float(), inputs.target)
    loss.backward()
    errors = check(loss, input.grad, truth)
    assert loss.dtype == torch.float32 and errors["gradient"] > TOLERANCE[torch.float32]
