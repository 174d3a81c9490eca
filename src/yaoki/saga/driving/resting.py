"""When there is nothing to do for a run in memory: it waits here, or is given back to the journal."""

from __future__ import annotations

import asyncio
from math import inf

from yaoki.saga.driving.keeping import Keeping
from yaoki.saga.journal.operations import BLOCKED_UNTIL
from yaoki.saga.journal.port import Append
from yaoki.saga.records import RunState

# A wait that is over sooner than this stays in memory; a longer one is parked, and costs nothing but its row. Parking and being
# taken up again cost two commits.
REST_S = 2.0


class Resting(Keeping):
    """The part of a driver that waits."""

    @property
    def _held_up(self) -> frozenset[str]:
        """Steps that could run, but for a key that another run holds."""
        return self.locks.held_up if self.locks is not None and self.machine.abort is None else frozenset()

    def _due_at(self) -> float | None:
        """When to take the run up again, if there is nothing to do until then (inf: when somebody asks); else None."""
        machine = self.machine
        held_up = self._held_up
        if self._running or self._asked or self.is_stopping() or (machine.undo if machine.turns_back else set(machine.start) - held_up):
            return None
        if not (machine.waits or held_up or machine.state is RunState.BLOCKED) or machine.ripe(self.now()):
            return None
        at = self._wakes_at()
        if at == inf and machine.state is RunState.BLOCKED:
            at = BLOCKED_UNTIL
        return at if at - self.now() > REST_S else None

    def _wakes_at(self) -> float:
        machine, deadline = self.machine, self.header.deadline_at
        at = machine.wakes_at or inf
        return min(at, deadline) if deadline and not machine.abort and not machine.past_pivot else at

    @property
    def has_let_go(self) -> bool:
        """Has it given the run back to the journal, or is about to, so that it writes nothing more?"""
        return self._let_go or self._letting_go

    async def hand_back(self, delay_s: float) -> None:
        """Give the run to whoever takes it first, after a while: something is wrong with a step here. Nothing else runs."""
        notes, self.notes = tuple(self.notes), []
        for note in notes:
            self._take_in(note)
        seq = self._seq - len(notes)
        await self.journal.append(Append(self.header.no, seq, notes, at=self.now(), due_at=self.now() + delay_s))
        self._let_go = True

    async def _give_back(self, due_at: float) -> None:
        """Taken up for something that changed nothing: give it back as it was."""
        self._letting_go = True
        await self.journal.append(Append(self.header.no, self._seq, (), at=self.now(), due_at=due_at))
        self._let_go = True

    # ── waiting here ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _new_wake(self) -> asyncio.Future[None]:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakes.append(wake)
        return wake

    def wake(self) -> None:
        """Look again at what is asked for, and whether to stop."""
        for each in self._wakes:
            if not each.done():
                each.set_result(None)

    async def pause(self, delay_s: float) -> None:
        """Wait between two attempts; less when somebody asks for something meanwhile."""
        if self._asked or self.is_stopping():
            return
        wake = self._new_wake()
        timer = asyncio.get_running_loop().call_later(delay_s, _release, wake)
        try:
            await wake
        finally:
            timer.cancel()
            self._wakes.remove(wake)


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
