"""Starts runs for runs, and carries what they say to each other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from yaoki import events, runtime
from yaoki.errors import FencedError, JournalError, UsageError
from yaoki.saga.attributes import attributes_of
from yaoki.saga.define import Saga
from yaoki.saga.journal.port import NewRun
from yaoki.saga.placing import Placing
from yaoki.saga.records import Header

if TYPE_CHECKING:
    from yaoki.saga.engine.engine import Engine


class Kin:
    """The family business of one engine: `child.Kin`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted = False
        self.carrying: asyncio.Task[None] | None = None

    async def start(self, saga: Saga[Any], data: bytes, run_id: str, *, deadline_at: float, traceparent: str, queue: str) -> Header:
        """Start a child: whoever has room takes it, this engine perhaps."""
        engine, journal = self._engine, self._engine.journal
        now = journal.now()
        new = NewRun(run_id, saga.name, saga.graph.hash, data, deadline_at, traceparent, now,
                     attributes=attributes_of(saga.attributes, saga.input.decode(data), None) if saga.attributes else ())
        created = await journal.create(Placing(queue or (saga.queue.name if saga.queue else "default")).of(new, now))
        if created.header.saga != saga.name:
            raise UsageError(f"run {run_id} is there already, and is one of saga {created.header.saga!r}, not {saga.name!r}",
                             do="do not name runs like children; retry the step, which then starts a run of another name")
        engine.intake.backlog = True
        engine.intake.feed()
        if journal.shared:
            await journal.ring()
        if created.new and events.wanted():
            events.emit(events.RunStarted(run=run_id, saga=saga.name))
        return created.header

    def asked(self) -> None:
        """A run has asked something of another: look at once, and let the other workers look."""
        self._wanted = True
        if self.carrying is None and not self._engine.is_stopping():
            self.carrying = runtime.spawn(self._carry(), name="yaoki-kin")

    async def _carry(self) -> None:
        engine = self._engine
        try:
            while self._wanted and not engine.is_stopping():
                self._wanted = False
                await engine.requests.carry_out()
                if engine.journal.shared:
                    await engine.journal.ring()
        except FencedError:
            engine.fence()
        except JournalError as error:
            if not engine.journal.shared:
                engine.fail(error)  # else the server is away: the next look does it
        finally:
            self.carrying = None
