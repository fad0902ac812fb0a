"""What a scan costs: exchanges per processor second, how that scales, and peak memory.

    python bench/scan.py                        # 0.3, 1 and 3 million exchanges
    python bench/scan.py --millions 0.1 --json

Each log is simulated in a process of its own, then scanned by `stillwatch scan` in another, whose processor time (user
and system, all threads) and peak resident memory the kernel reports when it ends. Start-up and reports are included;
compiling kernels, which is done once for an installation, is not (--cold).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from math import log
from multiprocessing import get_context
from pathlib import Path
from typing import Any

MILLIONS = (0.3, 1.0, 3.0)
EXCHANGES_PER_ACCOUNT = 40
FOUND_OR_NOT = (0, 1, 4)
"""Exit codes of a scan that judged: no campaign, campaigns, judged but a file was left out."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one scan took. ``peak_bytes`` is the largest resident memory of the scanning process."""

    exchanges: int
    cpu_s: float
    wall_s: float
    peak_bytes: int
    campaigns: int
    stages: dict[str, Any]

    @property
    def per_cpu_second(self) -> float:
        return self.exchanges / self.cpu_s


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do it in a fresh process, so that this one stays small: a child inherits its parent's peak memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def simulate(out: Path, settings: dict[str, Any]) -> int:
    """Write a simulated log and say how many exchanges it holds."""
    from stillwatch.simulate import default_world  # noqa: PLC0415
    from stillwatch.simulate import simulate as write  # noqa: PLC0415

    return int(write(default_world(**settings), out).exchanges)


def run_scan(log: Path, accounts: Path | None, models: Path | None, out: Path, more: Sequence[str] = ()) -> Scanned:
    """Scan in a child process and measure it; SystemExit with its own words if it fails."""
    command = [sys.executable, "-m", "stillwatch.cli", "scan", str(log), "--out", str(out), "--quiet", *more]
    command += ["--accounts", str(accounts)] if accounts else []
    command += ["--models", str(models)] if models else []
    started = time.monotonic()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in FOUND_OR_NOT:
            said.seek(0)
            sys.exit(f"scan of {log} failed with {child.returncode}:\n{said.read().decode(errors='replace')[-4000:]}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    campaigns = json.loads((out / "campaigns.json").read_text(encoding="utf-8"))
    read, cpu_s, wall_s = run["rows"]["exchanges_read"], usage.ru_utime + usage.ru_stime, time.monotonic() - started
    return Scanned(read, cpu_s, wall_s, peak, len(campaigns), run.get("timings", {}))


def files_of(world: Path) -> tuple[Path, Path, Path]:
    """Exchanges, accounts and models of a simulated log."""
    return world / "exchanges", world / "accounts.parquet", world / "models.csv"


def exponent(scans: Sequence[Scanned]) -> float | None:
    """Slope of log processor time over log exchanges, by least squares: 1 is linear. None from a single size."""
    xs, ys = [log(s.exchanges) for s in scans], [log(s.cpu_s) for s in scans]
    middle = sum(xs) / len(xs)
    spread = sum((x - middle) ** 2 for x in xs)
    return sum((x - middle) * y for x, y in zip(xs, ys, strict=True)) / spread if spread else None


def measure(options: argparse.Namespace, folder: Path) -> list[Scanned]:
    """Simulate and scan each size in turn, after a small one that pays for compiling kernels once and for all."""
    scans = []
    if not options.cold:
        apart(simulate, folder / "warm-up", {"seed": 0, "accounts": 2000, "exchanges": 20_000})
        run_scan(*files_of(folder / "warm-up"), folder / "warm-up-result", options.scan)
    for millions in options.millions:
        exchanges = round(millions * 1e6)
        accounts = max(2000, exchanges // options.per_account)
        world = folder / f"world-{millions:g}"
        settings = {"seed": options.seed, "accounts": accounts, "exchanges": exchanges}
        if not (world / "world.json").exists():
            apart(simulate, world, settings | {n: getattr(options, n) for n in ("prompts", "traces")})
        scans.append(run_scan(*files_of(world), folder / f"result-{millions:g}", options.scan))
    return scans


def show(scans: Sequence[Scanned]) -> None:
    """The table, for people."""
    print(f"{'exchanges':>11} {'CPU s':>8} {'wall s':>8} {'per CPU s':>10} {'peak MB':>8} {'campaigns':>9}")
    for s in scans:
        print(
            f"{s.exchanges:>11,} {s.cpu_s:>8.1f} {s.wall_s:>8.1f} {s.per_cpu_second:>10,.0f} "
            f"{s.peak_bytes / 1e6:>8,.0f} {s.campaigns:>9}"
        )
    if (slope := exponent(scans)) is not None:
        print(f"processor time grows as exchanges to the power {slope:.2f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=list(MILLIONS), help="sizes, million exchanges")
    parser.add_argument("--per-account", type=int, default=EXCHANGES_PER_ACCOUNT, help="exchanges an account")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prompts", type=Path, help="folder of real prompts for the simulator")
    parser.add_argument("--traces", type=Path, help="folder of real timings for the simulator")
    parser.add_argument("--scan", nargs="*", default=[], help="more arguments for `stillwatch scan`, given last")
    parser.add_argument("--cold", action="store_true", help="no scan beforehand that compiles the kernels")
    parser.add_argument("--keep", type=Path, help="folder for logs and results; logs already there are used again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        scans = measure(options, options.keep or Path(passing))
    if options.json:
        rows = [asdict(s) | {"per_cpu_second": s.per_cpu_second} for s in scans]
        print(json.dumps({"scans": rows, "exponent": exponent(scans)}, indent=2))
    else:
        show(scans)


if __name__ == "__main__":
    main()
