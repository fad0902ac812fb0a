"""Processes that are started together and ended one after the other, each with a log of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stillwatch.errors import Terminal, Transient

STOP_S = 30.0
"""How long a process may take to end when it is asked to, in seconds; then it is killed."""
TOLD = 2000
"""Characters of a log that are shown where its process has failed."""


class Child:
    """A process in a session of its own, so that Ctrl-C reaches us alone and the order of the ends is ours."""

    def __init__(self, name: str, command: list[str], log: Path, cwd: Path, environment: Mapping[str, str]) -> None:
        self.name, self.log = name, log
        with log.open("wb") as out:
            try:
                self._process = subprocess.Popen(
                    command, cwd=cwd, env=dict(environment), stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as e:
                raise Terminal(f"{name}: {command[0]} does not start: {e.strerror or e}") from e

    def check(self) -> None:
        """Terminal, with the end of its log, where it has ended by itself."""
        code = self._process.poll()
        if code is not None:
            said = self.log.read_text(encoding="utf-8", errors="replace")[-TOLD:]
            raise Terminal(f"{self.name} has ended with {code}; the end of {self.log}:\n{said}")

    def stop(self) -> int:
        """Ask it to end, and wait; its exit code. What is left of its session goes with it where it must be killed."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def wait_for(what: str, holds: Callable[[], bool], within_s: float, *children: Child) -> None:
    """Wait until something holds. Terminal where one of ``children`` ends meanwhile, Transient where it takes too long."""
    until = time.monotonic() + within_s
    while not holds():
        for child in children:
            child.check()
        if time.monotonic() > until:
            raise Transient(f"waited {within_s:.0f} s in vain: {what}", hint="is the machine very busy? try again")
        time.sleep(0.05)


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ends are not interrupted: a second Ctrl-C while something is stopped would leave the rest running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
