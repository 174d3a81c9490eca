"""Hear at once that something was sealed, by PostgreSQL's NOTIFY; where that is not to be had, look again after a while.

One connection of its own listens, from the first `wait` on. A connection that is lost is made again; meanwhile, and behind a
pooler that passes no notifications on, waiting simply ends with its time.
"""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg

from yaoki import runtime
from yaoki.messages.store.bell import Bell

CHANNEL = "yaoki_ledger"
TELL = f"SELECT pg_notify('{CHANNEL}', '')"
"""Sent with the sealing's commit. Appending sends none: notifying commits wait for each other."""

AGAIN_S = 1.0


class Waking:
    """Rings when somebody sealed something."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._bell = Bell()
        self._task: asyncio.Task[None] | None = None

    @property
    def heard(self) -> int:
        """To be read before looking: `wait` returns at once for news after it."""
        return self._bell.rings

    async def wait(self, heard: int, timeout_s: float) -> None:
        if self._task is None:
            self._task = runtime.spawn(self._listen(), name="yaoki ledger listens")
        await self._bell.wait(heard, timeout_s)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._task = None

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await self._listen_once()
            await runtime.sleep(AGAIN_S)

    async def _listen_once(self) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            ended = asyncio.Event()
            connection.add_termination_listener(lambda _connection: ended.set())
            await connection.add_listener(CHANNEL, lambda *_: self._bell.ring())
            self._bell.ring()  # what was sealed before we listened
            await ended.wait()
        finally:
            await connection.close(timeout=5)
