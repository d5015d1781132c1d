"""Programs of threads and processes, for tests to run in a process of their own: ``python -m`` this, and a name.

Each prints the steps whose results have not the bits that they have in the first thread of a process, one at a time.
"""

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils.data import DataLoader

from tests.support.steps import LARGE, PLANES, SMALL, bits, kernel_steps

TIME_LIMIT = 60  # in seconds, of whatever is waited for

Bits = dict[str, str]


def different(some: Iterable[Bits], expected: Bits) -> list[str]:
    return [name for results in some for name in results if results[name] != expected[name]]


def first_calls_in_threads() -> list[str]:
    """Of ops that nobody has called before, all at once; one of the threads computes without help."""
    steps = kernel_steps(SMALL, LARGE, PLANES)
    names = list(steps)
    barrier = threading.Barrier(4)

    def run(place: int) -> Bits:
        if place == 0:
            torch.set_num_threads(1)
        first = place * len(names) // barrier.parties
        barrier.wait(TIME_LIMIT)
        return bits({name: steps[name] for name in (*names[first:], *names[:first])})

    with ThreadPoolExecutor(barrier.parties) as pool:
        results = list(pool.map(run, range(barrier.parties), timeout=TIME_LIMIT))
    return different(results, bits(steps))


def fork() -> list[str]:
    """Threads do not survive it. A child does without, by itself where there is little to do, as with torch's ops."""
    alone, shared = kernel_steps(SMALL), kernel_steps(LARGE, PLANES)
    expected = bits(alone | shared)  # by now there are threads

    def child() -> list[Bits]:
        with_few_elements = bits(alone)
        torch.set_num_threads(1)
        return [with_few_elements, bits(alone | shared)]

    return different([*_in_fork(child), bits(shared)], expected)


def _in_fork(function: Callable[[], list[Bits]]) -> list[Bits]:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        signal.alarm(TIME_LIMIT)
        sender.send(function())
        os._exit(0)
    results = receiver.recv() if receiver.poll(TIME_LIMIT) else []
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, f"the child has ended with {code}"
    return results


def _bits_without_threads(_: int) -> Bits:
    torch.set_num_threads(1)
    return bits(kernel_steps(SMALL, LARGE))


def pools_of_processes() -> list[str]:
    expected = bits(kernel_steps(SMALL, LARGE))
    wrong = []
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            wrong += different(pool.map_async(_bits_without_threads, range(2)).get(TIME_LIMIT), expected)
    return wrong


class _Losses(torch.utils.data.Dataset[Bits]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Bits:
        return bits(kernel_steps(SMALL, LARGE))


def workers_of_a_data_loader() -> list[str]:
    """Which torch gives one thread each."""
    expected = bits(kernel_steps(SMALL, LARGE))
    loaders = (
        DataLoader(_Losses(), None, num_workers=2, timeout=TIME_LIMIT, multiprocessing_context=method)
        for method in ("fork", "spawn")
    )
    return different(itertools.chain.from_iterable(loaders), expected)


PROGRAMS = {
    program.__name__: program
    for program in (first_calls_in_threads, fork, pools_of_processes, workers_of_a_data_loader)
}

if __name__ == "__main__":
    print("\n".join(PROGRAMS[sys.argv[1]]()))
