"""Start and stop: what is opened in which order, and closed in the reverse one.

A stop, by SIGTERM or Ctrl-C, first makes ``/readyz`` fail and closes the door, then lets requests under way end, then ends the
loop, the judge and the intake's threads, writes what is in force once more, and gives up the lock. A second signal does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.privacy import Privacy
from stillwatch.serving.app import build
from stillwatch.serving.home import Home
from stillwatch.serving.lines import open_log, say
from stillwatch.serving.reception import receive
from stillwatch.serving.services import opened
from stillwatch.serving.settings import Settings, load
from stillwatch.spool import fingerprinted

BACKLOG = 2048
KEEP_S = 75
"""How long a connection may be idle, in seconds: longer than gateways and senders keep theirs, so that none asks on one that is
being closed."""
SWITCH_S = 0.001
"""How long a thread that reads a body may hold the interpreter while a decision waits for it, in seconds."""


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate (with its chain) and its key, PEM files."""

    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For a server, TLS 1.2 or later. UsageError where the files do not fit together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as e:
            raise UsageError(f"{self.cert}, {self.key}: no usable certificate: {e}", hint="give PEM files") from e
        return context


def listen(settings: Settings) -> socket.socket:
    """A socket that listens. UsageError for an address we do not have, Transient for a port somebody else has."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol named: asyncio sends small answers at once (TCP_NODELAY) only where a socket says that it is TCP.
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((settings.host, settings.port))
        door.listen(BACKLOG)
    except OSError as e:
        door.close()
        message = f"{settings.host} port {settings.port}: cannot listen: {e.strerror or e}"
        if isinstance(e, PermissionError | socket.gaierror):
            raise UsageError(message, hint="choose another host or port in serve.toml") from e
        raise Transient(message, hint="is another server running? or choose another port in serve.toml") from e
    return door


def is_exposed(settings: Settings, tls: Tls | None) -> bool:
    """Whether tokens would cross a network in the clear."""
    return tls is None and settings.host not in ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Start:
    """What ``stillwatch serve`` was told."""

    home: Home
    config: Path | None = None
    policy: Path | None = None
    key: Path | None = None
    host: str | None = None
    port: int | None = None
    tls: Tls | None = None
    judge: bool = True


def start(told: Start) -> None:
    """Serve until told to stop; when this returns all is closed, the judge has ended and the lock is given up.

    UsageError for wrong settings, Transient where the port or the home is in use.
    """
    file = told.config or (told.home.settings if told.home.settings.exists() else None)
    settings = load(file, host=told.host, port=told.port)
    open_log(settings.log_level)
    # What is made in the home is its owner's alone.
    os.umask(0o077)
    with (
        opened(told.home, settings, policy=told.policy, key=told.key, judge=told.judge) as services,
        listen(settings) as door,
    ):
        # Else the first body would hold the interpreter meanwhile, and every question with it.
        warm()
        host, port = door.getsockname()[:2]
        if is_exposed(settings, told.tls):
            say(
                logging.WARNING,
                "tokens cross the network in the clear: give --tls-cert, or listen on 127.0.0.1 behind a proxy",
            )
        say(
            logging.INFO,
            "listening",
            host=host,
            port=port,
            tls=told.tls is not None,
            home=str(told.home.folder.absolute()),
        )
        run(build(services), settings, door, told.tls)
    say(logging.INFO, "stopped")


def warm() -> None:
    """Compile what reads prompts, so that the first body need not wait for it; the code is kept where it was compiled."""
    row = {"exchange_id": "warm", "time": "2026-01-01T00:00:00Z", "account_id": "a", "model": "m", "prompt": "1+1?"}
    privacy = Privacy.random()
    for batch in receive(json.dumps(row).encode(), "application/json", "", "exchanges", privacy=privacy).batches:
        fingerprinted(batch, privacy)


class _Server(uvicorn.Server):
    """uvicorn, whose signals are ours: theirs would be raised again at the end, and a stop is no interrupt."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(app: Starlette, settings: Settings, door: socket.socket, tls: Tls | None = None) -> None:
    """Answer on ``door`` until SIGTERM or Ctrl-C; when it returns, the app's lifespan has ended.

    Terminal where the app could not start.
    """
    context = tls.context() if tls else None
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=KEEP_S,
        timeout_graceful_shutdown=max(1, round(settings.stop_within_s)),
        ssl_context_factory=None if context is None else lambda _config, _default: context,
        ssl_certfile=None if tls is None else str(tls.cert),
        ssl_keyfile=None if tls is None else str(tls.key),
    )
    server = _Server(config)
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(server, app, door))
    finally:
        sys.setswitchinterval(before)
    if not server.started:
        raise Terminal("the server could not start", hint="the lines above say why")


async def _serve(server: _Server, app: Starlette, door: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, _stop, server, app, signal.Signals(number).name)
    await server.serve(sockets=[door])


def _stop(server: _Server, app: Starlette, name: str) -> None:
    """Begin to stop; the second time, at once."""
    say(logging.INFO, "stopping", signal=name, at_once=server.should_exit)
    app.state.services.draining = True
    server.force_exit = server.should_exit
    server.should_exit = True
