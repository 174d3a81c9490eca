"""Looks from time to time, or when the journal rings: what is due, asked for, stuck, stranded, and to be tidied away."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING

from yaoki import events, runtime
from yaoki.errors import FencedError, JournalError
from yaoki.saga.records import RunState

if TYPE_CHECKING:
    from yaoki.saga.engine.engine import Engine

log = logging.getLogger("yaoki.saga")

# How often requests of people (`yk runs cancel`) are looked for, and runs without progress.
POLL_S = 0.5

# The same on a shared journal, which rings when there is something, so that looking is the safety net; each look is a query.
SHARED_POLL_S = 1.0

# How often somebody who waits for a run that another worker drives has its state looked up.
REMOTE_POLL_S = 0.2

# How often a worker of a shared journal looks which definitions have come, and whether some have no worker left.
SERVE_S = 15.0

# How long a run that has ended stays in the live tables of a shared journal, where its end is most asked for.
ARCHIVE_AFTER_S = 600.0
ARCHIVE_PAGE = 500

# How often it is said that runs wait for a person.
ALARM_S = 60.0

# Many bells at once are one.
COALESCE_S = 0.01


class Watch:
    """The eyes of one engine: one task, which never begins work of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rung: asyncio.Future[None] | None = None
        self._first: asyncio.TimerHandle | None = None
        self.looking: asyncio.Task[None] | None = None
        self._served_at = self._alarmed_at = 0.0
        self._told: dict[str, float] = {}  # runs that were said to be stuck, and when they last moved
        self.tidying: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look from now on. A journal of our own has nothing to tell before the first look, so there is no task before that, either."""
        self._served_at = self._alarmed_at = runtime.monotonic()
        if self._engine.journal.shared:
            self._open()
        else:
            self._first = asyncio.get_running_loop().call_later(self._at_most(POLL_S), self._open)

    def _open(self) -> None:
        self.looking = runtime.spawn(self._run(), name="yaoki-watch")

    def end(self) -> None:
        """Begin no task any more; one that looks is the caller's to cancel."""
        if self._first is not None:
            self._first.cancel()

    async def _run(self) -> None:
        while True:
            if self._first is None:
                await self._next_look()
            self._first = None
            if self._engine.fencing is not None:
                continue
            try:
                await self._look_everywhere()
            except FencedError:
                self._engine.fence()
            except JournalError:
                pass  # the server is away: there is always a next look
            except Exception:  # without its eyes a worker is no use, and nothing that they meet is worth that
                log.exception("a look at the journal failed, and the next one is made all the same")

    async def _look_everywhere(self) -> None:
        engine, now = self._engine, runtime.monotonic()
        if events.wanted():
            self._tell_stuck()
        await self._look()
        if engine.journal.shared and now - self._served_at > SERVE_S:
            self._served_at = now
            await engine.serve()
            await self._tell_stranded()
            await engine.settle_locks()
            await engine.floor.give_back_orphans()
            if self.tidying is None:
                self.tidying = runtime.spawn(self._tidy(), name="yaoki-tidy")
        if now - self._alarmed_at > ALARM_S:
            self._alarmed_at = now
            await engine.gates.look_now()  # of two operators at once, the later one's number may have been seen first
            await engine.gates.tell_blocked()

    async def _next_look(self) -> None:
        """Wait for the bell, or for the time of the next look."""
        loop = asyncio.get_running_loop()
        if not self._engine.journal.shared:
            await runtime.sleep(self._at_most(POLL_S))
            return
        self._rung = loop.create_future()
        timer = loop.call_later(self._at_most(REMOTE_POLL_S if self._remote() else SHARED_POLL_S), _release, self._rung)
        try:
            await self._rung
        finally:
            timer.cancel()
        await runtime.sleep(COALESCE_S)

    def _at_most(self, poll_s: float) -> float:
        """Sooner where a queue's rate lets more go before that."""
        journal = self._engine.journal
        return poll_s if journal.look_at == inf else min(poll_s, max(COALESCE_S, journal.look_at - journal.now()))

    def ring(self) -> None:
        """The journal has something for us."""
        if self._rung is not None:
            _release(self._rung)

    def _remote(self) -> list[str]:
        """Runs that somebody waits for here, and that are driven elsewhere."""
        engine = self._engine
        return [run_id for run_id in engine.waiters if run_id not in engine.floor.drivers]

    async def _look(self) -> None:
        engine = self._engine
        due, asked = await engine.journal.peek()
        await engine.gates.look()
        if due and engine.floor.room > 0:
            engine.intake.backlog = True
            engine.intake.feed()
        if asked or engine.requests.pending:
            await engine.requests.carry_out()
        if remote := self._remote():
            for header in await engine.journal.headers(remote):
                if (header.state.is_end or header.state is RunState.BLOCKED) and header.id not in engine.floor.drivers:
                    engine.waiters.answer(header)

    async def _tidy(self) -> None:
        journal = self._engine.journal
        try:
            while await journal.archive(journal.now() - ARCHIVE_AFTER_S, ARCHIVE_PAGE) == ARCHIVE_PAGE:
                await runtime.sleep(COALESCE_S)  # claims come first
        except JournalError:
            pass  # the server is away: there is always a next time
        finally:
            self.tidying = None

    async def _tell_stranded(self) -> None:
        for saga, graph, runs in await self._engine.journal.stranded() if events.wanted() else ():
            events.emit(events.RunsStranded(saga=saga, graph=graph, runs=runs))

    def _tell_stuck(self) -> None:
        now, drivers, told = runtime.monotonic(), self._engine.floor.drivers, self._told
        for run_id, driver in drivers.items():
            idle = now - driver.progress_at
            if idle > driver.saga.stuck_after and told.get(run_id) != driver.progress_at:
                told[run_id] = driver.progress_at
                events.emit(events.RunStuck(run=run_id, saga=driver.saga.name, idle_s=idle, waiting_for=driver.waiting_for))
        for run_id in [run_id for run_id in told if run_id not in drivers]:
            del told[run_id]


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
