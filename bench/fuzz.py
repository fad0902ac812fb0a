"""Many inputs to each parser of the reception: none may raise anything but BodyRefused, and each record is accounted for.

    python bench/fuzz.py [--inputs 1000000] [--route ROUTE ...] [--seed 1] [--workers 1]

An input is arbitrary bytes, a valid body with bytes changed, cut or doubled, or one with values replaced by ones of another
kind; half of those that are packed are damaged after packing. What is read is fingerprinted too. Inputs are split evenly over
the routes; input k of a route is made from the seed and k alone, so a failure is repeated with ``--first k --inputs 1``.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from stillwatch.serving.reception import ROUTES
from test_reception import one_input

SHOWN = 5


def run(route: str, seed: int, first: int, count: int) -> tuple[str, int, float, int, list[str]]:
    """(route, inputs, CPU seconds, peak memory in MB, failures) of one route's inputs from ``first`` on."""
    failures: list[str] = []
    began = time.process_time()
    for k in range(first, first + count):
        try:
            one_input(route, random.Random(f"{seed}:{route}:{k}"))
        except Exception:  # what is counted here
            failures.append(f"{route} input {k} of seed {seed}\n{traceback.format_exc()}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return route, count, time.process_time() - began, peak, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--route", nargs="+", choices=sorted(ROUTES), default=sorted(ROUTES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    each = -(-given.inputs // len(given.route))
    with ProcessPoolExecutor(given.workers) as pool:
        tasks = [pool.submit(run, route, given.seed, given.first, each) for route in given.route]
        done = [task.result() for task in tasks]
    for route, count, seconds, peak, failures in done:
        print(
            f"{route:12} {count:>9,} inputs  {seconds:8.1f} s CPU  peak {peak:,} MB  {len(failures)} failures",
            flush=True,
        )
    failures = [text for *_, some in done for text in some]
    print("\n".join(failures[:SHOWN]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
