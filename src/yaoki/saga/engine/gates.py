"""What is paused, and which queues have limits: what an engine has to know of it, and does about it.

    yk pause saga book-trip ──▶ a row, and a bell ──▶ every engine looks ──▶ its runs of this saga are held:
                                                         they end the attempts under way, begin nothing, and are parked
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from yaoki import events
from yaoki.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from yaoki.saga.driver import Driver
    from yaoki.saga.engine.engine import Engine
    from yaoki.saga.queue import Queue
    from yaoki.saga.records import Stored


class Gates:
    """Of one engine.

    Args:
        queues: what the code says about queues; their limits are declared to the journal when it is opened.
    """

    def __init__(self, engine: Engine, queues: Iterable[Queue]) -> None:
        self._engine = engine
        self._declared = {queue.name: queue for queue in queues}
        self._limited: set[str] = set()
        self._paused: set[tuple[str, str]] = set()
        self._queue_of: dict[str, str] = {}  # of runs in memory that did not come from the default queue
        self._news = -1

    async def declare(self) -> None:
        self._news = -1
        await self._engine.journal.declare(list(self._declared.values()))
        await self.look()

    async def look_now(self) -> None:
        """Somebody here has just changed something: do not wait for the next look."""
        self._news = -1
        await self.look()

    async def look(self) -> None:
        """See whether an operator did something, and follow."""
        journal = self._engine.journal
        news = await journal.news()
        if news == self._news:
            return
        self._news = news
        self._limited = await journal.limited()
        self._paused = {(each.kind, each.name) for each in await journal.pauses()}
        for driver in self._engine.floor.drivers.values():
            self.hold(driver)
        await self._free()
        self._engine.intake.backlog = True
        self._engine.intake.feed()

    def is_held(self, run_id: str, saga: str, queue: str) -> bool:
        """Is this run, its saga or its queue paused?"""
        paused = self._paused
        return bool(paused) and (("saga", saga) in paused or ("run", run_id) in paused or ("queue", queue) in paused)

    def waits(self, saga: str, run_id: str, queue: str) -> bool:
        """Is a new run to wait in the journal, whatever room there is?"""
        return queue in self._limited or self.is_held(run_id, saga, queue)

    def hold(self, driver: Driver) -> None:
        """Tell a driver whether to begin nothing more."""
        run_id = driver.header.id
        held = self.is_held(run_id, driver.header.saga, self._queue_of.get(run_id, "default"))
        if held != driver.held:
            driver.held = held
            driver.is_stopping = _always if held else self._engine.is_stopping
            driver.wake()

    async def parked(self) -> None:
        """A run was parked by a pause that may have ended in this very moment, and then nobody else would find it."""
        with contextlib.suppress(JournalError):  # the next news, or the next start, find it
            await self._free()

    async def _free(self) -> None:
        if await self._engine.journal.free_paused():
            self._engine.intake.backlog = True
            self._engine.intake.feed()

    def came_in(self, stored: Stored, driver: Driver) -> None:
        """A run begins here."""
        if stored.queue != "default":
            self._queue_of[stored.header.id] = stored.queue
        if self._paused:
            self.hold(driver)

    def went_out(self, run_id: str) -> None:
        """A place may be free now: look for the next one."""
        queue = self._queue_of.pop(run_id, "default")
        if self._limited and queue in self._limited:
            self._engine.intake.backlog = True

    async def tell_blocked(self) -> None:
        """The alarm: somebody has to look at these."""
        now = self._engine.journal.now()
        for saga, runs, since in await self._engine.journal.blocked() if events.wanted() else ():
            if saga in self._engine.sagas:
                events.emit(events.RunsBlocked(saga=saga, runs=runs, oldest_s=max(0.0, now - since)))


def _always() -> bool:
    return True
