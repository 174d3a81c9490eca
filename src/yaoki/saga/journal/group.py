"""Group commit: many runs write, one commit makes them all durable.

An fsync costs about the same for one record and for a thousand. So writers hand in what they have and wait; whatever has
gathered by the end of this turn of the event loop, and while the last commit was being written, goes out in one.
The first writer of a batch does not commit at once: it leaves the turn of the loop to all that were woken by the last
commit, for they are about to write too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from yaoki import events, runtime

# More in one commit gains nothing (benchmarks/sagas.py), and bounds what one statement carries.
MAX_BATCH = 1024


class GroupCommit:
    """Gathers operations and commits them in order.

    Args:
        commit: makes a batch durable; returns one answer for each operation, or raises for all of them.
    """

    def __init__(self, commit: Callable[[list[Any]], Awaitable[list[Any]]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None

    def submit(self, operation: Any) -> asyncio.Future[Any]:
        """Hand in an operation. The future has its answer once it is durable."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._waiting.append((operation, answer))
        if self._writer is None:
            self._writer = runtime.spawn(self._write(), name="yaoki-journal")
        return answer

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                await self._write_batch(batch)
                # One turn of the loop, in which everybody who was just answered hands in what comes next.
                await asyncio.sleep(0)  # noqa: TID251  not a wait: it gives up the turn
        finally:
            self._writer = None

    async def _write_batch(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        began = runtime.monotonic()
        try:
            answers = await self._commit([operation for operation, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        if events.wanted():
            events.emit(events.JournalCommitted(records=len(batch), runs=len(batch), duration_s=runtime.monotonic() - began))

    async def drain(self) -> None:
        """Wait until all that was handed in is durable, or has failed."""
        while self._writer is not None:
            await asyncio.wait([self._writer])
