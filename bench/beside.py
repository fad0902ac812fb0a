"""A real ``stillwatch serve`` in a process of its own, for the benches that drive one: its home, tokens, questions and figures.

Reads /proc, so Linux only.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from stillwatch.actions import act_of_person
from stillwatch.serving.access import Access, Role
from stillwatch.serving.home import Home
from stillwatch.serving.services import Desk, opened
from stillwatch.serving.settings import load
from stillwatch.types import Rung

SETTINGS: Mapping[Rung, Mapping[str, Any]] = {
    Rung.THROTTLE: {"requests_per_minute": 6000}, Rung.RESTRICT: {"models": ["small-*"]},
}  # fmt: skip
AT_ONCE = 1000
START_S = 120.0
TICKS = os.sysconf("SC_CLK_TCK")


# A home


def held_account(number: int) -> str:
    """The name of an account something is in force for."""
    return f"held-{number}"


def prepared(folder: Path, held: int, toml: str) -> tuple[Home, dict[Role, str]]:
    """A home with settings, with actions in force for ``held`` accounts, the rungs in turn, and a token for each role."""
    home = Home(folder).made()
    home.settings.write_text(toml, encoding="utf-8")
    before = os.umask(0o077)
    try:
        with opened(home, load(home.settings), judge=False) as services:
            for first in range(0, held, AT_ONCE):
                services.clerk.do_now(hold, range(first, min(held, first + AT_ONCE)))
            tokens = {r: services.door.do_now(Access.issue, f"bench-{r}", r, "bench").secret.reveal() for r in Role}
    finally:
        os.umask(before)
    return home, tokens


def hold(desk: Desk, numbers: Iterable[int]) -> None:
    """Put something in force for these accounts, as people do: one proposes, two others sign."""
    now, rungs = datetime.now(UTC), list(Rung)
    wanted = [
        act_of_person(
            held_account(i), rungs[i % len(rungs)], "a bench", now, timedelta(days=30),
            settings=SETTINGS.get(rungs[i % len(rungs)]),
        )
        for i in numbers
    ]  # fmt: skip
    new = desk.actions.propose(wanted, "ann", "analyst")
    for who in ("bob", "cleo"):
        waiting = [a.action_id for a in new if desk.actions.get(a.action_id).standing == "pending"]
        if waiting:
            desk.actions.sign(waiting, who)
    desk.actions.start_due(datetime.now(UTC))


# A process


@dataclass
class Server:
    """A server process. ``port`` is 0 until it listens; what it logs goes to ``log`` as it comes."""

    home: Home
    tokens: Mapping[Role, str]
    log: Path
    process: subprocess.Popen[str]
    port: int = 0
    listens: threading.Event = field(default_factory=threading.Event)

    def bearer(self, role: Role) -> str:
        return f"authorization: Bearer {self.tokens[role]}\r\n"

    def follow(self) -> None:
        """Copy what it says to the log, until it ends; a pipe, so that a full disk of the server is none of the log's."""
        assert self.process.stderr is not None
        with self.process.stderr as said, self.log.open("a", encoding="utf-8") as out:
            for line in said:
                out.write(line)
                out.flush()
                if '"what": "listening"' in line:
                    self.port = json.loads(line)["port"]
                if "Application startup complete" in line:
                    self.listens.set()
        self.listens.set()

    def wait_until_it_listens(self) -> None:
        """RuntimeError where it ended instead, or said nothing for ``START_S``."""
        heard = self.listens.wait(START_S)
        if not heard or self.process.poll() is not None:
            ended = f"ended with {self.process.poll()}" if heard else f"is silent after {START_S:.0f} s"
            last = self.log.read_text(encoding="utf-8").splitlines()[-3:] if self.log.exists() else []
            raise RuntimeError("\n".join([f"the server did not start: it {ended}; {self.log} ends:", *last]))

    def kill(self, *, judge: bool) -> None:
        """End it as a loss of power would; ``judge`` too, which else ends by itself when it sees that it is alone."""
        pids = [self.process.pid, *(started_by(self.process.pid) if judge else ())]
        for pid in pids:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        self.process.wait()

    def get(self, path: str, role: Role) -> str:
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        asked.add_header("Authorization", f"Bearer {self.tokens[role]}")
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return str(answer.read().decode())

    def figures(self) -> dict[str, float]:
        """What /metrics says, by name with labels."""
        lines = self.get("/metrics", Role.METRICS).splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}


def begun(home: Home, tokens: Mapping[Role, str], log: Path, clock: Mapping[str, str] | None = None) -> Server:
    """Start a server on a free port of loopback, by a ``clock`` of ours where one is given; it may not listen yet."""
    command = [sys.executable, "-m", "stillwatch", "serve", str(home.folder), "--host", "127.0.0.1", "--port", "0"]
    env = os.environ | dict(clock or {})
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
    server = Server(home, tokens, log, process)
    threading.Thread(target=server.follow, daemon=True).start()
    return server


def started_by(pid: int) -> list[int]:
    """Processes that any thread of a process has started."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return []
    found: list[int] = []
    for task in tasks:
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def cpu_s(pid: int) -> float:
    """Processor seconds of a process so far, 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_bytes(pid: int) -> int:
    """Memory of a process that is in RAM, 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


# A clock


def clock_library() -> Path | None:
    """Debian's libfaketime, None where it is not installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def clock_of(file: Path) -> dict[str, str]:
    """The environment of a process whose clock goes as ``set_clock`` last said in this file, and that of those it starts. What
    measures how long something takes goes on as it is. FileNotFoundError where the library is missing."""
    library = clock_library()
    if library is None:
        raise FileNotFoundError("libfaketime is not installed: apt install faketime, or give --no-clock")
    return {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1",
    }  # fmt: skip


def set_clock(file: Path, ahead_s: int) -> None:
    """Have the clock of such processes be so far ahead of the real one, within a second."""
    new = file.with_suffix(".new")
    new.write_text(f"{ahead_s:+d}\n", encoding="ascii")
    new.replace(file)


# Questions


class Line:
    """A connection that is kept. Errors of the network are OSError or ``asyncio.IncompleteReadError``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, headers: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer."""
        # One that the server has closed meanwhile, as it does with idle ones, is not asked on.
        if self._open is None or self._open[0].at_eof():
            await self.close()
            self._open = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._open
        head = f"{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        told = await reader.readuntil(b"\r\n\r\n")
        status, length = int(told.split(b" ", 2)[1]), 0
        for line in told.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        answer = await reader.readexactly(length)
        if b"\r\nconnection: close\r\n" in told.lower():
            await self.close()
        return status, answer

    async def close(self) -> None:
        if self._open is not None:
            (_, writer), self._open = self._open, None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def __aenter__(self) -> Line:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


LINES = "content-type: application/x-ndjson\r\n"


def canonical(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Exchanges as they stand in canonical NDJSON: what is null is left out."""
    for row in rows.to_pylist():
        yield {n: v.isoformat() if isinstance(v, datetime) else v for n, v in row.items() if v is not None}


def dumped(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode()


# Figures


def spread_ms(times_s: Sequence[float]) -> dict[str, float | None]:
    """Median, 99th percentile and longest, in milliseconds; None where there are none."""
    ordered = sorted(times_s)
    places = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    if not ordered:
        return dict.fromkeys(places)
    return {n: round(ordered[min(len(ordered) - 1, int(len(ordered) * p))] * 1e3, 2) for n, p in places.items()}


def quantile_ms(before: Mapping[str, float], after: Mapping[str, float], series: str, place: float) -> float | None:
    """A quantile of what a histogram counted between two looks, in milliseconds, drawn straight within its bucket.

    ``series`` is its name and labels but ``le``, such as ``name{route="/x"``. None where nothing was counted.
    """
    name, _, labels = series.partition("{")
    begin = f'{name}_bucket{{{labels},le="'
    bounds = [(float(k[len(begin) : -2].replace("+Inf", "inf")), v - before.get(k, 0.0))
              for k, v in after.items() if k.startswith(begin)]  # fmt: skip
    bounds.sort()
    if not bounds or bounds[-1][1] <= 0:
        return None
    wanted, low, under = place * bounds[-1][1], 0.0, 0.0
    for bound, count in bounds:
        if count >= wanted:
            high = low if bound == float("inf") else bound
            share = (wanted - under) / (count - under) if count > under else 1.0
            return round((low + (high - low) * share) * 1e3, 2)
        low, under = bound, count
    return None
