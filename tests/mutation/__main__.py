"""Plants bugs, runs the tests that should find them, and prints the score: `python -m tests.mutation [PART ...]`."""

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track

from tests.mutation.score import LAYERS, Bug, Layer, judged, sample
from tests.support.forks import ROOT

README = ROOT / "README.md"
HEADER = "| Bugs of a line | planted | killed | equivalent | others |\n|---|---|---|---|---|"


def judge_all(layer: Layer, bugs: Sequence[Bug], jobs: int, console: Console) -> list[bool]:
    console.print(f"{layer.name}: {len(bugs)} bugs", highlight=False)
    verdicts = []
    for bug, is_killed in zip(bugs, track(judged(layer, bugs, jobs), "", len(bugs), console=console), strict=True):
        verdicts.append(is_killed)
        if is_killed == bug.equivalent:
            what = "killed, though it is said to be equivalent" if is_killed else "SURVIVES"
            console.print(f"{what}: {bug.file}: {bug.name}", highlight=False, markup=False)
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="bugs whose file or name contains one of these")
    parser.add_argument("--layer", action="append", choices=[layer.name for layer in LAYERS], help="default: all")
    parser.add_argument("--sample", type=int, metavar="N", help="of each layer N bugs, others in every commit")
    parser.add_argument("--record", action="store_true", help="write the score into README.md")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    console = Console()
    lines = {}
    survivors = 0
    for layer in LAYERS:
        if options.layer and layer.name not in options.layer:
            continue
        bugs = [b for b in layer.bugs() if not options.parts or any(p in f"{b.file} {b.name}" for p in options.parts)]
        if options.sample is not None:
            bugs = sample(bugs, options.sample)
        if not bugs:
            continue
        verdicts = judge_all(layer, bugs, options.jobs, console)
        alive = [bug for bug, is_killed in zip(bugs, verdicts, strict=True) if not is_killed]
        equivalent = sum(bug.equivalent for bug in alive)
        others = len(alive) - equivalent
        survivors += others
        lines[layer.name] = f"| {layer.name} | {len(bugs)} | {sum(verdicts)} | {equivalent} | {others} |"
    console.print(HEADER, *lines.values(), sep="\n", markup=False, highlight=False)
    if options.record:
        record(lines)
    return int(survivors > 0)


def record(lines: dict[str, str]) -> None:
    """Writes the lines of these layers into the table."""
    before, header, rest = README.read_text().partition(HEADER)
    table, _, after = rest.lstrip("\n").partition("\n\n")
    known = {line.split("|")[1].strip(): line for line in table.splitlines()}
    README.write_text("\n".join([f"{before}{header}", *(known | lines).values(), "", after]))


if __name__ == "__main__":
    sys.exit(main())
