"""Threads for work that must not hold up an answer, and a bound on how much of it may wait."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from stillwatch.spool import Overload

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """``threads`` threads, and at most ``waiting`` calls beside those they work on; called from one event loop."""

    def __init__(
        self, name: str, threads: int, waiting: int, wait_s: float, executor: ThreadPoolExecutor | None = None
    ) -> None:
        self._name, self._most, self._wait_s = name, threads + waiting, wait_s
        self._threads = threads
        self._executor = executor or ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._held = 0

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken up yet."""
        return max(0, self._held - self._threads)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``call`` returns or raises; Overload, before anything is done, where too many wait."""
        if self._held >= self._most:
            raise Overload(
                f"too much waits already ({self._name}: {self.waiting})",
                wait_s=self._wait_s,
                hint="come again later; for traffic, raise intake_threads where there are cores to spare",
            )
        self._held += 1
        context = contextvars.copy_context()
        work = asyncio.get_running_loop().run_in_executor(self._executor, lambda: context.run(call, *args, **kwargs))
        # Counted until the work is over, not until whoever asked has gone.
        work.add_done_callback(self._ended)
        return await asyncio.shield(work)

    def _ended(self, work: asyncio.Future[T]) -> None:
        self._held -= 1
        if not work.cancelled():
            work.exception()

    def close(self) -> None:
        """Wait for what is under way."""
        self._executor.shutdown(wait=True)
