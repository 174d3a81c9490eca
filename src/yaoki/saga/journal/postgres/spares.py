"""Connections for steps' own transactions: a bounded number at once, each of which stays a while for the next step.

    free place? ──no──▶ wait for one
        └──yes──▶ a spare one that still answers, else a new one ──▶ the step's transaction ──ended well──▶ spare, for a while
                                                                                     └──anything else──▶ closed
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from yaoki import runtime
from yaoki.saga.journal.postgres.link import BACKOFF, Connection, Target, is_lost

# A worker has three connections of its own. PostgreSQL allows a hundred in all by default, and each is a process.
AT_ONCE = 16

# Nobody needs them: then the server has the processes back.
SPARE_S = 10.0


class Spares:
    """Connections for steps' own transactions.

    Args:
        target: where. lost: why this worker must not begin anything, or None; asked while the server is away.
    """

    def __init__(self, target: Target, lost: Callable[[], Exception | None]) -> None:
        self._target = target
        self._lost = lost
        self._places = asyncio.Semaphore(AT_ONCE)
        self._spare: list[tuple[Connection, float]] = []  # and since when; the one that was last in use last
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """A connection without a transaction. Waits for a place, and while the server is away: neither is the step's failure."""
        async with self._places:
            connection = await self._spare_one() or await self._new()
            try:
                yield connection
                if not connection.is_closed():
                    self._keep(connection)
                    connection = None
            finally:
                if connection is not None:
                    connection.terminate()

    def _keep(self, connection: Connection) -> None:
        self._spare.append((connection, runtime.monotonic()))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SPARE_S, self._let_go)

    def _let_go(self) -> None:
        """Of those that nobody has needed for so long."""
        self._timer = None
        until = runtime.monotonic() - SPARE_S / 2
        for connection, since in self._spare:
            if since < until:
                connection.terminate()
        self._spare = [each for each in self._spare if each[1] >= until]
        if self._spare:
            self._timer = asyncio.get_running_loop().call_later(SPARE_S, self._let_go)

    async def _spare_one(self) -> Connection | None:
        while self._spare:
            connection, _ = self._spare.pop()
            try:
                if not self._target.bouncer:  # which keeps nothing of a session between two transactions
                    await connection.reset()  # what the last step has set, and a sign of life
            except Exception as error:
                connection.terminate()
                if not is_lost(error):
                    raise
            except BaseException:
                connection.terminate()
                raise
            else:
                return connection
        return None

    async def _new(self) -> Connection:
        failures = 0
        while True:
            try:
                return await self._target.connect("step")
            except Exception as error:
                if (lost := self._lost()) is not None:
                    raise lost from error
                if not is_lost(error):
                    raise
            failures += 1
            await runtime.sleep(BACKOFF.delay(failures, 0.0, runtime.rng()))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for connection, _ in self._spare:
            connection.terminate()
        self._spare.clear()
