"""How fast a gateway is answered: ext_authz through uvicorn on loopback, at a rate of requests.

    python bench/decide.py [--rate 500] [--seconds 10] [--accounts 10000] [--share 0.5] [--connections 16]

Half of the requests are of accounts something is in force for (``--share``), spread over all rungs. Requests are due at
even distances whether or not earlier ones were answered, and "round_trip" counts from when one was due. "decision" is the time
within our application, "handler" the same with uvicorn's writing of the answer, "cpu" the processor time of the whole server
process for each request, uvicorn's reading included. One JSON line, times in microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import uvicorn

from stillwatch.serving.decisions import Decisions, Table
from stillwatch.serving.gateways import Gate, Message, Receive, Scope, Send, Wiring
from stillwatch.serving.gateways.ext_authz import ext_authz
from stillwatch.types import InForce, Rung

SETTINGS: dict[str, Any] = {"requests_per_minute": 60, "models": ["small-*"], "max_tokens": 4096}


def in_force(accounts: int) -> Table:
    """Accounts ``a0``, ``a1``, ... on the rungs in turn."""
    rungs, until = list(Rung), datetime.now(UTC) + timedelta(days=1)
    return Table({f"a{i}": InForce(f"a{i}", rungs[i % 6], f"case-{i}", "c", until, SETTINGS) for i in range(accounts)})


class Timed:
    """The application, and how long each call of it took, in seconds, with and without the server's writing."""

    def __init__(self, accounts: int) -> None:
        self._app = ext_authz(Gate(Decisions(in_force(accounts)), Wiring(appeals="https://api.example/appeals/{case}")))
        self.took_s: list[float] = []
        self.decided_s: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, sent_s = time.perf_counter(), 0.0

        async def timed(message: Message) -> None:
            nonlocal sent_s
            at = time.perf_counter()
            await send(message)
            sent_s += time.perf_counter() - at

        await self._app(scope, receive, timed)
        self.took_s.append(time.perf_counter() - began)
        self.decided_s.append(self.took_s[-1] - sent_s)


def serve(accounts: int) -> None:
    """Serve on a free port, tell it, and at the end of stdin tell what the calls took."""
    timed = Timed(accounts)
    config = uvicorn.Config(timed, port=0, log_level="error", access_log=False, lifespan="off", interface="asgi3")
    server = uvicorn.Server(config)

    async def until_told() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        timed.took_s.clear()
        timed.decided_s.clear()
        before = time.process_time()
        await asyncio.to_thread(sys.stdin.readline)
        cpu_s = time.process_time() - before
        server.should_exit = True
        await serving
        cpu_us = round(cpu_s / len(timed.took_s) * 1e6, 1)
        print(json.dumps({"decision": spread(timed.decided_s), "handler": spread(timed.took_s), "cpu": cpu_us}))

    asyncio.run(until_told())


def spread(times_s: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and longest, in microseconds."""
    ordered = sorted(times_s)
    places = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(len(ordered) * p))] * 1e6, 1) for name, p in places.items()}


def question(account: str) -> bytes:
    """As Envoy asks."""
    return (
        "POST /ext_authz/v1/messages HTTP/1.1\r\nhost: api.example\r\ncontent-length: 0\r\n"
        f"authorization: Bearer sk-{account}\r\nx-stillwatch-account: {account}\r\n"
        "anthropic-version: 2023-06-01\r\nx-request-id: 6f1c8f5e-1f60-4a8e-9d2e-3a2f0e9b7c11\r\n"
        "x-forwarded-for: 203.0.113.7\r\nx-envoy-internal: true\r\n\r\n"
    ).encode()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, account: str) -> int:
    """Ask once; the status."""
    writer.write(question(account))
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(next(line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")))
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def drive(port: int, given: argparse.Namespace) -> tuple[list[float], dict[int, int]]:
    """Ask at the rate: round trips in seconds, and how many answers had which status."""
    due, chance = asyncio.Queue[float](), random.Random(1)
    round_trips: list[float] = []
    statuses: dict[int, int] = {}

    async def one_connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (at := await due.get()) >= 0:
            known = chance.random() < given.share
            status = await asked(reader, writer, f"a{chance.randrange(given.accounts)}" if known else "nobody")
            round_trips.append(time.perf_counter() - at)
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    connections = [asyncio.create_task(one_connection()) for _ in range(given.connections)]
    began = time.perf_counter()
    for i in range(int(given.rate * given.seconds)):
        at = began + i / given.rate
        if (wait_s := at - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        due.put_nowait(at)
    for _ in connections:
        due.put_nowait(-1)
    await asyncio.gather(*connections)
    return round_trips, statuses


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Start a server, warm it up, measure it."""
    told = [sys.executable, __file__, "--serve", "--accounts", str(given.accounts)]
    with subprocess.Popen(told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin and server.stdout
        port = int(server.stdout.readline())
        asyncio.run(drive(port, argparse.Namespace(**{**vars(given), "seconds": 1})))
        print(file=server.stdin, flush=True)
        round_trips, statuses = asyncio.run(drive(port, given))
        print(file=server.stdin, flush=True)
        figures = json.loads(server.stdout.readline())
    asked_for = {name: getattr(given, name) for name in ("rate", "seconds", "accounts", "share", "connections")}
    return {**asked_for, "answered": statuses, **figures, "round_trip": spread(round_trips)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--accounts", type=int, default=10_000, help="accounts something is in force for")
    parser.add_argument("--share", type=float, default=0.5, help="share of the requests that are theirs")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.accounts)
    print(json.dumps(measure(given)))


if __name__ == "__main__":
    main()
