"""Runs sagas: starts, recovers and finishes runs, a bounded number of them in memory, the rest waiting in the journal.

    start ──▶ journal.create ──durable──▶ room? ──yes──▶ a driver in memory ──▶ ... ──▶ ended: the next one is taken up
                                             └────no───▶ waits in the journal

The engine owns the journal. When a commit fails (disk full, lease lost) it halts: nothing more is begun, every waiter gets
the error, and the next start goes on from what is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from yaoki import events, runtime
from yaoki.errors import (
    DefinitionError,
    FencedError,
    InputError,
    JournalError,
    RunConflictError,
    RunError,
    RunNotFoundError,
    UsageError,
)
from yaoki.saga import codec
from yaoki.saga.brake import Brake
from yaoki.saga.define import Saga
from yaoki.saga.deploy import differences
from yaoki.saga.driver import Driver
from yaoki.saga.graph import Graph
from yaoki.saga.journal.port import Created, Journal, NewRun, Request, TransactionLost
from yaoki.saga.machine import HistoryError
from yaoki.saga.placing import PLAIN, Placing
from yaoki.saga.records import Abort, Header, Resolution, RunState, Stored
from yaoki.saga.waiting import check_answer

I = TypeVar("I")  # noqa: E741  a saga's input

log = logging.getLogger("yaoki.saga")

# How often requests of people (`yk runs cancel`) are looked for, and runs without progress.
POLL_S = 0.5

# The same on a shared journal, which rings when there is something, so that looking is the safety net; each look is a query.
SHARED_POLL_S = 1.0

# How often somebody who waits for a run that another worker drives has its state looked up.
REMOTE_POLL_S = 0.2

# Runs that are handed to the journal at once by a bulk start: a few full commits.
BULK = 4096

# How often a worker of a shared journal looks which definitions have come, and whether some have no worker left.
SERVE_S = 15.0

# How long a run that has ended stays in the live tables of a shared journal, where its end is most asked for.
ARCHIVE_AFTER_S = 600.0
ARCHIVE_PAGE = 500

# Many bells at once are one.
COALESCE_S = 0.01

# Runs taken from the journal at once: enough to fill commits, few enough that memory stays flat.
PAGE = 256


class Engine:
    """Drives the runs of some sagas on one journal.

    Args:
        journal: opened by `open`, closed by `close`.
        sagas: the definitions it can run; runs of others are left alone.
        concurrency: how many runs are in memory at once.
        queues: on a shared journal, take only runs of these; None: of all.
    """

    def __init__(self, journal: Journal, sagas: Iterable[Saga[Any]], *, concurrency: int = 1000,
                 queues: Iterable[str] | None = None) -> None:
        if concurrency < 1:
            raise UsageError(f"concurrency is at least 1, not {concurrency}", do="1000 is the default")
        self.journal = journal
        self.sagas: dict[str, Saga[Any]] = {}
        for saga in sagas:
            if self.sagas.setdefault(saga.name, saga) is not saga:
                raise DefinitionError(f"two sagas are called {saga.name!r}", do="rename one of them")
            _ = saga.graph  # checked before anything runs
        self.concurrency = concurrency
        self.queues = None if queues is None else list(queues)
        self.unfit: dict[str, str] = {}  # runs that the definitions at hand cannot go on with, and why
        self._drivers: dict[str, Driver] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waiters: dict[str, list[asyncio.Future[Header]]] = {}
        self._brakes = {saga.name: Brake(saga.brake) for saga in self.sagas.values()}
        self._backlog = False  # may the journal hold runs that wait for room?
        self._held: dict[str, list[str]] = {}  # by saga: runs that wait for its brake
        self._resumed: list[str] = []  # ... and those whose brake was released
        self._handed: set[int] = set()  # requests that a driver has, and has not answered yet
        self._answered: list[int] = []
        self._foreign: set[int] = set()  # requests for runs whose saga this engine does not have
        self._feeding: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False
        self._broken: Exception | None = None
        self._lives = 0  # how often this worker started again: what was taken in one life is not begun in the next
        self._fencing: asyncio.Task[None] | None = None  # under way while this worker drops its runs and starts again
        self._tidying: asyncio.Task[None] | None = None
        self._rung: asyncio.Future[None] | None = None
        self._starting = 0  # runs that will be kept, being made durable

    # ── opening and closing ──────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Own the journal, or join its owners, and take up unfinished runs."""
        self.journal.bell = self._ring
        self.journal.fenced = self._fence
        await self._join()
        self._backlog = True
        self._watching = runtime.spawn(self._watch(), name="yaoki-watch")
        self._feed()

    async def _join(self) -> None:
        await self.journal.open()
        for saga in self.sagas.values():
            await self.journal.save_graph(saga.graph.hash, saga.name, saga.graph.to_json())
        await self._serve()

    async def _serve(self) -> None:
        """Say which runs this engine can go on with: those of its own graphs, and of others that differ harmlessly."""
        can = {saga.graph.hash for saga in self.sagas.values()}
        for graph_hash, data in await self.journal.graphs(list(self.sagas)):
            old = Graph.from_json(data)
            if old.saga in self.sagas and not differences(old, self.sagas[old.saga].graph):
                can.add(graph_hash)
        await self.journal.serve(sorted(can), self.queues)

    async def close(self, *, grace_s: float = 10.0) -> None:
        """Begin nothing more, give steps under way `grace_s` seconds to end, and hand over the rest to the next start."""
        self._stopping = True
        for driver in self._drivers.values():
            driver.wake()
        for task in (self._watching, self._feeding, self._fencing, self._tidying):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._tasks and grace_s > 0:
            await asyncio.wait(self._tasks.values(), timeout=grace_s)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        closed = JournalError("the engine was closed before the run ended", do="open it again: the run goes on")
        for waiters in self._waiters.values():
            for waiter in waiters:
                _fail(waiter, self._broken or closed)
        if self._answered and self._broken is None:  # else people would be told that their decision still waits
            with contextlib.suppress(JournalError):
                await self.journal.carried_out(self._answered)
        await self.journal.close()

    # ── starting and asking ──────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, saga: Saga[I], input: I, *, id: str = "", traceparent: str = "",  # noqa: A002
                    placing: Placing = PLAIN) -> Header:
        """Start a run, or find the one that this id has. When it returns, the run is durable.

        Raises:
            InputError: the input is not what the saga takes.
            RunConflictError: a run of this id exists, with another saga or input.
            JournalError: it could not be made durable; it was not started.
        """
        new = self._new(saga, input, id, traceparent)
        braked = self._brakes[saga.name].is_on
        # On a shared journal whoever has room takes what is not kept; alone, that is decided once the run is durable.
        keep = not self.journal.shared or (not braked and self._has_room(self._starting))
        if placing is not PLAIN and not placing.is_plain:
            placing.check(shared=self.journal.shared)
            keep, new = False, placing.of(new, self.journal.now())
        elif not keep:
            new = PLAIN.of(new, 0.0)
        life = self._lives
        self._starting += keep
        try:
            created = await self._create(new)
        finally:
            self._starting -= keep
        header = created.header
        if not created.new:
            _same(header, new)
        elif braked and keep:
            self._held.setdefault(saga.name, []).append(header.id)
        elif keep and life == self._lives and (self.journal.shared or self._has_room()):
            self._begin(Stored(header, []), is_new=True)
        else:
            if keep and life == self._lives:
                self.journal.release(header.no)
            self._backlog = True
            self._feed()
        if created.new and events.wanted():
            events.emit(events.RunStarted(run=header.id, saga=header.saga))
        return header

    def _new(self, saga: Saga[I], input: I, id: str, traceparent: str) -> NewRun:  # noqa: A002
        if self._broken is not None or self._stopping:
            raise self._broken or JournalError("the engine is closing", do="start it again")
        if self.sagas.get(saga.name) is not saga:
            raise UsageError(f"saga {saga.name!r} was not given to this engine", do=f"open it with sagas=[..., {saga.name}]")
        now = self.journal.now()
        return NewRun(id or runtime.new_id(), saga.name, saga.graph.hash, _encoded(saga, input),
                      now + saga.deadline if saga.deadline else 0.0, traceparent, now, fresh=not id)

    async def start_many(self, saga: Saga[I], inputs: Iterable[tuple[str, I]], *, placing: Placing = PLAIN) -> int:
        """Start a run for each (id, input); returns how many were new. None is kept here: whoever has room takes them.

        An id that exists is left as it is, also if its input was another. Memory is bounded by a page, not by `inputs`.
        """
        placing.check(shared=self.journal.shared)
        fresh = 0
        for page in _pages((placing.of(self._new(saga, value, run_id, ""), self.journal.now()) for run_id, value in inputs), BULK):
            fresh += sum(created.new for created in await self._create_all(page))
            self._backlog = True
            self._feed()
        await self.journal.ring()
        return fresh

    async def _create_all(self, page: list[NewRun]) -> list[Created]:
        try:
            return await asyncio.gather(*[self.journal.create(new) for new in page])  # futures: a task each would cost more than the row
        except FencedError:  # a part of it may be there already, which harms nothing: an id is one run
            return [await self._create(new) for new in page]

    async def start_with(self, connection: Any, saga: Saga[I], input: I, *, id: str = "", traceparent: str = "",  # noqa: A002
                         placing: Placing = PLAIN) -> str:
        """Start a run in the caller's own transaction; returns its id. Raises NoTransactionError."""
        if not self.journal.shared:
            raise UsageError("connection= is for a journal in the database that holds your data", do="open a postgresql:// journal")
        from yaoki.saga.journal.postgres.joining import start_with  # noqa: PLC0415  only where it is used

        placing.check(shared=True)
        new = placing.of(self._new(saga, input, id, traceparent), self.journal.now())
        await start_with(connection, new)
        return new.id

    def _has_room(self, coming: int = 0) -> bool:
        return len(self._drivers) + coming < self.concurrency and not self._backlog and self._fencing is None

    async def _create(self, new: NewRun) -> Created:
        while True:
            try:
                return await self.journal.create(new)
            except FencedError:  # nothing was written, and this worker starts again
                self._fence()
                if self._fencing is None:
                    raise
                await asyncio.wait([self._fencing])
                new = msgspec.structs.replace(new, keep=False)  # for whoever has room now

    async def wait(self, run_id: str) -> Header:
        """Wait until the run has ended or is blocked. Raises RunNotFoundError."""
        waiter: asyncio.Future[Header] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(run_id, []).append(waiter)
        try:
            if run_id not in self._drivers:
                stored = await self.journal.read(run_id)
                if stored is None:
                    raise RunNotFoundError(f"there is no run {run_id!r}", do="check the id: `yk runs list`", run_id=run_id)
                if stored.header.state.is_end or stored.header.state is RunState.BLOCKED:
                    return stored.header
            if self._broken is not None:
                raise self._broken
            if run_id in self.unfit:
                raise _unfit(run_id, self.unfit[run_id])
            return await waiter
        finally:
            waiters = self._waiters.get(run_id, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(run_id, None)

    async def cancel(self, run_id: str, *, reason: str = "cancelled", who: str = "") -> None:
        """Ask the run to undo itself. After its pivot this changes nothing: it can only go forward."""
        await self._ask(run_id, "cancel", msgspec.json.encode({"reason": reason, "who": who}))

    async def resolve(self, run_id: str, step: str, decision: str, *, result: Any = None, who: str = "", why: str = "") -> None:
        """Decide about a blocked step: "retry", "done" (with its result) or "undone"."""
        if decision not in {"retry", "done", "undone"}:
            raise UsageError(f"a blocked step is resolved as 'retry', 'done' or 'undone', not {decision!r}",
                             do="see `yk help YK-4002`")
        decided = {"step": step, "decision": decision, "result": msgspec.Raw(codec.encode(result)), "who": who, "why": why}
        await self._ask(run_id, "resolve", msgspec.json.encode(decided))

    async def signal(self, run_id: str, name: str, answer: Any = None, *, who: str = "") -> None:
        """Answer what a run waits for, or will. The first answer counts. Raises RunNotFoundError, InputError."""
        found = await self.journal.headers([run_id])
        if not found:
            raise RunNotFoundError(f"there is no run {run_id!r}", do="check the id: `yk runs list`", run_id=run_id)
        data = codec.encode(answer)
        saga = self.sagas.get(found[0].saga)
        if saga is not None:
            check_answer(saga, name, data)
        asked = {"name": name, "answer": msgspec.Raw(data), "who": who}
        await self._ask(run_id, "signal", msgspec.json.encode(asked))

    def release_brake(self, saga: str) -> int:
        """Begin new runs of this saga again, those that waited first. Returns how many waited."""
        self._brakes[saga].release()
        held = self._held.pop(saga, [])
        self._resumed += held
        self._backlog = True
        self._feed()
        return len(held)

    async def _ask(self, run_id: str, kind: str, data: bytes) -> None:
        await self.journal.request(run_id, kind, data, runtime.unix_time())
        await self._carry_out_requests()

    # ── runs in memory ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def in_memory(self) -> int:
        return len(self._drivers)

    def _begin(self, stored: Stored, *, is_new: bool = False) -> Driver | None:
        header = stored.header
        saga = self.sagas.get(header.saga)
        if saga is None or self._stopping:
            return None
        if header.id in self._drivers:  # it was parked, and is due again before its driver has gone
            if self.journal.shared:
                self.journal.release(header.no)
                self._backlog = True
            return None
        try:
            driver = Driver(saga, stored, self.journal, self._is_stopping, self._answered.append, is_new=is_new)
        except (HistoryError, msgspec.ValidationError, KeyError) as error:
            self.unfit[header.id] = str(error)
            for waiter in self._waiters.pop(header.id, ()):
                _fail(waiter, _unfit(header.id, str(error)))
            if events.wanted():
                events.emit(events.RunBlocked(run=header.id, saga=header.saga, step="", reason=f"the code does not fit: {error}"))
            return None
        if not is_new and events.wanted():
            events.emit(events.RunRecovered(run=header.id, saga=header.saga, records=len(stored.records)))
        self._drivers[header.id] = driver
        self._tasks[header.id] = runtime.spawn(self._drive(driver), name=f"yaoki-run-{header.id}")
        return driver

    def _is_stopping(self) -> bool:
        return self._stopping or self._fencing is not None

    async def _drive(self, driver: Driver) -> None:
        run_id = driver.header.id
        try:
            state = await driver.drive()
        except asyncio.CancelledError:
            raise
        except FencedError:
            self._fence()
        except TransactionLost:  # the driver has run ahead of the history: begin again from what is durable
            self.journal.release(driver.header.no)
            self._backlog = True
        except Exception as error:
            if self.journal.shared and not isinstance(error, JournalError):
                self._leave_alone(driver.header, error)
            else:
                self._break(error)
        else:
            self._ended(driver, state)
        finally:
            self._handed.difference_update(driver.unanswered)  # they came too late for this driver: hand them out again
            del self._drivers[run_id], self._tasks[run_id]
            if self._backlog:
                self._feed()

    def _ended(self, driver: Driver, state: RunState) -> None:
        if not (state.is_end or state is RunState.BLOCKED):
            return  # handed over
        self._answer_waiters(driver.header)
        brake = self._brakes[driver.saga.name]
        if state.is_end and brake.ended(state is RunState.UNDONE) and events.wanted():
            events.emit(events.SagaPaused(saga=driver.saga.name, aborted=brake.undone, finished=brake.ended_runs))

    def _leave_alone(self, header: Header, error: Exception) -> None:
        """This run makes its driver fail. One run must not take a worker down with it, nor all workers in turn."""
        log.error("run %s is left alone: %s", header.id, error, exc_info=error)
        self.unfit[header.id] = str(error)
        for waiter in self._waiters.pop(header.id, ()):
            _fail(waiter, _unfit(header.id, str(error)))
        if events.wanted():
            events.emit(events.RunBlocked(run=header.id, saga=header.saga, step="", reason=f"its driver failed: {error}"))

    def _answer_waiters(self, header: Header) -> None:
        for waiter in self._waiters.pop(header.id, ()):
            if not waiter.done():
                waiter.set_result(header)

    def _break(self, error: Exception) -> None:
        """A record could not be made durable: begin nothing more, and tell everybody who waits.

        On a shared journal others go on with the runs, and this worker starts again.
        """
        if self.journal.shared:
            log.error("a run's driver failed, and this worker starts again: %s", error, exc_info=error)
            self._fence()
            return
        if self._broken is None:
            self._broken = error
            self._stopping = True
            for driver in self._drivers.values():
                driver.wake()
        for waiters in self._waiters.values():
            for waiter in waiters:
                _fail(waiter, error)

    def _fence(self) -> None:
        """This worker was declared dead: others have its runs, or soon will. Drop them all, and join again as a new one."""
        if self._fencing is None and not self._stopping:
            self._fencing = runtime.spawn(self._start_again(), name="yaoki-fenced")

    async def _start_again(self) -> None:
        self._lives += 1
        dropped = list(self._tasks.values())
        if events.wanted():
            events.emit(events.WorkerFenced(worker=self.journal.name, runs=len(dropped)))
        for task in dropped:
            task.cancel()
        if dropped:
            await asyncio.wait(dropped)
        self._handed.clear()
        self._answered.clear()
        while True:
            try:
                await self._join()
                break
            except JournalError:  # the server is away: without it there is nothing to do
                await runtime.sleep(SHARED_POLL_S)
        await runtime.sleep(COALESCE_S)
        self._fencing = None
        self._backlog = True
        self._feed()

    # ── taking up what waits ─────────────────────────────────────────────────────────────────────────────────────────

    def _feed(self) -> None:
        if self._feeding is None and not self._is_stopping():
            self._feeding = runtime.spawn(self._take_up(), name="yaoki-feed")

    async def _take_up(self) -> None:
        try:
            while self._backlog and not self._is_stopping() and (room := self.concurrency - len(self._drivers)) > 0:
                # Cleared before looking: whoever leaves a run in the journal meanwhile sets it again.
                self._backlog = False
                wanted = min(room, PAGE)
                life = self._lives
                page = await self._next_page(wanted)
                self._backlog = self._backlog or (bool(page) if self.journal.shared else len(page) == wanted)
                asked = await self._asked_of(page)
                if life != self._lives:
                    break
                for stored in page:
                    if not stored.records and self._brakes_hold(stored.header.saga):
                        self._held.setdefault(stored.header.saga, []).append(stored.header.id)
                    else:
                        self._begin(stored, is_new=self.journal.shared and stored.header.fence == 1)
                for request in asked:  # before the drivers' first turn: a blocked run was taken for nothing else
                    self._hand_out(request)
        except FencedError:
            self._fence()
        except JournalError as error:
            if not self.journal.shared:
                self._break(error)  # else the server is away for a while: the next look tries again
        finally:
            self._feeding = None

    async def _asked_of(self, page: list[Stored]) -> list[Request]:
        """What is asked of runs that were just taken on a shared journal; if that cannot be told now, they go back."""
        if not page or not self.journal.shared:
            return []
        try:
            return await self.journal.requests()
        except BaseException:
            for stored in page:
                self.journal.release(stored.header.no)
            raise

    async def _next_page(self, wanted: int) -> list[Stored]:
        if not self._resumed:
            return await self.journal.take(wanted)
        ids, self._resumed = self._resumed[:wanted], self._resumed[wanted:]
        self._backlog = True
        found = [await self.journal.take_one(run_id) for run_id in ids]
        return [stored for stored in found if stored is not None]

    def _brakes_hold(self, saga: str) -> bool:
        brake = self._brakes.get(saga)
        return brake is not None and brake.is_on

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _watch(self) -> None:
        told: dict[str, float] = {}
        served_at = runtime.monotonic()
        while True:
            await self._next_look()
            if self._fencing is not None:
                continue
            with contextlib.suppress(JournalError):
                await self._look()
                if self.journal.shared and runtime.monotonic() - served_at > SERVE_S:
                    served_at = runtime.monotonic()
                    await self._serve()
                    await self._tell_stranded()
                    if self._tidying is None:
                        self._tidying = runtime.spawn(self._tidy(), name="yaoki-tidy")
            if events.wanted():
                self._tell_stuck(told)

    async def _next_look(self) -> None:
        """Wait for the bell, or for the time of the next look."""
        loop = asyncio.get_running_loop()
        if not self.journal.shared:
            await runtime.sleep(POLL_S)
            return
        remote = any(run_id not in self._drivers for run_id in self._waiters)
        self._rung = loop.create_future()
        timer = loop.call_later(REMOTE_POLL_S if remote else SHARED_POLL_S, _release, self._rung)
        try:
            await self._rung
        finally:
            timer.cancel()
        await runtime.sleep(COALESCE_S)

    def _ring(self) -> None:
        if self._rung is not None:
            _release(self._rung)

    async def _look(self) -> None:
        due, asked = await self.journal.peek()
        if due and len(self._drivers) < self.concurrency:
            self._backlog = True
            self._feed()
        if asked or self._answered:
            await self._carry_out_requests()
        if remote := [run_id for run_id in self._waiters if run_id not in self._drivers]:
            for header in await self.journal.headers(remote):
                if (header.state.is_end or header.state is RunState.BLOCKED) and header.id not in self._drivers:
                    self._answer_waiters(header)

    async def _tidy(self) -> None:
        try:
            while await self.journal.archive(self.journal.now() - ARCHIVE_AFTER_S, ARCHIVE_PAGE) == ARCHIVE_PAGE:
                await runtime.sleep(COALESCE_S)  # claims come first
        except JournalError:
            pass  # the server is away: there is always a next time
        finally:
            self._tidying = None

    async def _tell_stranded(self) -> None:
        for saga, graph, runs in await self.journal.stranded() if events.wanted() else ():
            events.emit(events.RunsStranded(saga=saga, graph=graph, runs=runs))

    def _tell_stuck(self, told: dict[str, float]) -> None:
        now = runtime.monotonic()
        for run_id, driver in self._drivers.items():
            idle = now - driver.progress_at
            if idle > driver.saga.stuck_after and told.get(run_id) != driver.progress_at:
                told[run_id] = driver.progress_at
                events.emit(events.RunStuck(run=run_id, saga=driver.saga.name, idle_s=idle, waiting_for=driver.waiting_for))
        for run_id in [run_id for run_id in told if run_id not in self._drivers]:
            del told[run_id]

    def _hand_out(self, request: Request) -> bool:
        """Hand a request to its run's driver. False when it is not in memory."""
        driver = self._drivers.get(request.run)
        if driver is not None and request.no not in self._handed:
            self._handed.add(request.no)
            _hand(driver, request)
        return driver is not None

    async def _carry_out_requests(self) -> None:
        """Hand requests to the runs they are for. One is removed only when its run has recorded what came of it."""
        for request in await self.journal.requests():
            if request.no in self._handed or request.no in self._foreign:
                continue
            if request.kind == "resume":
                self.release_brake(msgspec.json.decode(request.data)["saga"])
                self._answered.append(request.no)
                continue
            if request.run not in self._drivers:
                stored = await self.journal.take_one(request.run)
                if stored is not None and stored.header.saga not in self.sagas:
                    self.journal.release(stored.header.no)
                    self._foreign.add(request.no)  # for an engine that has this saga's code
                    continue
                if stored is not None and request.run not in self._drivers:
                    self._begin(stored)
            if not self._hand_out(request):
                self._answered.append(request.no)  # no such run, or it has ended
        if self._answered:  # what came of them is durable
            answered, self._answered[:] = list(self._answered), []
            await self.journal.carried_out(answered)
            self._handed.difference_update(answered)


def _pages(runs: Iterable[NewRun], size: int) -> Iterator[list[NewRun]]:
    each = iter(runs)
    while page := list(itertools.islice(each, size)):
        yield page


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _hand(driver: Driver, request: Request) -> None:
    if request.kind == "resolve":
        asked = msgspec.json.decode(request.data, type=_Resolve)
        driver.ask("resolve", (asked.step, Resolution(asked.decision, asked.result, asked.who, asked.why)), request.no)
        return
    if request.kind == "signal":
        signal = msgspec.json.decode(request.data, type=_Signal)
        driver.ask("signal", (signal.name, bytes(signal.answer)), request.no)
        return
    data = msgspec.json.decode(request.data)
    if request.kind == "cancel":
        by = f" by {data['who']}" if data.get("who") else ""
        driver.ask("cancel", Abort(f"{data.get('reason') or 'cancelled'}{by}", cancelled=True), request.no)


class _Signal(msgspec.Struct):
    name: str
    answer: msgspec.Raw = msgspec.Raw(b"null")
    who: str = ""


class _Resolve(msgspec.Struct):
    step: str
    decision: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    who: str = ""
    why: str = ""


def _encoded(saga: Saga[I], value: I) -> bytes:
    takes = getattr(saga.input_type, "__name__", saga.input_type)
    try:
        data = codec.encode(value)
        saga.input.decode(data)
    except (TypeError, msgspec.ValidationError) as error:
        raise InputError(f"saga {saga.name!r} takes {takes}, and this is not one: {error}",
                         do="give it the type that the saga was defined with", saga=saga.name) from error
    return data


def _same(header: Header, new: NewRun) -> None:
    if header.saga != new.saga or header.input != new.input:
        what = f"of saga {header.saga!r}" if header.saga != new.saga else "with another input"
        raise RunConflictError(f"run {header.id!r} exists already, {what}", do="use another id, or start it with the same input",
                               run_id=header.id)


def _unfit(run_id: str, why: str) -> RunError:
    return RunError(f"run {run_id!r} does not fit the code: {why}", do="deploy the code that it was started with, or one that fits it",
                    run_id=run_id)


def _fail(waiter: asyncio.Future[Header], error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)
