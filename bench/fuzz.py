"""Many inputs to each parser of the reception: none may raise anything but BodyRefused, and each record is accounted for.

    python bench/fuzz.py [--inputs 1000000] [--route ROUTE ...] [--seed 1] [--workers 1]

An input is arbitrary bytes, a valid body with bytes changed, cut or doubled, or one with values replaced by ones of another
kind; half of those that are packed are damaged after packing. What is read is fingerprinted too. Inputs are split evenly over
the routes; input k of a route is made from the seed and k alone, so a failure is repeated with ``--route ROUTE --first k
--inputs 1``. A line is printed for every part that is done, with the CPU time of its slowest input: one that takes long would be
a way to keep the server busy.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from stillwatch.serving.reception import ROUTES
from test_reception import one_input

SHOWN, PART = 5, 2_000


@dataclass(frozen=True)
class Part:
    """Inputs of one route from ``first`` on; when done also CPU seconds, those of the slowest input, peak memory, failures."""

    route: str
    seed: int
    first: int
    count: int
    seconds: float = 0.0
    slowest_s: float = 0.0
    slowest: int = 0
    peak_mb: int = 0
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        worst = f"slowest {self.slowest_s * 1e3:,.0f} ms (input {self.slowest})"
        return (
            f"{self.route:12} {self.first:>9,} + {self.count:,}  {self.seconds:7.1f} s CPU  {worst}  "
            f"peak {self.peak_mb:,} MB  {len(self.failures)} failures"
        )


def run(part: Part) -> Part:
    """The part, done."""
    failures: list[str] = []
    began, slowest = time.process_time(), (0.0, 0)
    for k in range(part.first, part.first + part.count):
        before = time.process_time()
        try:
            one_input(part.route, random.Random(f"{part.seed}:{part.route}:{k}"))
        except Exception:  # what is counted here
            failures.append(f"{part.route} input {k} of seed {part.seed}\n{traceback.format_exc()}")
        slowest = max(slowest, (time.process_time() - before, k))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    took = time.process_time() - began
    return replace(
        part, seconds=took, slowest_s=slowest[0], slowest=slowest[1], peak_mb=peak, failures=tuple(failures[:SHOWN])
    )


def parts(given: argparse.Namespace) -> Iterator[Part]:
    """The inputs of each route, cut into parts, the routes in turn."""
    each = -(-given.inputs // len(given.route))
    for first in range(given.first, given.first + each, PART):
        for route in given.route:
            yield Part(route, given.seed, first, min(PART, given.first + each - first))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--route", nargs="+", choices=sorted(ROUTES), default=sorted(ROUTES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    failures: list[str] = []
    with ProcessPoolExecutor(given.workers) as pool:
        for done in pool.map(run, parts(given)):
            print(done, flush=True)
            failures += done.failures
    print("\n".join(failures[:SHOWN]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
