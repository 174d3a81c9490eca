"""Group commit: what several tasks want to store at the same time is stored in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from yaoki import runtime
from yaoki.messages.envelope import Message

MOST = 1_000
"""Messages in one transaction. Beyond several hundred a batch gets no cheaper, and it gets slower to fail."""


class Gather:
    """Gathers appends while one is under way.

    Args:
        commit: stores messages in one transaction, or raises and stores none.
    """

    def __init__(self, commit: Callable[[Sequence[Message]], Awaitable[None]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[Sequence[Message], asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def append(self, messages: Sequence[Message]) -> None:
        """Returns when these are stored. Cancelling the wait does not undo it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, future))
        if self._flusher is None:
            self._flusher = runtime.spawn(self._flush(), name="yaoki-messages-gather")
        await future

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await self._store(self._take())
        finally:
            self._flusher = None

    def _take(self) -> list[tuple[Sequence[Message], asyncio.Future[None]]]:
        taken, size = 0, 0
        for messages, _ in self._waiting:
            if taken and size + len(messages) > MOST:
                break
            taken, size = taken + 1, size + len(messages)
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return batch

    async def _store(self, batch: list[tuple[Sequence[Message], asyncio.Future[None]]]) -> None:
        try:
            await self._commit([message for messages, _ in batch for message in messages])
        except Exception as error:
            if len(batch) > 1:
                for each in batch:  # one of them may be at fault: each for itself
                    await self._store([each])
                return
            _end(batch[0][1], error)
            return
        for _, future in batch:
            _end(future, None)

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._flusher is not None:
            await asyncio.wait([self._flusher])


def _end(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return  # cancelled while it waited; the messages are stored all the same
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
