"""Takes up runs that wait in the journal, when there is room; holds back those of a saga whose brake is on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from yaoki import events, runtime
from yaoki.errors import FencedError, JournalError
from yaoki.saga.brake import Brake
from yaoki.saga.journal.port import Request
from yaoki.saga.records import RunState, Stored

if TYPE_CHECKING:
    from yaoki.saga.engine.engine import Engine

# Runs taken from the journal at once: enough to fill commits, few enough that memory stays flat.
PAGE = 256


class Intake:
    """Feeds the floor, a page at a time, one page after the other."""

    def __init__(self, engine: Engine) -> None:
        self.backlog = False  # may the journal hold runs that wait for room?
        self._engine = engine
        self._brakes = {saga.name: Brake(saga.brake) for saga in engine.sagas.values()}
        self._held: dict[str, list[str]] = {}  # by saga: runs that wait for its brake
        self._resumed: list[str] = []  # ... and those whose brake was released
        self.feeding: asyncio.Task[None] | None = None

    def feed(self) -> None:
        """Take up what waits, unless it is certain that nothing does."""
        if self._engine.journal.is_bare:
            self.backlog = False
        elif self.feeding is None and self._engine.works and not self._engine.is_stopping():
            self.feeding = runtime.spawn(self._take_up(), name="yaoki-feed")

    async def _take_up(self) -> None:
        engine = self._engine
        try:
            while self.backlog and not engine.is_stopping() and (room := engine.floor.room) > 0:
                async with engine.requests.taking:
                    if not await self._take_page(min(room, PAGE)):
                        break
        except FencedError:
            engine.fence()
        except JournalError as error:
            if not engine.journal.shared:
                engine.fail(error)  # else the server is away for a while: the next look tries again
        finally:
            self.feeding = None

    async def _take_page(self, wanted: int) -> bool:
        """Take up to so many runs, and begin them. False: this worker has started again meanwhile, and they are not its own."""
        engine = self._engine
        self.backlog = False  # before looking: whoever leaves a run in the journal meanwhile sets it again
        life = engine.lives
        page = await self._next_page(wanted)
        self.backlog = self.backlog or (bool(page) if engine.journal.shared else len(page) == wanted)
        asked = await self._asked_of(page)
        if life != engine.lives:
            engine.floor.give_back(page)
            return False
        for stored in page:
            if not stored.records and self.is_braked(stored.header.saga):
                self.hold(stored.header.saga, stored.header.id)
            else:
                engine.floor.begin(stored, is_new=engine.journal.shared and stored.header.fence == 1)
        for request in asked:  # before the drivers' first turn: a blocked run was taken for nothing else
            engine.requests.hand_out(request)
        return True

    async def _next_page(self, wanted: int) -> list[Stored]:
        journal = self._engine.journal
        if not self._resumed:
            return await journal.take(wanted)
        self.backlog = True
        found: list[Stored] = []
        try:
            while self._resumed and len(found) < wanted:
                if (stored := await journal.take_one(self._resumed[0])) is not None:
                    found.append(stored)
                del self._resumed[:1]
        except BaseException:  # nobody will drive them
            for stored in found:
                journal.release(stored.header.no)
            raise
        return found

    async def _asked_of(self, page: list[Stored]) -> list[Request]:
        """What is asked of runs that were just taken on a shared journal; if that cannot be told now, they go back."""
        journal = self._engine.journal
        if not page or not journal.shared:
            return []
        try:
            return await journal.requests()
        except BaseException:
            for stored in page:
                journal.release(stored.header.no)
            raise

    # ── brakes ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def is_braked(self, saga: str) -> bool:
        brake = self._brakes.get(saga)
        return brake is not None and brake.is_on

    def holds(self, run_id: str) -> bool:
        """Does this run wait here for a brake?"""
        return run_id in self._resumed or any(run_id in held for held in self._held.values())

    def hold(self, saga: str, run_id: str) -> None:
        """Let this run wait until the brake of its saga is released."""
        self._held.setdefault(saga, []).append(run_id)

    def forget(self) -> None:
        """This worker starts again: the runs that waited here were given back with all others."""
        self._held.clear()
        self._resumed.clear()

    def release_brake(self, saga: str) -> int:
        """Begin new runs of this saga again, those that waited first. Returns how many waited."""
        if saga in self._brakes:  # it may be of another engine
            self._brakes[saga].release()
        held = self._held.pop(saga, [])
        self._resumed += held
        self.backlog = True
        self.feed()
        return len(held)

    def ended(self, saga: str, state: RunState) -> None:
        """Count the end of a run; too many that were undone put the brake on."""
        brake = self._brakes[saga]
        if state.is_end and brake.ended(state is RunState.UNDONE) and events.wanted():
            events.emit(events.SagaPaused(saga=saga, aborted=brake.undone, finished=brake.ended_runs))
