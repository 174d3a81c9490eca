"""A simulated journal that several workers share: leases on the database's clock, and the fence.

It is a model of what `yaoki.saga.journal.postgres` does with the server, statement by statement: a worker registers, renews
its lease, claims runs that nobody owns, and commits a batch only while it has not been declared dead. That both decide alike
is a contract (`tests/contracts/test_shared_journals.py`). What the model leaves out is the connection: statements that are lost
or sent twice are for that journal's own tests.

    alive ──no renewal for lease_s──▶ dead (by whichever other one looks first; its runs are free) ──▶ its batches are refused
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import islice
from math import inf
from typing import Any

import msgspec

from yaoki import runtime
from yaoki.app import App
from yaoki.errors import FencedError
from yaoki.explore.shared_queues import LIMITED, PAUSED, QueuedPlatter, SharedQueues
from yaoki.explore.world import World
from yaoki.saga.define import Saga
from yaoki.saga.journal.port import Append, Created, NewRun, Request
from yaoki.saga.records import RunState, Stored

# The default lease of a worker on PostgreSQL, in seconds.
LEASE_S = 15.0
# A worker that could not renew for this share of its lease begins nothing more.
SURE = 0.8


class Worker(msgspec.Struct):
    """One row of the table of workers: an incarnation."""

    no: int
    name: str
    lease_until: float
    alive: bool = True


class SharedPlatter(QueuedPlatter):
    """What is durable: the runs, who owns them, and who is taken for alive."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.workers: dict[int, Worker] = {}
        self.asked = 0

    def digest(self) -> Any:
        alive = [(each.no, each.alive) for each in self.workers.values()]
        return super().digest(), sorted(self.owners.items()), alive, self.digest_of_queues()

    def reap(self, now: float) -> None:
        """Declare dead whose lease is over, and free what they own."""
        for worker in self.workers.values():
            if worker.alive and worker.lease_until < now:
                self.end(worker)

    def end(self, worker: Worker) -> None:
        worker.alive = False
        self.free(worker.no)

    def free(self, worker: int) -> None:
        for run in [run for run, owner in self.owners.items() if owner == worker]:
            del self.owners[run]


class SharedSimJournal(SharedQueues):
    """One worker's view of a shared journal.

    A claim waits until this worker has joined, and is made in the name of whoever it is by then, as on the server.

    Args:
        world, platter: as for `SimJournal`. name: the worker's.
        fencing: False leaves the fence out, and the check of the records' numbers, which is a second one, to see what they
            are for.
    """

    shared = True
    table: SharedPlatter

    def __init__(self, world: World, platter: SharedPlatter, name: str, *, fencing: bool = True) -> None:
        super().__init__(world, platter)
        self.name = name
        self.fencing = fencing
        self.table = platter
        self._me: Worker | None = None
        self._renewed_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._claiming = asyncio.Lock()  # one claim at a time, and none while it joins
        self._look_at = inf

    # ── the lease ──

    async def open(self) -> None:
        """Register a new incarnation."""
        self._stop()
        # What was given to the last incarnation fails with it: nothing may be written in the new one's name.
        await self._group.drain()
        async with self._claiming:
            if self._me is not None and self._me.alive:  # it leaves by its own will
                self.table.end(self._me)
            await self._answered()
            no = len(self.table.workers) + 1
            self._me = self.table.workers[no] = Worker(no, self.name, self.now() + LEASE_S)
        self._renew()

    async def close(self) -> None:
        await self._group.drain()
        self._stop()
        if self._me is not None:
            self.table.end(self._me)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _renew(self) -> None:
        """Renew, and see who is dead. Never later than a third of the lease, and just after the next one that may end."""
        me = self._me
        assert me is not None
        if self.fencing and not me.alive:
            self.fenced()
            return
        now = self.now()
        me.alive = True
        me.lease_until = now + LEASE_S
        self._renewed_at = runtime.monotonic()
        self.table.reap(now)
        next_end = min((each.lease_until for each in self.table.workers.values() if each.alive and each is not me), default=inf)
        self._timer = asyncio.get_running_loop().call_later(min(LEASE_S / 3, next_end - now + 0.05), self._renew)

    async def hold(self) -> None:
        """Nobody begins an effect in doubt about the lease."""
        while self.fencing and runtime.monotonic() - self._renewed_at > SURE * LEASE_S and self._me is not None and self._me.alive:
            await runtime.sleep(0.05)

    def _pass_fence(self, me: Worker | None) -> int:
        """A lease that has run out, and that nobody has seen run out, is renewed by this: nothing of its worker's was given away."""
        assert me is not None
        if self.fencing and not me.alive:
            if me is self._me:
                self.fenced()
            raise FencedError(f"worker {self.name} was declared dead", do="nothing: it starts again by itself", worker=self.name)
        me.lease_until = self.now() + LEASE_S
        return me.no

    # ── runs ──

    def _torn(self, batch: list[NewRun | Append]) -> None:
        """The server's disk is the server's; of a batch under way nothing arrives."""

    def _writer(self) -> Callable[[NewRun | Append], Created | None]:
        return partial(self._write_as, self._me)  # who sends it, not who we are by the time it arrives

    def _write_one(self, operation: NewRun | Append) -> Created | None:
        return self._write_as(self._me, operation)

    def _write_as(self, sender: Worker | None, operation: NewRun | Append) -> Created | None:
        me = self._pass_fence(sender)
        if isinstance(operation, NewRun):
            # The numbers are the database's, not this worker's.
            self._next = max(self._headers, default=0) + 1
            created = self._create(operation)
            if created.new and operation.keep:
                self.table.owners[created.header.no] = me
                self._headers[created.header.no].fence = created.header.fence = 1
            return created
        if not self.fencing:
            operation = msgspec.structs.replace(operation, seq=len(self._records[operation.run]))
        self._append(operation)
        if operation.due_at is not None:
            self.table.owners.pop(operation.run, None)
            if any(each.run == self._headers[operation.run].id for each in self._requests.values()):
                self._parked[operation.run] = self.now()  # somebody asked for something meanwhile
        elif operation.state is RunState.BLOCKED:  # should its owner die: a person decides, and nobody else
            self._parked[operation.run] = inf
        elif operation.state is not None and self._parked.get(operation.run) == inf:
            del self._parked[operation.run]
        return None

    def _is_free(self, no: int) -> bool:
        return no not in self.table.owners and not self._headers[no].state.is_end and self._parked.get(no, 0.0) <= self.now()

    async def take(self, limit: int) -> list[Stored]:
        """From queues with limits first. Looking costs nothing; claiming is a statement, at which a worker can die or stand still."""
        self._pass_fence(self._me)
        found = await self._claimed("claim-limited", LIMITED, self._claim_limited, limit) if self._has_room(limit) else []
        if len(found) == limit:
            return found
        try:
            return found + await self._claimed("claim", 0, self._claim_free, limit - len(found))
        except BaseException:
            for stored in found:
                self.release(stored.header.no)
            raise

    async def _claimed(self, what: str, gate: int, claim: Callable[[Worker | None, int], list[Stored]], limit: int) -> list[Stored]:
        if not any(True for _ in self._free_behind(gate)):
            return []
        async with self._claiming:
            found = await self._said(what, partial(claim, self._me, limit))
        try:
            if found:
                await self._answered()  # their histories are read by a query of its own
        except BaseException:
            for stored in found:
                self.release(stored.header.no)
            raise
        return found

    async def _answered(self) -> None:
        """The server answers in its own time. No place for a fault: nobody could see what is lost there."""
        if self._world is not None:
            await runtime.sleep(2 * self._world.latency_s)

    def _claim_free(self, sender: Worker | None, limit: int) -> list[Stored]:
        me, free = self._pass_fence(sender), self._free_behind(0)
        if self._desk.lanes:  # urgent ones first
            free = sorted(free, key=lambda no: self.table.lane_of(no)[2])
        return [self._claim(no, me) for no in list(islice(free, limit))]

    def _claim_limited(self, sender: Worker | None, limit: int) -> list[Stored]:
        me = self._pass_fence(sender)
        return [self._claim(no, me) for no in self.table.admitted(list(self._free_behind(LIMITED)), me, limit, self.now())]

    def _has_room(self, limit: int) -> bool:
        """May a queue with limits give something to this worker? Else claiming from it is no statement worth dying at."""
        assert self._me is not None
        left, self._look_at = self.table.room(list(self._free_behind(LIMITED)), self._me.no, limit, self.now())
        return any(left.values())

    @property
    def look_at(self) -> float:
        """When a queue that its rate holds back may give more to this worker."""
        return self._look_at

    async def take_one(self, run_id: str) -> Stored | None:
        self._pass_fence(self._me)
        async with self._claiming:
            me, no = self._pass_fence(self._me), self._numbers.get(run_id)
            if no is None or self._headers[no].state.is_end or self.table.owners.get(no, me) != me:
                return None
            return self._claim(no, me)

    def _claim(self, no: int, me: int) -> Stored:
        self.table.owners[no] = me
        self._parked.pop(no, None)
        self._headers[no].fence += 1
        return self._stored(no)

    async def owned(self) -> list[tuple[int, str]]:
        me = self._me.no if self._me is not None else None
        return [(no, self._headers[no].id) for no, owner in sorted(self.table.owners.items()) if owner == me and not self._headers[no].state.is_end]

    def release(self, no: int) -> None:
        if self._me is not None and self.table.owners.get(no) == self._me.no:
            del self.table.owners[no]

    async def peek(self) -> tuple[bool, bool]:
        return any(self.table.gate_of(no) != PAUSED for no in self._headers if self._is_free(no)), bool(self._requests)

    def _ask(self, run_id: str, kind: str, data: bytes, at: float) -> None:
        self.table.asked += 1
        self._next_request = self.table.asked  # the numbers are the database's, as those of runs
        super()._ask(run_id, kind, data, at)
        self._make_due(run_id)

    def _make_due(self, run_id: str) -> None:
        no = self._numbers.get(run_id)
        if no is not None and no not in self.table.owners and no in self._parked:
            self._parked[no] = min(self._parked[no], self.now())

    async def requests(self) -> list[Request]:
        me = self._me.no if self._me is not None else 0
        for each in self._requests.values():  # what was asked before its run was there, or in the moment in which it was parked
            self._make_due(each.run)
        return [each for each in self._requests.values() if self._numbers.get(each.run) is None
                or self.table.owners.get(self._numbers[each.run]) == me or self._headers[self._numbers[each.run]].state.is_end]


def open_worker(world: World, name: str, *sagas: Saga[Any], journal: str = "journal", fencing: bool = True, work: bool = True) -> App:
    """Make the app of one worker among several, on a shared simulated journal.

    Args:
        work: does it take runs up? Else it only starts them, and asks.
    """
    platter = next((each for each in world.journals if each.name == journal), None)
    if platter is None:
        platter = SharedPlatter(journal)
        world.journals.append(platter)
        world.circular.append(platter.kept)
    platter.sagas.update({saga.name: saga for saga in sagas})
    app = App(SharedSimJournal(world, platter, name, fencing=fencing), sagas, concurrency=100, grace=10.0, work=work)
    world.circular += (app.engine, app.journal)
    world.decides_by_time("workers hold leases")
    return app
