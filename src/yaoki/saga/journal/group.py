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
from functools import partial
from math import inf
from typing import Any

from yaoki import events, runtime

# More in one commit gains nothing (benchmarks/sagas.py), and bounds what one statement carries.
MAX_BATCH = 1024

Writers = list[asyncio.Future[Any]]
Answered = tuple[asyncio.Future[Any], Any]


class GroupCommit:
    """Gathers operations and commits them in order, one commit at a time.

        idle ──handed in──▶ a turn ──▶ commit under way ──answered──▶ a turn ──anything handed in?──▶ commit, tell the rest, or idle

    Args:
        commit: makes a batch durable; returns one answer for each operation, or raises for all of them.
        turns: so many writers at once take turns; None: they never do. Worth it where a commit leaves this process alone, as a
            server's does; one in a thread of this process competes with the program for the interpreter.
    """

    def __init__(self, commit: Callable[[list[Any]], Awaitable[Sequence[Any]]], *, turns: int | None = None) -> None:
        self._commit = commit
        self._turns = inf if turns is None else turns
        self._operations: list[Any] = []  # that wait to be sent, and who is to be told of each
        self._writers: Writers = []
        self._durable: list[Answered] = []  # and their writers have not been told yet
        self._idle = True
        self._drained: list[asyncio.Future[None]] = []

    def submit(self, operation: Any) -> asyncio.Future[Any]:
        """Hand in an operation. The future has its answer once it is durable."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._operations.append(operation)
        self._writers.append(answer)
        if self._idle:
            self._idle = False
            loop.call_soon(self._send)
        return answer

    def _send(self) -> None:
        """Commit what has gathered; those whose last commit is done, and who have not been told, go to work meanwhile."""
        batch, self._operations = self._operations, []
        writers, self._writers = self._writers, []
        if len(batch) > MAX_BATCH:
            batch, self._operations = batch[:MAX_BATCH], batch[MAX_BATCH:]
            writers, self._writers = writers[:MAX_BATCH], writers[MAX_BATCH:]
        began = runtime.monotonic() if events.wanted() else None
        try:
            commit = self._commit(batch)
        except Exception as error:
            self._failed(writers, error)
            return
        if isinstance(commit, asyncio.Future):
            commit.add_done_callback(partial(self._sent, writers, began))
        else:
            runtime.spawn(self._awaited(commit, writers, began), name="yaoki-journal")
        if self._durable:
            self._tell(len(self._durable))  # the loop wakes them after the task that has just been made, so the batch is sent first

    async def _awaited(self, commit: Awaitable[Sequence[Any]], writers: Writers, began: float | None) -> None:
        try:
            answers = await commit
        except Exception as error:
            self._failed(writers, error)
        except BaseException:  # the loop is being closed
            self._failed(writers, asyncio.CancelledError())
            raise
        else:
            self._answered(writers, answers, began)

    def _sent(self, writers: Writers, began: float | None, commit: asyncio.Future[Sequence[Any]]) -> None:
        if commit.cancelled():
            self._failed(writers, asyncio.CancelledError())
        elif (error := commit.exception()) is not None:
            self._failed(writers, error)
        else:
            self._answered(writers, commit.result(), began)

    def _failed(self, writers: Writers, error: BaseException) -> None:
        for future in writers:
            if not future.done():
                future.set_exception(error)
        self._go_on()

    def _answered(self, writers: Writers, answers: Sequence[Any], began: float | None) -> None:
        if began is not None and events.wanted():
            events.emit(events.JournalCommitted(records=len(writers), runs=len(writers), duration_s=runtime.monotonic() - began))
        if self._durable or self._writers or len(writers) >= self._turns:
            self._durable += zip(writers, answers, strict=True)
            self._go_on()
            return
        # The common case, at once: nobody else waits, so all are told, and whoever hands in first begins the next commit. The others
        # who are told have their turn before it is sent.
        for future, answer in zip(writers, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        self._idle = True
        if self._drained:
            self._rest()

    def _go_on(self) -> None:
        """A commit is over: who is told now?"""
        if len(self._durable) + len(self._writers) < self._turns:
            self._tell(len(self._durable))
            if not self._writers:
                self._rest()
                return
        elif self._writers:
            self._send()
            return
        else:
            self._tell(len(self._durable) // 2)
        asyncio.get_running_loop().call_soon(self._after_a_turn)

    def _after_a_turn(self) -> None:
        """Those who were told have handed in what comes next."""
        if self._writers:
            self._send()
        elif self._durable:
            self._tell(len(self._durable))
            asyncio.get_running_loop().call_soon(self._after_a_turn)
        else:
            self._rest()

    def _rest(self) -> None:
        """Nothing is to be written, and nobody to be told."""
        self._idle = True
        if self._drained:
            drained, self._drained = self._drained, []
            for future in drained:
                if not future.done():
                    future.set_result(None)

    def _tell(self, count: int) -> None:
        """Tell the first `count` of those whose operations are durable."""
        told, self._durable = self._durable, []
        if count < len(told):
            told, self._durable = told[:count], told[count:]
        for future, answer in told:
            if not future.done():
                future.set_result(answer)

    async def drain(self) -> None:
        """Wait until all that was handed in is durable, or has failed."""
        while not self._idle:
            drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drained.append(drained)
            await drained
