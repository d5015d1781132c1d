"""Plants every bug, runs what should find it, and prints the score: `python -m tests.mutation [PART ...]`."""

import argparse
import os
import queue
import sys
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import track

from tests.mutation.build import build
from tests.mutation.planted import Planted
from tests.mutation.score import MUTANTS, Judge, Verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="those whose file or name contains one of these")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.parts or any(part in f"{m.file} {m.name}" for part in options.parts)]
    console = Console()
    console.print(f"building with {len(MUTANTS)} planted bugs")
    folder = build(MUTANTS)
    judges: queue.SimpleQueue[Judge] = queue.SimpleQueue()
    for _ in range(options.jobs):
        judges.put(Judge(folder))

    def verdict_of(mutant: Planted) -> Verdict:
        judge = judges.get()
        try:
            return judge.judge(mutant)
        finally:
            judges.put(judge)

    verdicts = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for verdict in track(pool.map(verdict_of, chosen), total=len(chosen), console=console):
            verdicts.append(verdict)
            if verdict.is_killed == verdict.mutant.survives:  # not as expected
                what = "no survivor any more" if verdict.is_killed else "SURVIVES"
                console.print(f"{what}: {verdict.mutant.file}: {verdict.mutant.name}", highlight=False, markup=False)
    survivors = [verdict for verdict in verdicts if not verdict.is_killed]
    known_survivors = sum(verdict.mutant.survives for verdict in survivors)
    console.print(
        f"{len(verdicts)} planted, {len(verdicts) - len(survivors)} killed, {known_survivors} known to survive, "
        f"{len(survivors) - known_survivors} others"
    )
    return int(len(survivors) > known_survivors)


if __name__ == "__main__":
    sys.exit(main())
