"""A day that comes in live gives the campaigns that replaying its log gives: over HTTP, with the real judge beside the server.

    python bench/day.py --out runs/day [--accounts 3000] [--exchanges 40000] [--parts 6]

A simulated month is drawn together into a day, the order of things and who does them unchanged, and sent in as canonical NDJSON
in the order of time; after each part everything is judged. Then ``stillwatch replay`` walks the same log with the same key, and
campaigns, cases for review, their history and every account's row are compared. Exit code 1 where any differs, or where there was
no campaign to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beside import LINES, Line, Server, begun, canonical, dumped, prepared
from stillwatch.serving.access import Role
from stillwatch.serving.judging import Status
from stillwatch.simulate import default_world, parse_campaign, simulate

JUDGED_S = 3600.0
EVERY, SHARE = "1h", "0.02"
"""Length of a step, and what judging everything may take beside the schedule (by rows, not by the clock): the same for both."""
FOUND = 1
"""What a replay ends with where there are campaigns."""


def settings(world: Path) -> str:
    return (
        f'[judge]\nevery = "{EVERY}"\nshare = {SHARE}\nfinal_scan = "always"\n'
        'interval = "1d"\ngrace = "10m"\nretention = "365d"\n'
        f'accounts = "{world.absolute()}/accounts.parquet"\nmodels = "{world.absolute()}/models.csv"\n'
    )


def a_day(folder: Path, given: argparse.Namespace) -> pa.Table:
    """The log of a day, by time; it lies in ``log`` beside its accounts and models."""
    plans = tuple(parse_campaign(text) for text in given.campaign)
    simulate(default_world(given.seed, accounts=given.accounts, exchanges=given.exchanges, campaigns=plans), folder)
    month = pq.read_table(folder / "exchanges").sort_by("time")
    times = month["time"].cast(pa.int64()).to_numpy()
    days = max(1, round((times[-1] - times[0]) / 86_400e6))
    short = times[0] + (times - times[0]) // days
    log = month.set_column(month.schema.get_field_index("time"), "time", pa.array(short).cast(month["time"].type))
    (folder / "log").mkdir()
    pq.write_table(log, folder / "log" / "log.parquet")
    return log


async def sent(server: Server, rows: pa.Table, body: int) -> None:
    """Send rows in; RuntimeError unless each is kept."""
    line, headers = Line(server.port), server.bearer(Role.INGEST) + LINES
    for first in range(0, rows.num_rows, body):
        lines = [dumped(row) for row in canonical(rows.slice(first, body))]
        status, told = await line.ask("POST", "/ingest/exchanges", headers, b"\n".join(lines))
        if status != 200 or json.loads(told)["kept"] != len(lines):
            raise RuntimeError(f"answered {status}: {told[:1000]!r}")
    await line.close()


async def judge(server: Server, rows: int) -> None:
    """Have all that was sent judged. RuntimeError where that fails or takes for ever."""
    line, headers = Line(server.port), server.bearer(Role.ADMIN)
    status, told = await line.ask("POST", "/api/judge-now", headers)
    await line.close()
    end, seen = time.monotonic() + JUDGED_S, Status.read(server.home)
    while not (seen.rows == rows and seen.status == "waiting"):
        if status >= 300 or seen.status == "failed" or time.monotonic() > end:
            raise RuntimeError(f"not judged: {status} {told!r}, {seen}")
        await asyncio.sleep(0.2)
        seen = Status.read(server.home)


def live(out: Path, log: pa.Table, given: argparse.Namespace) -> Path:
    """The results of a day that came in by HTTP."""
    home, tokens = prepared(out / "home", 0, settings(out / "world"))
    server = begun(home, tokens, out / "server.log")
    try:
        server.wait_until_it_listens()
        for part in np.array_split(np.arange(log.num_rows), given.parts):
            asyncio.run(sent(server, log.slice(int(part[0]), len(part)), given.rows))
            asyncio.run(judge(server, int(part[-1]) + 1))
            print(f"{Status.read(home)}", file=sys.stderr)
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=120)
    return home.results


def replayed(out: Path) -> Path:
    """The results of ``stillwatch replay`` on the same log, under the home's key."""
    world, result = out / "world", out / "replayed"
    command = [
        sys.executable, "-m", "stillwatch", "replay", str(world / "log"), "--accounts", str(world / "accounts.parquet"),
        "--models", str(world / "models.csv"), "--every", EVERY, "--share", SHARE, "--key", str(out / "home/keys/privacy.key"),
        "--out", str(result), "--quiet",
    ]  # fmt: skip
    ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if ended.returncode not in (0, FOUND):
        raise RuntimeError(f"the replay ended with {ended.returncode}")
    return result


def found(folder: Path) -> dict[str, Any]:
    """What a result says of campaigns and accounts."""
    told = {n: json.loads((folder / f"{n}.json").read_text()) for n in ("campaigns", "review", "history")}
    return told | {"accounts": pq.read_table(folder / "accounts.parquet").to_pylist()}


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The first item in which each part differs, live beside replayed."""
    unlike = {}
    for name, ours in one.items():
        theirs = other[name]
        pairs = [(a, b) for a, b in zip(ours, theirs) if a != b]
        if pairs or len(ours) != len(theirs):
            unlike[name] = {"of": [len(ours), len(theirs)], "unlike": len(pairs), "first": pairs[:1]}
    return unlike


def run(given: argparse.Namespace) -> dict[str, Any]:
    out: Path = given.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    log = a_day(out / "world", given)
    began = time.monotonic()
    ours = found(live(out, log, given))
    between = time.monotonic()
    theirs = found(replayed(out))
    return {
        "exchanges": log.num_rows, "campaigns": len(theirs["campaigns"]), "review": len(theirs["review"]),
        "members": sum(bool(r["campaign_id"]) for r in theirs["accounts"]), "accounts": len(theirs["accounts"]),
        "live_s": round(between - began, 1), "replay_s": round(time.monotonic() - between, 1),
        "load": os.getloadavg()[0], "differences": differences(ours, theirs),
    }  # fmt: skip


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for all of it; an older one there is replaced")
    parser.add_argument("--accounts", type=int, default=3_000)
    parser.add_argument("--exchanges", type=int, default=40_000)
    parser.add_argument("--campaign", nargs="*", default=["balanced_reasoning:150", "tagged_traces:60"])
    parser.add_argument("--parts", type=int, default=6, help="judged after each")
    parser.add_argument("--rows", type=int, default=500, help="exchanges in a body")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def main() -> int:
    given = options().parse_args()
    told = run(given)
    (given.out / "end.json").write_text(json.dumps(told, indent=2, default=str) + "\n")
    print("\n".join(f"{name:<12} {value}" for name, value in told.items()))
    return 1 if told["differences"] or not told["campaigns"] else 0


if __name__ == "__main__":
    sys.exit(main())
