"""Time ce_ext against its peers: print tables, what misses the goals, and write JSON and a plot on request."""

import argparse
import gc
import sys
from pathlib import Path

import torch
from rich.progress import Progress

from benchmarks import compare, goals, record
from benchmarks.cases import GPU_CASES, select
from benchmarks.ceilings import measure_ceilings
from benchmarks.console import make_console
from benchmarks.environment import describe
from benchmarks.measure import measure
from benchmarks.oracle import TOLERANCE
from benchmarks.passes import BACKWARD, BOTH, FORWARD, PASSES
from benchmarks.plot import plot
from benchmarks.providers import PEERS, PROVIDERS, competitors
from benchmarks.results import Results
from benchmarks.tables import show

# On the CPU, what warm passes leave behind would serve other passes, too, whose memory is meant to be fresh.
ROUNDS = {"cpu": ((FORWARD, BOTH), (BACKWARD,)), "cuda": (PASSES,)}
QUICK_PROVIDERS = ("ce_ext", "eager")  # compiling takes longer than all the rest
QUICK_BUDGET = 0.3


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=device)
    dtypes = [str(dtype).removeprefix("torch.") for dtype in TOLERANCE]
    parser.add_argument("--dtypes", nargs="+", choices=dtypes, default=())
    for option, example in (("--losses", "cross_entropy"), ("--shapes", "8192x1000, transposed")):
        help = f"those that contain one of the parts; a full name is {example}"
        parser.add_argument(option, nargs="+", metavar="PART", default=(), help=help)
    parser.add_argument("--reductions", nargs="+", choices=("mean", "none"), default=())
    help = "of the cases of a GPU those that say most, or the others"
    parser.add_argument("--parts", nargs="+", choices=GPU_CASES, default=tuple(GPU_CASES), help=help)
    help = "the first is compared with the others; default: torch and, on CUDA, the peers that are installed"
    parser.add_argument("--providers", nargs="+", choices=PROVIDERS, help=help)
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--budget", type=float, default=10, help="seconds of timing a case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a record of all that was measured")
    parser.add_argument("--compare", type=record.read, metavar="FILE", help="an older --json: show what changed")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the GB/s: png, svg, pdf")
    parser.add_argument("--quick", action="store_true", help="few small shapes, no torch.compile")
    return parser.parse_args()


def main() -> int:
    options = parse()
    device = options.device
    if options.threads:
        torch.set_num_threads(options.threads)
    providers = options.providers or (QUICK_PROVIDERS if options.quick else competitors(device))
    budget = min(options.budget, QUICK_BUDGET) if options.quick else options.budget
    asked_for = (options.losses, options.shapes, options.dtypes, options.reductions)
    cases = list(select(*asked_for, device=device, quick=options.quick, parts=options.parts))
    if not cases:
        sys.exit("no case matches these --losses, --shapes, --dtypes and --reductions")
    console = make_console()

    results = Results(describe(device), providers)

    def save() -> None:
        if options.json:
            record.write(results.as_record(), options.json)

    # Refreshed by hand: a thread that redraws would disturb the timing.
    with Progress(console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("ceilings", total=len(cases) * len(ROUNDS[device]))
        results.ceilings["before"] = measure_ceilings(device)
        torch.compiler.reset()  # imports what it needs
        gc.freeze()  # all that was imported: to look for garbage in it would take longer than many a case
        for case, passes in [(case, passes) for passes in ROUNDS[device] for case in cases]:
            progress.update(task, description=str(case), refresh=True)
            if not console.is_terminal:
                console.print(str(case), highlight=False)  # of a log one wants to know how far it got
            rows, failures = measure(case, providers, device, budget, passes)
            results.rows += rows
            results.failures += failures
            save()  # already now: a later case may end the process
            progress.advance(task)
        results.rows.sort(key=lambda row: cases.index(row.case))
        results.ceilings["after"] = measure_ceilings(device)

    save()
    measured = results.as_record()
    show(measured, console)
    goals.show(goals.misses(measured), console)
    if options.compare:
        compare.show(compare.compare(options.compare, measured), console)
    if options.plot:
        plot(measured, options.plot)
    return int(any(failure.provider not in PEERS for failure in results.failures))


if __name__ == "__main__":
    sys.exit(main())
