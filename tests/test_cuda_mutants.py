"""Plants bugs in the CUDA kernels, one at a time: the suite has to fail on each of them, and for the right reason."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import cuda_emu
from tests.cuda_emu.suite import Run, concurrently, run_suite
from tests.marks import NEEDS_EMULATOR

pytestmark = NEEDS_EMULATOR

WRONG_VALUES = r"AssertionError"
WRONG_PLACE = rf"{WRONG_VALUES}|Segmentation fault"
OUT_OF_BOUNDS = r"AddressSanitizer: heap-buffer-overflow"
MISALIGNED = r"runtime error: .* misaligned address"
RACE = r"ThreadSanitizer: data race"


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: str  # arguments of pytest: those that kill it
    evidence: str = WRONG_VALUES
    schedule: str = "forward"
    sanitizer: str | None = None


BLOCK_REDUCE = "csrc/cuda/block_reduce.cuh"
PACKS = "csrc/cuda/packs.cuh"
ROWS = "csrc/cuda/cross_entropy_rows.cuh"
LOSS_ROWS = "csrc/cuda/softmax_loss_rows.cuh"
ROW_SUMS = "csrc/cuda/row_sums.cuh"
FORWARD = "csrc/cuda/cross_entropy_forward.cuh"
BACKWARD = "csrc/cuda/cross_entropy_backward.cuh"
SOFT = "csrc/cuda/soft_cross_entropy.cuh"
SOFTMAX = "csrc/losses/softmax.h"
TOTALS = "csrc/cuda/row_totals.cuh"
GROUP_TOTALS = "csrc/cuda/group_totals.cuh"
LOG_SOFTMAX = "csrc/cuda/log_softmax.cuh"
BINARY = "csrc/cuda/binary_cross_entropy.cuh"
BINARY_LOSS = "csrc/losses/binary_cross_entropy.h"
ELEMENTS = "csrc/cuda/elements.cuh"
SELFTEST = "tests/cuda_emu/selftest.cu"  # has what no loss does yet
BY_CLASS = "tests/test_values.py -k 3x257"
BY_ROW = "tests/test_values.py -k 33x100"
MANY_ROWS = "tests/test_values.py -k 9000x3"
FAR_APART = "tests/test_layouts.py -k further_apart"

MUTANTS = (
    Mutant(
        "no barrier after shared memory is written",
        BLOCK_REDUCE,
        "  __syncthreads();\n  if (warp == 0)",
        "  if (warp == 0)",
        BY_CLASS,
    ),
    Mutant(
        "no barrier after shared memory is written, where that gives the right values",
        BLOCK_REDUCE,
        "  __syncthreads();\n  if (warp == 0)",
        "  if (warp == 0)",
        BY_CLASS,
        RACE,
        schedule="reverse",
        sanitizer="thread",
    ),
    Mutant(
        "no barrier before shared memory is reused",
        BLOCK_REDUCE,
        "  __syncthreads();  // warp_sums is free for the next call\n",
        "",
        "tests/test_cuda_emu.py -k block_reduce",
        schedule="reverse",
    ),
    Mutant(
        "half a warp shuffles with the mask of all",
        BLOCK_REDUCE,
        "if (warp == 0) {\n    sums = lane < kWarps ? warp_sums[lane] : Sums();",
        "if (threadIdx.x < kWarps) {\n    sums = warp_sums[lane];",
        BY_CLASS,
        r"deadlock.*\n.*lanes ff: __shfl_down_sync at .* for lanes ffffffff\n.*lanes ffffff00: __syncthreads",
    ),
    Mutant(
        "lanes read more sums than there are warps",
        BLOCK_REDUCE,
        "lane < kWarps ? warp_sums[lane] : Sums()",
        "warp_sums[lane]",
        BY_CLASS,
        OUT_OF_BOUNDS,
        sanitizer="address",
    ),
    Mutant(
        "every lane writes the sum of its warp",
        BLOCK_REDUCE,
        "if (lane == 0) warp_sums[warp] = sums;",
        "warp_sums[warp] = sums;",
        BY_CLASS,
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "count of packs rounded up",
        PACKS,
        "(size - head) / Pack<S>::kSize * Pack<S>::kSize",
        "(size - head + Pack<S>::kSize - 1) / Pack<S>::kSize * Pack<S>::kSize",
        BY_CLASS,
        OUT_OF_BOUNDS,
        sanitizer="address",
    ),
    Mutant(
        "packs that are not aligned",
        PACKS,
        "head = to_boundary < size ? to_boundary : size;",
        "head = 0;",
        "tests/test_layouts.py -k misaligned",
        MISALIGNED,
        sanitizer="address",
    ),
    Mutant(
        "a shuffle taken for a barrier of the warp",
        SELFTEST,
        "__syncwarp();",
        "__shfl_sync(kAll, 0, 0);",
        "tests/test_cuda_emu.py -k warp-forward",
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "the last block reads what no fence has let through",
        SELFTEST,
        "__threadfence();\n         is_last",
        "is_last",
        "tests/test_cuda_emu.py -k last_block",
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "packs where the row of the gradient is aligned otherwise",
        PACKS,
        "head = packs_end = size;",
        "return;",
        "tests/test_layouts.py -k misaligned",
        MISALIGNED,
        sanitizer="address",
    ),
    Mutant(
        "packs where the row of the upstream gradient is aligned otherwise",
        LOG_SOFTMAX,
        "  split.share(grad_y, p.classes);\n",
        "",
        "tests/test_log_softmax.py -k misaligned",
        MISALIGNED,
        sanitizer="address",
    ),
    Mutant(
        "no barrier before what thread 0 has is read",
        BLOCK_REDUCE,
        "shared[0] = value;\n  __syncthreads();",
        "shared[0] = value;",
        "tests/test_log_softmax.py -k 3x257",
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "offset of a row of log-softmax in 32 bits",
        LOG_SOFTMAX,
        "+ rows.offset(p.row_dims, row)",
        "+ int(rows.offset(p.row_dims, row))",
        "tests/test_log_softmax.py -k further_apart",
        WRONG_PLACE,
    ),
    Mutant(
        "probabilities read where the logits' strides lead",
        SOFT,
        "load_strided(q + c * p.target_class_stride, p.target_class_stride, masses)",
        "load_strided(q + c * p.input_class_stride, p.input_class_stride, masses)",
        "tests/test_probability_targets.py -k test_layout",
        WRONG_PLACE,
    ),
    Mutant(
        "probabilities taken to be aligned where the logits are",
        SOFT,
        "  split.share(q, p.classes);\n",
        "",
        "tests/test_probability_targets.py -k test_layout",
        MISALIGNED,
        sanitizer="address",
    ),
    Mutant(
        "gradients to probabilities written where those to the logits are",
        SOFT,
        "store(row.grad_q + c * p.grad_target_class_stride",
        "store(row.grad_q + c * p.grad_input_class_stride",
        "tests/test_probability_targets.py -k test_layout",
        WRONG_PLACE,
    ),
    Mutant(
        "all of a target's mass in one sum",
        SOFTMAX,
        "weight_sum = add_where(!is_max, weight_sum, weight);\n"
        "      tie_weight = add_where(is_max, tie_weight, weight);",
        "weight_sum = weight_sum + weight;",
        "tests/test_probability_targets.py -k test_soft_confident_rows",
    ),
    Mutant(
        "long sums in one",
        SOFTMAX,
        "kClassesPerSum = 64",
        "kClassesPerSum = 1 << 20",
        "tests/test_numerics.py -k all_alike",
    ),
    Mutant(
        "blocks add to one sum without atomics",
        TOTALS,
        "if (threadIdx.x == 0) totals[slice] = sums;",
        """if (threadIdx.x == 0) {
          totals[slice] = slice % slices ? RowTotals() : sums;
          if (slice % slices) totals[slice / slices * slices].merge(sums);
        }""",
        MANY_ROWS,
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "the last block leaves out the last row",
        TOTALS,
        "begin + kRowsPerSlice < group_end ? begin + kRowsPerSlice : group_end",
        "begin + kRowsPerSlice < group_end ? begin + kRowsPerSlice : group_end - 1",
        MANY_ROWS,
    ),
    Mutant(
        "the last block goes a row too far",
        FORWARD,
        "if (row >= p.rows) return;",
        "if (row > p.rows) return;",
        BY_ROW,
        OUT_OF_BOUNDS,
        sanitizer="address",
    ),
    Mutant(
        "a block adds up no more slices than it has threads",
        GROUP_TOTALS,
        "for (int64_t i = threadIdx.x; i < slices; i += kThreadsToSum) sums.merge(totals[group * slices + i]);",
        "if (threadIdx.x < slices) sums.merge(totals[group * slices + threadIdx.x]);",
        "tests/test_numerics.py -k long_sums",
    ),
    Mutant(
        "offset of a row in 32 bits",
        LOSS_ROWS,
        "+ p.input_rows.offset(p.row_dims, row)",
        "+ int(p.input_rows.offset(p.row_dims, row))",
        FAR_APART,
        WRONG_PLACE,
    ),
    Mutant(
        "offset of a class in 32 bits",
        ROW_SUMS,
        "load(x + c * stride)",
        "load(x + int(c * stride))",
        FAR_APART,
        WRONG_PLACE,
    ),
    Mutant(
        "gradient of ignored rows left unwritten",
        BACKWARD,
        "  split.share(grad_x, p.classes);\n",
        "  split.share(grad_x, p.classes);\n  if (gradient.kind == TargetKind::kIgnored) return;\n",
        BY_CLASS,
    ),
    Mutant(
        "no barrier before the target's logit is overwritten",
        BACKWARD,
        "  __syncthreads();\n  write_row_by_class(p.backward",
        "  write_row_by_class(p.backward",
        "tests/test_options.py -k inplace-3x257",
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "the gradient of the forward pass starts before the divisor is known",
        "csrc/cuda/cross_entropy.cu",
        "if (forward.reduction == Reduction::kMean) reduce<S>(forward, workspace, nullptr, stream);",
        "",
        "tests/test_options.py -k inplace-3x257",
    ),
    Mutant(
        "negative targets taken for classes",
        ROWS,
        "target >= 0 && target < p.classes",
        "target < p.classes",
        "tests/test_edges.py -k out_of_bounds",
        WRONG_PLACE,
    ),
    Mutant(
        "elements of the last slice as if it were whole",
        BINARY,
        "end = group_end - begin > kElementsPerSlice ? begin + kElementsPerSlice : group_end;",
        "end = begin + kElementsPerSlice;",
        "tests/test_binary_values.py -k 33x100",
        OUT_OF_BOUNDS + "|AddressSanitizer: heap-use-after-free",
        sanitizer="address",
    ),
    Mutant(
        "every group starts where the first does",
        BINARY,
        "blockIdx.x / slices.per_group * slices.group_elements",
        "int64_t(0)",
        "tests/test_binary_edges.py -k vmap",
    ),
    Mutant(
        "every thread writes the totals of its slice",
        BINARY,
        "if (threadIdx.x == 0) totals[blockIdx.x] = total;",
        "totals[blockIdx.x] = total;",
        "tests/test_binary_values.py -k loss_and_gradients",
        RACE,
        sanitizer="thread",
    ),
    Mutant(
        "ignored elements counted",
        BINARY,
        "count += !e.is_ignored;",
        "++count;",
        "tests/test_binary_values.py -k ignored",
    ),
    Mutant(
        "packs where the target or the upstream gradient is aligned otherwise",
        ELEMENTS,
        "if (is_one_number(*operand) ||",
        "if (operand == &p_.target || is_one_number(*operand) ||",
        "tests/test_binary_layouts.py -k misaligned",
        MISALIGNED,
        sanitizer="address",
    ),
    Mutant(
        "packs where the gradient is aligned otherwise",
        ELEMENTS,
        "[&](auto* memory) { split.share(memory + first, count); }",
        "[](auto*) {}",
        "tests/test_binary_layouts.py -k misaligned",
        MISALIGNED,
        sanitizer="address",
    ),
    Mutant(
        "place of an element in 32 bits",
        ELEMENTS,
        "input += place * p.input.strides.strides[d];",
        "input += int(place * p.input.strides.strides[d]);",
        "tests/test_binary_layouts.py -k further_apart",
        WRONG_PLACE,
    ),
    Mutant(
        "a class numbered by all dimensions",
        ELEMENTS,
        "class_number += place * p.class_numbers.strides[d];",
        "class_number += place;",
        "tests/test_binary_values.py -k one_hot",
    ),
    Mutant(
        "a class out of bounds taken for a negative one",
        ELEMENTS,
        "c >= 0 && c <= p.classes ? A(c == at.class_number) : A(NAN)",
        "A(c == at.class_number)",
        "tests/test_binary_edges.py -k out_of_bounds",
    ),
    Mutant(
        "the gradient as a difference of the probability and the target",
        BINARY_LOSS,
        "neg_part(target) * p.pos - pos_part(target) * p.neg;",
        "p.pos - target.value;",
        "tests/test_binary_numerics.py -k confident",
    ),
    Mutant(
        "nothing times infinity",
        BINARY_LOSS,
        "f.slope * product(lack_slope, cross_entropy(target, prediction.misses()))",
        "f.slope * lack_slope * cross_entropy(target, prediction.misses())",
        "tests/test_binary_numerics.py -k infinite",
    ),
    Mutant(
        "a power divided by nothing",
        BINARY_LOSS,
        "maximum(q, least_lack_)",
        "q",
        "tests/test_binary_numerics.py -k any_logit",
    ),
    Mutant(
        "the loss of a logit without what both classes cost",
        BINARY_LOSS,
        "sides(miss, distance_ + miss)",
        "sides(miss, distance_)",
        "tests/test_binary_values.py -k loss_and_gradients",
    ),
)


def _run(mutant: Mutant) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in (cuda_emu.CSRC, cuda_emu.EMULATOR):
            shutil.copytree(cuda_emu.ROOT / part, root / part)
        file = root / mutant.file
        source = file.read_text()
        assert mutant.old in source, f"{mutant.file} no longer has the code that this mutant changes: {mutant.old}"
        file.write_text(source.replace(mutant.old, mutant.new))
        return run_suite(*mutant.tests.split(), root=root, schedule=mutant.schedule, sanitizer=mutant.sanitizer)


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[Mutant, Future[Run]]]:
    with concurrently(_run, MUTANTS) as started:
        yield started


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(mutant: Mutant, runs: dict[Mutant, Future[Run]]) -> None:
    run = runs[mutant].result()
    assert run.returncode != 0, f"survives: {run.stdout}"
    assert re.search(mutant.evidence, run.stdout), run.stdout
