"""A server beside a busy gateway, on this machine: traffic in at a rate, questions at a rate, judging, all at once.

    python bench/live.py --seconds 600 --rate 5000 --ask 2000 --out runs/live

Exchanges are the simulator's, sent as canonical NDJSON in bodies of ``--rows`` over ``--connections`` that are kept; when all
of the log has been sent it begins again under new ids, so that later rounds repeat the prompts of the first. Time in the log
passes ``--speed`` times as fast as the clock's, and ends with the bench: at 60 a step of an hour is judged each minute.
Half of the questions are Envoy's (``/ext_authz``), half ``/v1/in-force``; half are of accounts something is in force for.

Bodies and questions are due at even distances whether or not earlier ones were answered, and what the client counts begins
when one was due; what the server counts begins with a request's first byte, from its own histogram. Client and server share
the machine. ``samples.jsonl`` has a line each ``--every`` seconds, ``end.json`` the figures of the table at the end.
Exit code 1 where an exchange was acknowledged and is not in the spool.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from beside import (
    LINES,
    Line,
    Server,
    begun,
    canonical,
    cpu_s,
    dumped,
    held_account,
    prepared,
    quantile_ms,
    rss_bytes,
    spread_ms,
    started_by,
)
from stillwatch.serving.access import Role
from stillwatch.serving.judging import Status
from stillwatch.simulate import default_world, simulate

ROUND, SECOND = b"@ROUND@", b"@SECOND@"
DRAIN_S = 30.0
QUESTIONS = {"ext_authz": "/ext_authz/{path:path}", "in_force": "/v1/in-force"}
INGEST = "/ingest/exchanges"


@dataclass(frozen=True)
class Plan:
    """What one of the two clients does: ``rate`` bodies or questions a second over ``connections``, for ``seconds``."""

    port: int
    bearer: str
    rate: float
    seconds: float
    connections: int
    bodies: tuple[bytes, ...] = ()
    begins: datetime = datetime.min
    speed: float = 1.0
    held: int = 0


@dataclass
class Done:
    """What became of them. ``statuses`` by status, 0 for a broken connection; ``took_s`` from when each was due, by kind."""

    statuses: Counter[str] = field(default_factory=Counter)
    took_s: dict[str, list[float]] = field(default_factory=dict)
    kept: int = 0
    unsent: int = 0
    cpu_s: float = 0.0

    def note(self, kind: str, status: int, took_s: float) -> None:
        self.statuses[str(status)] += 1
        self.took_s.setdefault(kind, []).append(took_s)


Deed = Callable[[Line, int, Done], Awaitable[tuple[str, int]]]


async def at_a_rate(plan: Plan, deed: Deed) -> Done:
    """Do the deed number 0, 1, ... each when it is due; what is not begun ``DRAIN_S`` after the end is unsent."""
    due, done = asyncio.Queue[tuple[int, float]](), Done()

    async def one_connection() -> None:
        line = Line(plan.port)
        while (next_ := await due.get())[0] >= 0:
            number, at = next_
            try:
                kind, status = await deed(line, number, done)
            except (OSError, asyncio.IncompleteReadError):
                await line.close()
                kind, status = "broken", 0
            done.note(kind, status, time.perf_counter() - at)
        await line.close()

    work = [asyncio.create_task(one_connection()) for _ in range(plan.connections)]
    began = time.perf_counter()
    for i in range(round(plan.rate * plan.seconds)):
        at = began + i / plan.rate
        if (wait_s := at - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        due.put_nowait((i, at))
    end = time.perf_counter() + DRAIN_S
    while not due.empty() and time.perf_counter() < end:
        await asyncio.sleep(0.02)
    while not due.empty():
        due.get_nowait()
        done.unsent += 1
    for _ in work:
        due.put_nowait((-1, 0.0))
    await asyncio.gather(*work)
    return done


def send(plan: Plan) -> Done:
    """Send bodies; a refused one is not sent again."""
    headers = plan.bearer + LINES

    async def deed(line: Line, number: int, done: Done) -> tuple[str, int]:
        again, which = divmod(number, len(plan.bodies))
        happened = plan.begins + timedelta(seconds=number / plan.rate * plan.speed)
        body = plan.bodies[which].replace(ROUND, b"%d" % again)
        body = body.replace(SECOND, happened.strftime("%Y-%m-%dT%H:%M:%S").encode())
        status, told = await line.ask("POST", INGEST, headers, body)
        if status == 200:
            done.kept += json.loads(told)["kept"]
        return "ingest", status

    return timed(at_a_rate(plan, deed))


def ask(plan: Plan) -> Done:
    """Ask what is in force."""
    chance = random.Random(1)

    async def deed(line: Line, number: int, done: Done) -> tuple[str, int]:
        known = chance.random() < 0.5 and plan.held
        account = held_account(chance.randrange(plan.held)) if known else f"nobody-{number % 1000}"
        if number % 2:
            status, _ = await line.ask("GET", f"/v1/in-force?account={account}", plan.bearer)
            return "in_force", status
        headers = plan.bearer.replace("authorization: Bearer", "x-stillwatch-token:")
        status, _ = await line.ask("POST", "/ext_authz/v1/messages", f"{headers}x-stillwatch-account: {account}\r\n")
        return "ext_authz", status

    return timed(at_a_rate(plan, deed))


def timed(work: Any) -> Done:
    before = time.process_time()
    done: Done = asyncio.run(work)
    done.cpu_s = time.process_time() - before
    return done


def bodies(folder: Path, given: argparse.Namespace) -> tuple[bytes, ...]:
    """The simulated log in bodies, in the order of time, with room for the round and the second each is sent in."""
    simulate(default_world(given.seed, accounts=given.accounts, exchanges=given.log), folder)
    lines: list[bytes] = []
    for i, row in enumerate(canonical(pq.read_table(folder / "exchanges").sort_by("time"))):
        row["exchange_id"] = f"{ROUND.decode()}-{i}"
        row["time"] = f"{SECOND.decode()}.{i * 7919 % 10**6:06d}Z"
        lines.append(dumped(row))
    return tuple(b"\n".join(lines[i : i + given.rows]) for i in range(0, len(lines), given.rows))


# Looking on


@dataclass
class Watch:
    """Looks at the server and its judge now and then; ``peak`` holds the most bytes of RAM that each has had."""

    server: Server
    out: Path
    peak: dict[str, int] = field(default_factory=lambda: {"server": 0, "judge": 0})
    judge_cpu_s: dict[int, float] = field(default_factory=dict)

    def memory(self) -> dict[str, int]:
        judges = started_by(self.server.process.pid)
        now = {"server": rss_bytes(self.server.process.pid), "judge": sum(map(rss_bytes, judges))}
        for pid in judges:
            self.judge_cpu_s[pid] = max(self.judge_cpu_s.get(pid, 0.0), cpu_s(pid))
        for name, size in now.items():
            self.peak[name] = max(self.peak[name], size)
        return now

    def sample(self, began: float) -> None:
        seen, judged = self.server.figures(), Status.read(self.server.home)
        line = {
            "at_s": round(time.perf_counter() - began, 1),
            "rows": seen.get('stillwatch_ingest_rows_total{source="exchanges"}', 0.0),
            "spool_bytes": seen['stillwatch_spool{figure="bytes"}'],
            "ingest_waiting": seen["stillwatch_ingest_waiting"],
            "server_cpu_s": cpu_s(self.server.process.pid), "judge_cpu_s": sum(self.judge_cpu_s.values()),
            "rss_bytes": self.memory(), "judge": judged.status, "judged_rows": judged.rows,
            "load": os.getloadavg()[0],
        }  # fmt: skip
        with (self.out / "samples.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")

    def until(self, work: list[Future[Done]], every_s: float) -> None:
        began = next_at = time.perf_counter()
        while not all(w.done() for w in work):
            self.memory()
            if time.perf_counter() >= next_at:
                self.sample(began)
                next_at += every_s
            time.sleep(0.25)
        self.sample(began)


def judge_of(given: argparse.Namespace) -> str:
    """Settings under which a long run is judged as usual; without ``--judge-every`` in steps of an hour of the log."""
    return (
        f'[judge]\nevery = "{given.judge_every}"\ninterval = "{given.judge_interval}"\n'
        f'grace = "1m"\nretention = "{given.retention}"\n[spool]\nbytes = {given.spool_bytes}\n'
    )


def measure(given: argparse.Namespace) -> dict[str, Any]:
    out: Path = given.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    print(f"making a log of {given.log:,} exchanges, and {given.held:,} accounts under action", file=sys.stderr)
    made = bodies(out / "world", given)
    home, tokens = prepared(out / "home", given.held, judge_of(given))
    server = begun(home, tokens, out / "server.log")
    try:
        server.wait_until_it_listens()
        return {**asked_for(given), **driven(server, given, made)}
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=120)


def asked_for(given: argparse.Namespace) -> dict[str, Any]:
    return {n: v for n, v in vars(given).items() if n != "out"} | {"load_before": os.getloadavg()[0]}


def driven(server: Server, given: argparse.Namespace, made: tuple[bytes, ...]) -> dict[str, Any]:
    """Warm the server up, drive it, and say what came of it."""
    begins = datetime.now(UTC) - timedelta(seconds=given.seconds * given.speed)
    sending = Plan(server.port, server.bearer(Role.INGEST), given.rate / given.rows, given.seconds, given.connections,
                   made, begins, given.speed)  # fmt: skip
    asking = Plan(server.port, server.bearer(Role.GATEWAY), given.ask, given.seconds, given.askers, held=given.held)
    warmed = ask(Plan(server.port, asking.bearer, 200.0, 1.0, 4, held=given.held))
    assert set(warmed.statuses) <= {"200", "401", "403", "429"}, warmed.statuses
    before, cpu_before, watch = server.figures(), cpu_s(server.process.pid), Watch(server, given.out)
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        work = [pool.submit(send, sending), pool.submit(ask, asking)]
        began = time.perf_counter()
        watch.until(work, given.every)
        took_s = time.perf_counter() - began
        sent, asked = (w.result() for w in work)
    after = server.figures()
    rows = 'stillwatch_ingest_rows_total{source="exchanges"}'
    stored = int(after.get(rows, 0.0) - before.get(rows, 0.0))
    judged = Status.read(server.home)
    return {
        "took_s": round(took_s, 1),
        "acknowledged": sent.kept, "acknowledged_a_second": round(sent.kept / took_s, 1),
        "in_spool": stored, "lost": max(0, sent.kept - stored),
        "bodies": dict(sent.statuses), "bodies_refused_503": sent.statuses["503"], "bodies_unsent": sent.unsent,
        "ingest_client_ms": spread_ms(sent.took_s.get("ingest", [])),
        "ingest_server_ms": histogram(before, after, INGEST),
        "questions": dict(asked.statuses), "questions_unsent": asked.unsent,
        "asked_a_second": round(sum(asked.statuses.values()) / took_s, 1),
        **{f"{kind}_{side}_ms": value for kind, route in QUESTIONS.items() for side, value in (
            ("client", spread_ms(asked.took_s.get(kind, []))), ("server", histogram(before, after, route)))},
        "server_cpu_s": round(cpu_s(server.process.pid) - cpu_before, 2),
        "judge_cpu_s": round(sum(watch.judge_cpu_s.values()), 2),
        "client_cpu_s": round(sent.cpu_s + asked.cpu_s, 2),
        "peak_rss_bytes": watch.peak, "spool_bytes": int(after['stillwatch_spool{figure="bytes"}']),
        "judged": {n: getattr(judged, n) for n in ("status", "rows", "late", "campaigns", "failures", "error")},
        "load_after": os.getloadavg()[0],
    }  # fmt: skip


def histogram(before: dict[str, float], after: dict[str, float], route: str) -> dict[str, float | None]:
    series = f'stillwatch_request_seconds{{route="{route}"'
    return {name: quantile_ms(before, after, series, p) for name, p in (("p50", 0.5), ("p99", 0.99))}


def table(told: dict[str, Any]) -> str:
    rows = []
    for name, value in told.items():
        said = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        rows.append(f"{name:<24} {said:,}" if isinstance(said, int | float) else f"{name:<24} {said}")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for all of it; an older one there is replaced")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=5000, help="exchanges a second")
    parser.add_argument("--ask", type=float, default=2000, help="questions a second")
    parser.add_argument("--rows", type=int, default=500, help="exchanges in a body")
    parser.add_argument("--connections", type=int, default=8, help="of senders")
    parser.add_argument("--askers", type=int, default=16, help="connections of gateways")
    parser.add_argument("--held", type=int, default=10_000, help="accounts something is in force for")
    parser.add_argument("--accounts", type=int, default=5_000, help="accounts of the simulated log")
    parser.add_argument("--log", type=int, default=60_000, help="exchanges of the simulated log")
    parser.add_argument("--speed", type=float, default=60, help="how fast the time of the log passes")
    parser.add_argument("--judge-every", default="1h", help="length of a step of judging, in time of the log")
    parser.add_argument("--judge-interval", default="30s", help="how often it is judged, by the clock")
    parser.add_argument("--retention", default="30d", help="[judge] retention")
    parser.add_argument("--spool-bytes", type=int, default=16 << 30, help="[spool] bytes")
    parser.add_argument("--every", type=float, default=5, help="seconds between two samples")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    told = measure(given)
    (given.out / "end.json").write_text(json.dumps(told, indent=2) + "\n")
    print(table(told))
    return 1 if told["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
