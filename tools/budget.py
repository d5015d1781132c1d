"""What CUDA kernels take of a multiprocessor: instructions for each element, and room for warps; and the record of it.

A hot loop is one that loads contiguous memory, and within which no other does: from global memory 128 bits at a time,
into registers (LDG.128) or shared memory (LDGSTS.128), or from there what was copied there (LDS). Bulk copies (UBLKCP)
have their size in a register, so that what reads their bytes counts. Kernels *_by_row, *_of_pixels and
*_in_runs load what is narrower, too.

Its elements are the bytes that it loads, in sizes of the first type among the template arguments; those of a second
operand count with them. Its instructions are those of the straight way around it, see control_flow.py: of a loop
without branches all, of others what nearly every turn takes. Where Nsight Compute counted 16.0 and 38.9 instructions
that an H100 issued for an element, this came to 15.6 and 39.4.

A kernel without such a loop, as one that takes a chunk of a row for each warp, has in place of it the straight way from
its first instruction to its end. That way, once around every loop, is held to the record, too: of short rows it is most
of the work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.control_flow import Instruction, Loop, Way
from tools.kernels import Kernel
from tools.occupancy import resident_warps

RECORD = Path(__file__).parent / "cuda_kernels.json"
SM = 90  # the architecture that it is of
TOLERANCE = 0.05
HOW_TO_RECORD = "make check-cuda ARGS=--record writes it; a commit that makes a kernel dearer says why"

WIDE = r"\..*\b(128|256)\b"
WIDE_LOAD, WIDE_STORE = rf"LDG{WIDE}", rf"STG{WIDE}"
COPIED = r"LDGSTS\..*\b128\b"
NONE = r"(?!)"
ANY_WIDTH = r"(LDG|STG)\b(?!.*\bSTRONG\b)"  # strong is what threads tell each other
# By how the names of kernels end: which accesses count.
ACCESSES = {
    "_by_class": rf"{WIDE_LOAD}|{WIDE_STORE}|{COPIED}|LDS\..*\b128\b",
    "_by_cluster": rf"{WIDE_STORE}|LDS\..*\b128\b",
    "_in_packs": rf"{WIDE_LOAD}|{WIDE_STORE}|{COPIED}|LDS\..*\b128\b",
    "_in_tiles": rf"{WIDE_LOAD}|{WIDE_STORE}|{COPIED}|LDS\b",
    "_in_runs": ANY_WIDTH,
    "_by_row": ANY_WIDTH,
    "_of_pixels": ANY_WIDTH,
}
LOADS = ("LDG", "LDS", "LDGSTS")
ELEMENT_BYTES = {"double": 8, "float": 4, "__half": 2, "__nv_bfloat16": 2}

# Warps that a multiprocessor has to hold, by how the names of kernels end: 23 KiB have to be under way, and a warp of
# most kernels has 1 KiB or more.
LEAST_WARPS = {
    "_by_class": 24,
    "_by_cluster": 17,
    "_in_packs": 24,
    "_in_tiles": 24,
    "_in_runs": 16,
    "_by_row": 16,
    "_of_pixels": 16,
}


@dataclass(frozen=True)
class Cost:
    warps: int  # that a multiprocessor holds
    way: int  # instructions of the straight way from the first to the end
    loops: list[float]  # instructions per element of the hot loops, the dearest first


def cost(kernel: Kernel) -> Cost:
    pattern = re.compile(_by_suffix(ACCESSES, kernel.name) or NONE)
    flow = kernel.flow

    def counts(instruction: Instruction) -> bool:
        return bool(pattern.match(instruction.opcode))

    def loads(loop: Loop) -> bool:
        return any(counts(i) for i in flow.code_of(loop.blocks) if i.operation in LOADS)

    way = flow.straight_way(counts)
    hot = [loop for outermost in flow.loops for loop in outermost.innermost(loads)]
    ways = [flow.straight_way(counts, loop) for loop in hot] or [way]
    per_element = (_per_element(kernel, found) for found in ways)
    return Cost(resident_warps(kernel), way.instructions, sorted({*filter(None, per_element)}, reverse=True))


def _per_element(kernel: Kernel, way: Way) -> float | None:
    """None where the kernel does not say of what type its elements are."""
    loaded = max(way.bytes(operation) for operation in LOADS)
    element = re.search(rf"\b({'|'.join(ELEMENT_BYTES)})\b", kernel.name.partition("<")[2])
    if not loaded or not element:
        return None
    return round(way.instructions * ELEMENT_BYTES[element[1]] / loaded, 2)


def _by_suffix(table: Mapping[str, Any], name: str) -> Any:
    return next((value for suffix, value in table.items() if name.partition("<")[0].endswith(suffix)), None)


@dataclass
class Record:
    nvcc: str  # on which the counts depend, besides the sources
    few_warps: dict[str, str]  # why kernels may hold fewer than LEAST_WARPS, by a part of their names; written by hand
    kernels: dict[str, Cost]

    @classmethod
    def read(cls) -> Record:
        text = json.loads(RECORD.read_text())
        return cls(**text | {"kernels": {name: Cost(**known) for name, known in text["kernels"].items()}})

    def write(self) -> None:
        """A line for each kernel."""
        kernels = (f"{json.dumps(name)}: {json.dumps(asdict(known))}" for name, known in sorted(self.kernels.items()))
        parts = {"nvcc": json.dumps(self.nvcc), "few_warps": json.dumps(self.few_warps, indent=2)}
        parts["kernels"] = "{\n" + ",\n".join(kernels) + "\n}"
        RECORD.write_text("{\n" + ",\n".join(f'"{name}": {text}' for name, text in parts.items()) + "\n}\n")

    def faults(self, costs: Mapping[str, Cost], are_all: bool) -> Iterator[str]:
        """What there is to refuse; in the record, too, if these are all kernels."""
        needed = set()
        for name, found in costs.items():
            least = _by_suffix(LEAST_WARPS, name) or 0
            if found.warps < least:
                reasons = {part for part in self.few_warps if part in name}
                needed |= reasons
                if not reasons:
                    yield f"{name}: holds {found.warps} warps, fewer than {least}, and few_warps has no reason"
            if name not in self.kernels:
                yield f"{name}: it is not in the record"
                continue
            known = self.kernels[name]
            if found.warps < known.warps:
                yield f"{name}: holds {found.warps} warps, recorded {known.warps}"
            if len(found.loops) != len(known.loops):
                yield f"{name}: has {len(found.loops)} hot loops, recorded {len(known.loops)}"
            change, text = max(_changes(found, known))
            if change > TOLERANCE:
                yield f"{name}: {text}"
        if are_all:
            yield from (
                f"{name}: it is in the record, but there is no such kernel" for name in self.kernels.keys() - costs
            )
            yield from (f"few_warps: no kernel needs the reason for {part}" for part in self.few_warps.keys() - needed)

    def gains(self, costs: Mapping[str, Cost]) -> Iterator[str]:
        """What to record, lest it get lost unnoticed."""
        for name in costs.keys() & self.kernels:
            found, known = costs[name], self.kernels[name]
            if found.warps > known.warps:
                yield f"{name}: holds {found.warps} warps, recorded {known.warps}"
            change, text = min(_changes(found, known))
            if change < -TOLERANCE:
                yield f"{name}: {text}"


def _changes(new: Cost, old: Cost) -> Iterator[tuple[float, str]]:
    loops = zip(new.loops, old.loops, strict=True) if len(new.loops) == len(old.loops) else ()
    pairs = [(*both, "instructions per element") for both in loops]
    for is_now, was, unit in (*pairs, (new.way, old.way, "instructions on the straight way")):
        change = is_now / was - 1
        yield change, f"{is_now} {unit}, recorded {was}, {change:+.1%}"
