"""Keeps an app's schedules: looks when one is due, agrees with the other workers, and starts what is pending.

    read the book ──▶ decide ──compare and set──▶ start what is pending (an id is one run) ──compare and set──▶ note it
                                    └─somebody else has decided: read again

A worker may die between any two of these: the next look of any other goes on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki import events, runtime
from yaoki.errors import DefinitionError, InputError, JournalError, RunConflictError, YaokiError
from yaoki.saga import codec
from yaoki.saga.attributes import attributes_of
from yaoki.saga.journal.port import NORMAL
from yaoki.saga.queue import Queue
from yaoki.saga.schedule.book import Book, Entry
from yaoki.saga.schedule.plan import Firing, Plan, Spec, decide, ended, started, wakes_at

if TYPE_CHECKING:
    from yaoki.saga.define import Saga
    from yaoki.saga.engine import Engine

log = logging.getLogger("yaoki.saga")

# How often the book is read though nothing is due: somebody may have triggered or resumed a schedule.
LOOK_S = 5.0

# The same while a run is waited for, to start the next one.
BUSY_LOOK_S = 1.0


class Schedule(msgspec.Struct, frozen=True):
    """A schedule of this program: what the journal knows, and what only the program has."""

    spec: Spec
    saga: Any
    make: Callable[[datetime], Any] | None = None

    def input(self, firing: Firing) -> Any:
        """What the run of this firing starts with."""
        if self.make is not None:
            return self.make(datetime.fromtimestamp(firing.at, UTC))
        return self.saga.input.decode(self.spec.input.encode())


class Keeper:
    """The schedules of one engine. Without any it does nothing at all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._book = Book(engine.journal)
        self._schedules: dict[str, Schedule] = {}
        self._defined: set[str] = set()
        self._is_open = False
        self.task: asyncio.Task[None] | None = None
        for saga in engine.sagas.values():
            for name, how in saga.schedules.items():
                self.add(name, saga, **how)

    def add(self, name: str, saga: Saga[Any], *, cron: str = "", zone: str = "UTC", every: float | timedelta = 0.0, offset: float = 0.0,
            input: Any = None, overlap: str = "skip", catch_up: float = 3600.0, jitter: float = 0.0,  # noqa: A002
            queue: str | Queue = "", priority: int = NORMAL, tenant: str = "", attributes: Mapping[str, Any] | None = None) -> None:
        """As `App.schedule`. Raises ConfigError, DefinitionError, InputError."""
        every_s = every.total_seconds() if isinstance(every, timedelta) else float(every)
        spec = Spec(name, saga.name, cron=cron, zone=zone, every_s=every_s, offset_s=float(offset), overlap=overlap,
                    catch_up_s=float(catch_up), jitter_s=float(jitter), queue=queue if isinstance(queue, str) else queue.name, priority=priority,
                    tenant=tenant, attributes=dict(attributes_of(None, None, attributes)))
        if self._engine.sagas.get(saga.name) is not saga:
            raise DefinitionError(f"saga {saga.name!r} was not given to this app", do=f"open it with sagas=[..., {saga.name}]")
        if spec.name in self._schedules:
            raise DefinitionError(f"there is a schedule {spec.name!r} already", do="rename one of them")
        make = input if callable(input) else None
        if make is None:
            data = _encoded(spec.name, saga, input)
            spec = msgspec.structs.replace(spec, input=data.decode())
        spec.check()
        self._schedules[spec.name] = Schedule(spec, saga, make)
        if self._is_open:
            self.open()

    def open(self) -> None:
        """Begin to look, if there is something to look for."""
        self._is_open = True
        if self._schedules and self.task is None:
            self.task = runtime.spawn(self._keep(), name="yaoki-schedules")

    async def _keep(self) -> None:
        while True:
            wait_s = LOOK_S
            if not self._engine.is_stopping():
                with contextlib.suppress(JournalError):  # the server is away: the next look is soon
                    wait_s = await self.look()
            await runtime.sleep(wait_s)

    async def look(self) -> float:
        """Do what is due. Returns seconds until the next look."""
        for name in self._schedules.keys() - self._defined:
            await self._book.define(self._schedules[name].spec, self._engine.journal.now())
            self._defined.add(name)
        entries = await self._book.read()
        wait_s = LOOK_S
        for name in sorted(self._schedules):
            if name not in entries:
                continue  # somebody has removed it
            try:
                wait_s = min(wait_s, await self._one(self._schedules[name], entries[name]))
            except JournalError:
                raise
            except Exception:  # one schedule must not stop the others; it is looked at again, with all the others
                log.exception("schedule %s could not be kept", name)
        return wait_s

    async def _one(self, schedule: Schedule, entry: Entry) -> float:
        spec, when, now = entry.spec, entry.spec.when(), self._engine.journal.now()
        plan = ended(entry.plan, await self._running(entry.plan))
        plan = decide(spec, when, plan, now)
        if plan != entry.plan and not _is_idle(entry.plan, plan):
            if not await self._book.swap(entry, plan):
                return 0.05  # somebody else has decided: look what
            entry = Entry(spec, plan)
            if plan.left_out > entry.plan.left_out and events.wanted():
                events.emit(events.ScheduleLeftOut(schedule=spec.name, left_out=plan.left_out - entry.plan.left_out))
        if plan.cancelling:
            for run in plan.runs:
                await self._engine.cancel(run, reason=f"schedule {spec.name} starts the next one")
        if plan.pending:
            await self._start(schedule, entry)
        left_s = wakes_at(spec, when, plan) - self._engine.journal.now()
        return max(0.01, min(left_s, BUSY_LOOK_S if plan.held is not None or plan.pending else LOOK_S))

    async def _start(self, schedule: Schedule, entry: Entry) -> None:
        spec, queue = entry.spec, schedule.saga.queue
        placing = spec.placing(queue.name if queue is not None else "")
        for firing in entry.plan.pending:
            with contextlib.suppress(RunConflictError):  # another worker, of another version, has started it
                await self._engine.start(schedule.saga, schedule.input(firing), id=firing.id, placing=placing, attributes=spec.attributes)
            if events.wanted():
                events.emit(events.ScheduleFired(schedule=entry.spec.name, run=firing.id))
        ids = tuple(firing.id for firing in entry.plan.pending)
        with contextlib.suppress(YaokiError):  # removed meanwhile; whatever else, starting them again changes nothing
            await self._book.change(entry.spec.name, lambda known: started(known.plan, ids))

    async def _running(self, plan: Plan) -> frozenset[str]:
        if not plan.runs:
            return frozenset()
        return frozenset(header.id for header in await self._engine.journal.headers(plan.runs) if not header.state.is_end)


def _is_idle(before: Plan, after: Plan) -> bool:
    """Is nothing changed but how far a paused schedule has come? Not worth a commit each time."""
    return bool(after.paused) and msgspec.structs.replace(after, since=before.since) == before


def _encoded(name: str, saga: Saga[Any], value: Any) -> bytes:
    try:
        data = codec.encode(value)
        saga.input.decode(data)
    except (TypeError, msgspec.ValidationError) as error:
        raise InputError(f"schedule {name!r}: this is not what {saga.name} takes: {error}",
                         do="give input= of its type, or a function of the instant that returns one") from error
    return data
