"""Time ce_ext against its peers: print tables, and write JSON and a plot on request."""

import argparse
import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.cases import select
from benchmarks.ceilings import measure_ceilings
from benchmarks.environment import describe
from benchmarks.measure import Row, measure
from benchmarks.oracle import TOLERANCE
from benchmarks.plot import plot
from benchmarks.providers import PROVIDERS
from benchmarks.results import Results
from benchmarks.tables import show

QUICK_PROVIDERS = ("ce_ext", "eager")  # compiling takes longer than all the rest
QUICK_BUDGET = 1.0
WIDTH_OF_A_FILE = 140  # where there is no terminal to ask, do not wrap the tables


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=device)
    dtypes = [str(dtype).removeprefix("torch.") for dtype in TOLERANCE]
    parser.add_argument("--dtypes", nargs="+", choices=dtypes, default=["float32", "bfloat16"])
    for option, example in (("--losses", "cross_entropy"), ("--shapes", "64x1000")):
        help = f"those that contain one of the parts; a full name is {example}"
        parser.add_argument(option, nargs="+", metavar="PART", default=(), help=help)
    help = "the first is compared with the others"
    parser.add_argument("--providers", nargs="+", choices=PROVIDERS, help=help)
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--budget", type=float, default=10, help="seconds of timing a case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the GB/s: png, svg, pdf")
    parser.add_argument("--quick", action="store_true", help="few small shapes, no torch.compile")
    return parser.parse_args()


def main() -> int:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    providers = options.providers or (QUICK_PROVIDERS if options.quick else tuple(PROVIDERS))
    budget = min(options.budget, QUICK_BUDGET) if options.quick else options.budget
    cases = list(select(options.losses, options.shapes, options.dtypes, options.quick))
    if not cases:
        sys.exit("no case matches these --losses, --shapes and --dtypes")
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE

    environment = describe(options.device)
    rows: list[Row] = []
    failures: list[str] = []
    # Refreshed by hand: a thread that redraws would disturb the timing.
    with Progress(console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("ceilings", total=len(cases))
        before = measure_ceilings(options.device)
        for case in cases:
            progress.update(task, description=str(case), refresh=True)
            timed, failed = measure(case, providers, options.device, budget)
            rows += timed
            failures += failed
            progress.advance(task)
        after = measure_ceilings(options.device)

    results = Results(environment, providers, before, after, rows, failures)
    show(results, console)
    if options.json:
        options.json.write_text(json.dumps(results.as_json(), indent=2) + "\n")
    if options.plot:
        plot(results, options.plot)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
