"""Drives one run: asks the machine what is next, does it, records what came of it, and only then goes on.

    machine ──what is next──▶ attempts (`attempt.py`) ──a record──▶ journal ──durable──▶ machine ...

One task a run. A step that is alone is awaited in that task; steps side by side get a task each. A record is durable
before anything that depends on it begins.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from yaoki import runtime
from yaoki.saga.attempt import Attempts, attempt_plainly
from yaoki.saga.child import end_of_child
from yaoki.saga.driving.answering import Answering
from yaoki.saga.journal.operations import BLOCKED_UNTIL, PAUSED_UNTIL
from yaoki.saga.journal.port import Append
from yaoki.saga.outside.external import end_of_external, end_of_silence
from yaoki.saga.records import Record, RunState
from yaoki.saga.waiting import end_of_wait

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Driver(Answering):
    """One run in memory, and the loop that drives it. How it is made, and what it has: `driving.keeping.Keeping`."""

    async def drive(self) -> RunState:
        """Go on until the run has ended, is blocked, or is to be handed over. Returns its state then."""
        self._set_deadline()
        machine, running = self.machine, self._running
        try:
            if self._mapped is not None:
                await self._move(self._mapped)
            if self._seq and (self._lost() or machine.failed or machine.is_taken_back):  # it was undoing itself, or about to, when its process died
                await self.write()
            while not self._let_go:
                if self._asked:
                    await self._answer()
                    continue
                if machine.waits and (ripe := machine.ripe(self.now())):
                    if ended := [record for name, data in ripe for record in await self._ends(name, data)]:
                        await self.write(*ended)
                    continue
                undoing = machine.turns_back
                work = [] if self.is_stopping() else machine.undo if undoing else machine.start
                if running:
                    work = [name for name in work if name not in running]
                if self.saga.has_tx and not undoing and len(work) + len(running) > 1:
                    work = self._beside(work)
                if self.locks is not None and work and not undoing:
                    work = await self.locks.allowed(work)
                if len(work) == 1 and not running:  # alone: no task of its own
                    self.waiting_for = work[0]
                    record = await self._attempts(work[0], undo=undoing)
                    if record is not None:
                        await self.write(record)
                elif work or running:
                    for name in work:
                        running[name] = runtime.spawn(self._attempts(name, undo=undoing), name=f"yaoki-{self.header.id}-{name}")
                    await self._next_result()
                elif self.header.state.is_end and not machine.waits:
                    break
                elif (due_at := self._due_at()) is not None:
                    await self._give_back(due_at)
                elif (machine.waits or self._held_up) and not self.is_stopping():
                    await self.pause(max(0.0, self._wakes_at() - self.now()))
                else:
                    break
            if machine.state.is_end and not self.header.state.is_end:  # taken up to be undone, and then it was not to be
                await self.write()
            elif self.held and not self._let_go and not machine.state.is_end:
                self.parked = True
                await self._give_back(BLOCKED_UNTIL if machine.state is RunState.BLOCKED else PAUSED_UNTIL)
            return machine.state
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            if running:
                await self._abandon()

    def _beside(self, work: list[str]) -> list[str]:
        """What may run now where some steps run alone: the others first, then those one at a time."""
        steps = self.saga.steps
        return [name for name in work if not steps[name].tx] or ([] if self._running else work[:1])

    def _attempts(self, name: str, *, undo: bool) -> Coroutine[Any, Any, Record | None]:
        step = self.saga.steps[name]
        if not undo and name in self.saga.plain:
            return attempt_plainly(self, step)
        return Attempts(self, step, undo=undo).run()

    async def _ends(self, name: str, data: bytes | None) -> list[Record]:
        """The record that ends a wait; none where a sign of life prolongs it."""
        wait = self.saga.steps[name].wait
        if self.saga.steps[name].child and data is not None:
            return [end_of_child(self.machine, self.saga.steps[name], data, self.now())]
        if wait is None or wait.kind != "token":
            return [end_of_wait(self.saga, name, data, self.now())]
        return [end_of_external(self, name, data, self.now())] if data is not None else await end_of_silence(self, name)

    async def _move(self, mapped: Record) -> None:
        """Write how the history is told from now on, and put the run under this definition."""
        entry, graph = Append(self.header.no, self._seq, (mapped,), at=self.now()), self.saga.graph.hash
        await self.journal.move(self.header.no, entry, graph)
        self._seq += 1
        self.header.graph, self._mapped = graph, None

    # ── steps side by side ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _next_result(self) -> None:
        """Wait for steps side by side, or for somebody to ask for something; write what is there."""
        self.waiting_for = ", ".join(self._running)
        wake = self._new_wake()
        try:
            waited: list[asyncio.Future[Any]] = [*self._running.values(), wake]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._wakes.remove(wake)
            wake.cancel()
        ended = [name for name, task in self._running.items() if task.done()]
        records = [self._running.pop(name).result() for name in ended]
        if written := [record for record in records if record is not None]:
            await self.write(*written)

    async def _abandon(self) -> None:
        """Only when this driver itself is cancelled or fails: its steps go with it, and are in doubt."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
