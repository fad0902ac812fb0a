"""Exchanges per CPU second of the simulator: ``python bench/simulate.py [ROWS] [PROMPTS TRACES]``."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from stillwatch.simulate import World, default_world, simulate


def measure(world: World) -> None:
    """Prints one line: rows, CPU seconds, rows per CPU second, bytes on disk per row, peak memory so far."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        summary = simulate(world, Path(folder))
        spent = time.process_time() - began
        size = sum(p.stat().st_size for p in (Path(folder) / "exchanges").iterdir())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{summary.exchanges} exchanges, {spent:.2f} CPU s: {summary.exchanges / spent:,.0f} per CPU second, "
        f"{size / summary.exchanges:.0f} bytes each on disk, peak {peak_mb:.0f} MB"
    )


def main(arguments: list[str]) -> None:
    rows = int(arguments[0]) if arguments else 300_000
    folders = [Path(a) for a in arguments[1:3]]
    prompts, traces = (*folders, None, None)[:2]
    simulate(World(0, 300, 1500), Path(tempfile.mkdtemp()))  # compiles the text generator once
    measure(default_world(1, max(2000, rows // 40), rows, prompts=prompts, traces=traces))


if __name__ == "__main__":
    main(sys.argv[1:])
