"""The engine itself: opens its journal, takes in what is asked, closes, breaks, and starts again.

It owns the journal. When a commit fails (disk full, lease lost) it halts: nothing more is begun, every waiter gets the
error, and the next start goes on from what is durable. On a shared journal others go on with its runs meanwhile, and it
starts again by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from yaoki import events, runtime
from yaoki.errors import DefinitionError, JournalError, RunNotFoundError, UsageError
from yaoki.saga.child import children_of
from yaoki.saga.define import Saga
from yaoki.saga.deploy import definition_of
from yaoki.saga.engine.floor import Floor, unfit
from yaoki.saga.engine.forks import Forks
from yaoki.saga.engine.gates import Gates
from yaoki.saga.engine.intake import Intake
from yaoki.saga.engine.kin import Kin
from yaoki.saga.engine.requests import Requests
from yaoki.saga.engine.starting import Starting
from yaoki.saga.engine.waiters import Waiters
from yaoki.saga.engine.watch import COALESCE_S, SHARED_POLL_S, Watch
from yaoki.saga.graph import Graph
from yaoki.saga.journal.port import Journal
from yaoki.saga.mapping import can_run
from yaoki.saga.placing import PLAIN, Placing
from yaoki.saga.queue import Queue
from yaoki.saga.records import Header, RunState
from yaoki.saga.schedule.keeper import Keeper

I = TypeVar("I")  # noqa: E741  a saga's input

log = logging.getLogger("yaoki.saga")


class Engine:
    """Drives the runs of some sagas on one journal.

    Args:
        journal: opened by `open`, closed by `close`.
        sagas: the definitions it can run; runs of others are left alone.
        concurrency: how many runs are in memory at once.
        queues: take only runs of these, on a shared journal; None: of all.
        limits: queues whose limits are declared to the journal, besides those of the sagas.
        works: does it take runs up? Else it only starts them, and asks.
    """

    def __init__(self, journal: Journal, sagas: Iterable[Saga[Any]], *, concurrency: int = 1000,
                 queues: Iterable[str] | None = None, limits: Iterable[Queue] = (), works: bool = True) -> None:
        if concurrency < 1:
            raise UsageError(f"concurrency is at least 1, not {concurrency}", do="1000 is the default")
        self.journal = journal
        self.sagas: dict[str, Saga[Any]] = {}
        for saga in children_of(sagas):
            if self.sagas.setdefault(saga.name, saga) is not saga:
                raise DefinitionError(f"two sagas are called {saga.name!r}", do="rename one of them")
            _ = saga.graph  # checked before anything runs
        self.queues = None if queues is None else list(queues)
        self.works = works
        self.stopping = False
        self.broken: Exception | None = None
        self.lives = 0  # how often this worker started again: what was taken in one life is not begun in the next
        self.fencing: asyncio.Task[None] | None = None  # under way while this worker drops its runs and starts again
        self.waiters = Waiters()
        self.floor = Floor(self, concurrency)
        self.intake = Intake(self)
        self.requests = Requests(self)
        self.starting = Starting(self)
        self.kin = Kin(self)
        self.forks = Forks(self)
        self.gates = Gates(self, [*limits, *(saga.queue for saga in self.sagas.values() if saga.queue is not None)])
        self.watch = Watch(self)
        self.keeper = Keeper(self)

    # ── opening and closing ──────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Own the journal, or join its owners, and take up unfinished runs."""
        self.journal.bell = self.watch.ring
        self.journal.fenced = self.fence
        await self._join()
        self.intake.backlog = True
        self.watch.begin()
        self.intake.feed()
        self.keeper.open()

    async def _join(self) -> None:
        await self.journal.open()
        for saga in self.sagas.values():
            await self.journal.save_graph(saga.graph.hash, saga.name, definition_of(saga))
        await self.gates.declare()
        await self.serve()
        await self.settle_locks()

    async def settle_locks(self) -> None:
        """Sweep up after runs that ended when nobody was there to wake who waits for their keys, or to forget their signs of life."""
        traces = keys = False
        for saga in self.sagas.values():
            traces = traces or saga.leaves_traces
            keys = keys or bool(saga.keys)
        if traces:
            await self.journal.sweep_registers()
        if keys:
            await self.journal.settle_locks()

    async def serve(self) -> None:
        """Say which runs this engine can go on with: those of its own graphs, and of others that differ harmlessly."""
        if not self.journal.shared:  # it tries every run, for there is nobody else who could
            return
        can = {saga.graph.hash for saga in self.sagas.values()}
        for graph_hash, data in await self.journal.graphs(list(self.sagas)):
            old = Graph.from_json(data)
            if old.saga in self.sagas and can_run(self.sagas[old.saga], old):
                can.add(graph_hash)
        await self.journal.serve(sorted(can) if self.works else [], self.queues)

    async def close(self, *, grace_s: float = 10.0) -> None:
        """Begin nothing more, give steps under way `grace_s` seconds to end, and hand over the rest to the next start."""
        self.stopping = True
        self.floor.wake()
        self.watch.end()
        for task in (self.watch.looking, self.keeper.task, self.intake.feeding, self.fencing, self.watch.tidying, self.kin.carrying,
                     *self.starting.adopting):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self.floor.drop(grace_s=grace_s)
        if self.waiters:
            closed = JournalError("the engine was closed before the run ended", do="open it again: the run goes on")
            self.waiters.fail_all(self.broken or closed)
        if self.broken is None:
            await self.requests.tick_off()
        await self.journal.close()

    def is_stopping(self) -> bool:
        return self.stopping or self.fencing is not None

    @property
    def in_memory(self) -> int:
        """How many runs are driven at this moment."""
        return len(self.floor)

    @property
    def unfit(self) -> dict[str, str]:
        """Runs that were set aside because the code does not fit them, and why."""
        return self.floor.unfit

    # ── starting and asking ──────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, saga: Saga[I], input: I, *, id: str = "", traceparent: str = "",  # noqa: A002
                    placing: Placing = PLAIN, attributes: Mapping[str, Any] | None = None) -> Header:
        """Start a run, or find the one that this id has. When it returns, the run is durable.

        Raises:
            InputError: the input is not what the saga takes.
            RunConflictError: a run of this id exists, with another saga or input.
            JournalError: it could not be made durable; it was not started.
        """
        return await self.starting.one(saga, input, id, traceparent=traceparent, placing=placing, attributes=attributes)

    async def start_many(self, saga: Saga[I], inputs: Iterable[tuple[str, I]], *, placing: Placing = PLAIN) -> int:
        """Start a run for each (id, input); returns how many were new. None is kept here: whoever has room takes them.

        An id that exists is left as it is, also if its input was another. Memory is bounded by a page, not by `inputs`.
        """
        return await self.starting.many(saga, inputs, placing)

    async def start_with(self, connection: Any, saga: Saga[I], input: I, *, id: str = "", traceparent: str = "",  # noqa: A002
                         placing: Placing = PLAIN, attributes: Mapping[str, Any] | None = None) -> str:
        """Start a run in the caller's own transaction; returns its id. Raises NoTransactionError."""
        return await self.starting.within(connection, saga, input, id, traceparent=traceparent, placing=placing, attributes=attributes)

    async def wait(self, run_id: str) -> Header:
        """Wait until the run has ended or is blocked. Raises RunNotFoundError."""
        waiter = self.waiters.add(run_id)
        try:
            if run_id not in self.floor.drivers:
                stored = await self.journal.read(run_id)
                if stored is None:
                    raise RunNotFoundError(f"there is no run {run_id!r}", do="check the id: `yk runs list`", run_id=run_id)
                if stored.header.state.is_end or stored.header.state is RunState.BLOCKED:
                    return stored.header
            if self.broken is not None:
                raise self.broken
            if run_id in self.unfit:
                raise unfit(run_id, self.unfit[run_id])
            return await waiter
        finally:
            self.waiters.remove(run_id, waiter)

    async def cancel(self, run_id: str, *, reason: str = "cancelled", who: str = "") -> None:
        """Ask the run to undo itself. After its pivot this changes nothing: it can only go forward."""
        await self.requests.cancel(run_id, reason, who)

    async def resolve(self, run_id: str, step: str, decision: str, *, result: Any = None, who: str = "", why: str = "") -> None:
        """Decide about a blocked step: "retry", "done" (with its result) or "undone"."""
        await self.requests.resolve(run_id, step, decision, result, who=who, why=why)

    async def signal(self, run_id: str, name: str, answer: Any = None, *, who: str = "") -> None:
        """Answer what a run waits for, or will. The first answer counts. Raises RunNotFoundError, InputError."""
        await self.requests.signal(run_id, name, answer, who)

    def release_brake(self, saga: str) -> int:
        """Begin new runs of this saga again, those that waited first. Returns how many waited."""
        return self.intake.release_brake(saga)

    # ── when it goes wrong ───────────────────────────────────────────────────────────────────────────────────────────

    def fail(self, error: Exception) -> None:
        """A record could not be made durable: begin nothing more, and tell everybody who waits.

        On a shared journal others go on with the runs, and this worker starts again.
        """
        if self.journal.shared:
            log.error("a run's driver failed, and this worker starts again: %s", error, exc_info=error)
            self.fence()
            return
        if self.broken is None:
            self.broken = error
            self.stopping = True
            self.floor.wake()
        self.waiters.fail_all(error)

    def fence(self) -> None:
        """This worker was declared dead: others have its runs, or soon will. Drop them all, and join again as a new one."""
        if self.fencing is None and not self.stopping:
            self.fencing = runtime.spawn(self._start_again(), name="yaoki-fenced")

    async def _join_at_last(self) -> None:
        while True:
            try:
                await self._join()
            except JournalError:  # the server is away: without it there is nothing to do
                await runtime.sleep(SHARED_POLL_S)
            except Exception:  # to give up would leave a worker that looks alive and does nothing
                log.exception("worker %s cannot start again, and goes on trying", self.journal.name)
                await runtime.sleep(SHARED_POLL_S)
            else:
                return

    async def _start_again(self) -> None:
        self.lives += 1
        if events.wanted():
            events.emit(events.WorkerFenced(worker=self.journal.name, runs=len(self.floor)))
        await self.floor.drop()
        async with self.requests.taking:  # a claim under way would come through in the name of the new life, and nobody would drive it
            self.requests.forget()
            self.intake.forget()
            await self._join_at_last()
            await runtime.sleep(COALESCE_S)
            self.fencing = None
        self.intake.backlog = True
        self.intake.feed()
