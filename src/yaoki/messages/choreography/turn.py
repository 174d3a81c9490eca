"""One step of a choreographed run in the hands of its participant: what `Attempts` asks of a driver, from words on the run.

A step in the service's own transaction (`tx`) gets the connection of the service's store: what it writes, and the word that
it is done, commit together.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from yaoki import runtime
from yaoki.messages.app import Messages
from yaoki.messages.choreography.telling import word
from yaoki.messages.choreography.told import Run, Told
from yaoki.messages.store.port import Settlement
from yaoki.saga.define import Saga
from yaoki.saga.journal.port import Append
from yaoki.saga.records import Header, Record, RunState


class PartTurn:
    """Fills `saga.turn.Turn`.

    Args:
        run: as this service has heard of it. step: the one in hand. began: was it begun before, perhaps by a process that
            died? load: the run as it is now.
    """

    def __init__(self, app: Messages, saga: Saga[Any], run: Run, step: str, load: Callable[[str], Awaitable[Run]], *,
                 began: bool) -> None:
        assert run.machine is not None
        self.saga = saga
        self.machine = run.machine
        self.header = Header(no=0, id=run.id, saga=saga.name, graph=saga.graph.hash, state=RunState.RUNNING, input=run.input)
        self.input = saga.input.decode(run.input)
        self.results = {name: saga.steps[name].result.decode(data) for name, data in run.results.items()}
        self.perhaps_started = (step,) if began else ()
        self.clock = runtime.current().monotonic
        self.now = self.unix_time = runtime.current().unix_time
        self.hold = None
        self._gives_up = False
        self.notes: list[Record] = []  # of earlier attempts; a choreography does not tell them
        self.journal = OwnDatabase(app, saga, run.id)
        self._load = load
        if began and saga.steps[step].once:
            self.machine.begun.add(saga.graph.index[step])  # the word "begun" is what a journal's record is there

    def is_stopping(self) -> bool:
        return False  # a stopping process cancels the task, and its message stays

    def is_under_way(self) -> bool:
        return True

    async def pause(self, delay_s: float) -> None:
        """Wait between two attempts; hear meanwhile whether the run is being undone."""
        await runtime.sleep(delay_s)
        run = await self._load(self.header.id)
        self._gives_up = run.machine is not None and run.machine.abort is not None

    def gives_up_on(self, name: str, *, forward: bool) -> bool:  # noqa: ARG002 (it is the one in hand)
        """Is the run being undone?"""
        return self._gives_up and not forward

    async def hand_back(self, delay_s: float) -> None:
        raise AssertionError(f"a participant keeps what it has begun, also for {delay_s:g} s")

    async def write(self, record: Record) -> None:
        """The beginning of a step that is made at most once: it was told before the attempt."""

    def entry_of(self, record: Record) -> Append:
        return Append(0, 0, (record,))

    def written(self, entry: Append) -> None:
        """Nothing is kept here that would have to know."""


class OwnDatabase:
    """The service's store as the place of a step's own transaction."""

    shared = False

    def __init__(self, app: Messages, saga: Saga[Any], run: str) -> None:
        self._app = app
        self._saga = saga
        self._run = run

    async def transact(self, run: int, work: Callable[[Any], Any]) -> Append:  # noqa: ARG002 (a journal's number)
        """Do `work`, and say in the same transaction what came of it."""
        async with self._app.store.transaction() as tx:
            made = work(tx.connection) if inspect.iscoroutinefunction(work) else runtime.run_blocking(work, tx.connection)
            entry: Append = await made
            (record,) = entry.records
            told = Told(record.kind.value, record.step, msgspec.Raw(record.data or b"null"), record.at)
            await tx.settle("", Settlement(publish=[word(self._app, self._saga, self._run, told)]))
        return entry

