"""Group commit: many runs write, one commit makes them all durable.

An fsync costs about the same for one record and for a thousand. So writers hand in what they have and wait; whatever has
gathered while the last commit was being written goes out in one. Two things decide what gathers:

- *Few writers go together.* Everybody who was answered by the last commit is about to hand in what comes next, so the next
  one leaves them a turn of the event loop first. Sent at once, it would take half of them, and the other half the time of
  another commit.
- *Many writers take turns.* When so many are answered at once that the program is busy with them for longer than a commit
  takes, waiting for them leaves the disk idle. Half of them is answered, and what they hand in is under way while the other
  half is at work:

        disk     │ commit A │ commit B │ commit A │
        program  │ B at work│ A at work│ B at work│
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Any

from yaoki import events, runtime

# More in one commit gains nothing (benchmarks/sagas.py), and bounds what one statement carries.
MAX_BATCH = 1024

Waiting = tuple[Any, asyncio.Future[Any]]
Answered = tuple[asyncio.Future[Any], Any]


class GroupCommit:
    """Gathers operations and commits them in order, one commit at a time.

    Args:
        commit: makes a batch durable; returns one answer for each operation, or raises for all of them.
        turns: so many writers at once take turns; None: they never do. Worth it where a commit leaves this process alone, as a
            server's does; one in a thread of this process competes with the program for the interpreter.
    """

    def __init__(self, commit: Callable[[list[Any]], Awaitable[list[Any]]], *, turns: int | None = None) -> None:
        self._commit = commit
        self._turns = inf if turns is None else turns
        self._waiting: list[Waiting] = []
        self._durable: list[Answered] = []  # and their writers have not been told yet
        self._writer: asyncio.Task[None] | None = None

    def submit(self, operation: Any) -> asyncio.Future[Any]:
        """Hand in an operation. The future has its answer once it is durable."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, answer))
        if self._writer is None:
            self._writer = runtime.spawn(self._write(), name="yaoki-journal")
        return answer

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._write_batch()
                if len(self._durable) + len(self._waiting) < self._turns:
                    self._tell(len(self._durable))
                    await _turn()
                elif not self._waiting:
                    self._tell(len(self._durable) // 2)
                    await _turn()
                if not self._waiting:
                    self._tell(len(self._durable))
                    await _turn()
        finally:
            self._tell(len(self._durable))
            self._writer = None

    async def _write_batch(self) -> None:
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        began = runtime.monotonic()
        try:
            answers = await self._under_way([operation for operation, _ in batch])
        except BaseException as error:
            _fail(batch, error if isinstance(error, Exception) else asyncio.CancelledError())
            if not isinstance(error, Exception):
                raise
            return
        self._durable += [(future, answer) for (_, future), answer in zip(batch, answers, strict=True)]
        if events.wanted():
            events.emit(events.JournalCommitted(records=len(batch), runs=len(batch), duration_s=runtime.monotonic() - began))

    async def _under_way(self, operations: list[Any]) -> Sequence[Any]:
        """Commit; meanwhile those whose last commit is done, and who have not been told, go to work."""
        if not self._durable:
            return await self._commit(operations)
        commit = runtime.spawn(_awaited(self._commit(operations)), name="yaoki-commit")
        self._tell(len(self._durable))  # the loop wakes them after the task that has just been made, so the batch is sent first
        try:
            return await commit
        except asyncio.CancelledError:
            commit.cancel()
            await asyncio.wait([commit])
            raise

    def _tell(self, count: int) -> None:
        """Tell the first `count` of those whose operations are durable."""
        told, self._durable = self._durable[:count], self._durable[count:]
        for future, answer in told:
            if not future.done():
                future.set_result(answer)

    async def drain(self) -> None:
        """Wait until all that was handed in is durable, or has failed."""
        while self._writer is not None:
            await asyncio.wait([self._writer])


async def _awaited(work: Awaitable[list[Any]]) -> list[Any]:
    return await work


async def _turn() -> None:
    """Leave a turn of the loop to those who were just told, in which they hand in what comes next."""
    await asyncio.sleep(0)  # noqa: TID251  not a wait: it gives up the turn


def _fail(batch: list[Waiting], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
