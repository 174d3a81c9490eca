"""Keeps this worker alive in the eyes of the others, and declares dead whoever stopped.

    renew every third of the lease ──▶ ... ──no answer for 0.8 of it──▶ in doubt: begin no effect ──answer──▶ sure again
                                                                                        └──declared dead──▶ fenced

It runs in a thread with a connection of its own, so that a busy event loop does not cost the lease. But a worker whose loop
stands still makes no progress and must lose its runs: when the loop has not moved for a whole lease, renewal stops. Only the
server's clock counts for the lease; the worker measures only lengths, from the moment *before* it asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from math import inf

from yaoki import events, runtime
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.link import Connection, Target, is_lost

log = logging.getLogger("yaoki.saga")

# A server that does not answer within this has its reasons, and a worker need not be idle for them.
START_S = 0.5

# Of the lease: after so much without an answer nobody can be sure to be alive for much longer.
DOUBT = 0.8


class Lease:
    """The lease of one incarnation.

    Args:
        target: where. worker: its number.
        fenced: called in the event loop, once, when the worker was declared dead.
    """

    def __init__(self, target: Target, worker: int, fenced: Callable[[], None]) -> None:
        self._target = target
        self._worker = worker
        self._fenced = fenced
        self._lease_s = target.lease_s
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="yaoki-lease", daemon=True)
        self._began: Callable[[], object] = _nothing
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = threading.Event()
        self._beat: asyncio.TimerHandle | None = None
        self.moved_at = self.renewed_at = runtime.monotonic()
        self.server_offset = 0.0

    async def start(self) -> None:
        """Returns when the thread has done its first round, or after `START_S`: what it does to connect would disturb the first runs."""
        self._tick()
        began = asyncio.Event()
        self._began = lambda: self._loop.call_soon_threadsafe(began.set)
        self._thread.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await began.wait()

    def stop(self) -> None:
        """End the thread; at once, and without waiting for the server."""
        self._stopped.set()
        if self._beat is not None:
            self._beat.cancel()
        loop, task = self._thread_loop, self._task
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(task.cancel)
        self._thread.join(timeout=5.0)

    @property
    def in_doubt(self) -> bool:
        return runtime.monotonic() - self.renewed_at > DOUBT * self._lease_s

    def renewed(self, sent_at: float) -> None:
        """A batch that was sent then has renewed it."""
        self.renewed_at = max(self.renewed_at, sent_at)

    def _tick(self) -> None:
        self.moved_at = runtime.monotonic()
        self._beat = self._loop.call_later(self._lease_s / 6, self._tick)

    # ── in the thread ────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._keep())

    async def _keep(self) -> None:
        self._thread_loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        connection: Connection | None = None
        try:
            while not self._stopped.is_set():
                try:
                    if connection is None or connection.is_closed():
                        connection = await self._target.connect("lease")
                    wait_s = await self._renew(connection)
                    self._began()
                    self._began = _nothing
                except Exception as error:
                    if not is_lost(error):  # whatever it is: without this thread the worker would be in doubt for ever
                        log.exception("the lease of worker %d could not be renewed, and will be tried again", self._worker)
                    if connection is not None:
                        connection.terminate()
                    connection, wait_s = None, min(0.5, self._lease_s / 20)
                if wait_s < 0:
                    return
                await runtime.sleep(wait_s)
        finally:
            if connection is not None:
                connection.terminate()

    async def _renew(self, connection: Connection) -> float:
        """Renew, reap, and say how many seconds to wait; below 0: it is over."""
        began = runtime.monotonic()
        stands_still = began - self.moved_at > self._lease_s
        next_death = 0.0
        if not stands_still:
            row = await connection.fetchrow(sql.RENEW, self._worker)
            if row is None:
                self._loop.call_soon_threadsafe(self._fenced)
                return -1.0
            self.renewed(began)
            self.server_offset = float(row["now"]) - (began + runtime.monotonic()) / 2
            next_death = float(row["next"]) - float(row["now"]) if row["next"] is not None else inf  # it is alone
        for dead in await connection.fetch(sql.REAP) if next_death <= 0 else ():
            if events.wanted():
                events.emit(events.WorkerDied(worker=dead["name"], runs=dead["runs"]))
        # Never later than a third of the lease, and just after the next one that may end.
        return max(0.05, min(self._lease_s / 3, next_death + 0.05 if next_death > 0 else self._lease_s / 3))


def _nothing() -> None:
    """Nobody waits for the first round."""
