"""Makes a run durable, and decides who drives it: this engine if it has room, else whoever has."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from yaoki import events, runtime
from yaoki.errors import FencedError, InputError, JournalError, RunConflictError, UsageError
from yaoki.saga import codec
from yaoki.saga.attributes import attributes_of
from yaoki.saga.define import Saga
from yaoki.saga.journal.port import Created, NewRun
from yaoki.saga.placing import PLAIN, Placing
from yaoki.saga.records import Header, Stored

if TYPE_CHECKING:
    from yaoki.saga.engine.engine import Engine

I = TypeVar("I")  # noqa: E741  a saga's input

# Runs that are handed to the journal at once by a bulk start: a few full commits.
BULK = 4096


class Starting:
    """Starts runs of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._coming = 0  # runs that will be kept, being made durable
        self.adopting: set[asyncio.Task[None]] = set()

    async def one(self, saga: Saga[I], value: I, run_id: str, *, traceparent: str, placing: Placing,
                  attributes: Mapping[str, Any] | None = None) -> Header:
        engine = self._engine
        journal, intake = engine.journal, engine.intake
        new, decoded = self._new(saga, value, run_id, traceparent, attributes)
        braked = intake.is_braked(saga.name)
        # On a shared journal whoever has room takes what is not kept; alone, that is decided once the run is durable.
        keep = not journal.shared or (not braked and self._has_room(self._coming))
        if (placing is not PLAIN and not placing.is_plain) or engine.gates.waits(saga.name, new.id, placing.queue):
            placing.check()
            keep, new = False, placing.of(new, journal.now())
        elif not keep:
            new = PLAIN.of(new, 0.0)
        life = engine.lives
        self._coming += keep
        try:
            created = await self.create(new)
        except asyncio.CancelledError:
            if keep:
                self._adopt(new)
            raise
        finally:
            self._coming -= keep
        header = created.header
        if not created.new:
            _same(header, new)
        elif braked and keep:
            intake.hold(saga.name, header.id)
        elif keep and life == engine.lives and (journal.shared or self._has_room()):
            engine.floor.begin(Stored(header, []), is_new=True, value=decoded)
        else:
            if keep and life == engine.lives:
                journal.release(header.no)
            intake.backlog = True
            intake.feed()
        if created.new and events.wanted():
            events.emit(events.RunStarted(run=header.id, saga=header.saga))
        return header

    async def many(self, saga: Saga[I], inputs: Iterable[tuple[str, I]], placing: Placing) -> int:
        engine = self._engine
        placing.check()
        fresh = 0
        for page in _pages((placing.of(self._new(saga, value, run_id, "")[0], engine.journal.now()) for run_id, value in inputs), BULK):
            fresh += sum(created.new for created in await self._create_all(page))
            engine.intake.backlog = True
            engine.intake.feed()
        await engine.journal.ring()
        return fresh

    async def within(self, connection: Any, saga: Saga[I], value: I, run_id: str, *, traceparent: str, placing: Placing,
                     attributes: Mapping[str, Any] | None = None) -> str:
        from yaoki.saga.journal.postgres.joining import start_with  # noqa: PLC0415  only where it is used

        new = self.prepared(saga, value, run_id, traceparent=traceparent, placing=placing, attributes=attributes)
        await start_with(connection, new)
        return new.id

    def prepared(self, saga: Saga[I], value: I, run_id: str, *, traceparent: str, placing: Placing,
                 attributes: Mapping[str, Any] | None = None) -> NewRun:
        """A run for who writes it himself, in a transaction of his own."""
        if not self._engine.journal.shared:
            raise UsageError("connection= is for a journal in the database that holds your data", do="open a postgresql:// journal")
        placing.check()
        return placing.of(self._new(saga, value, run_id, traceparent, attributes)[0], self._engine.journal.now())

    def _new(self, saga: Saga[I], value: I, run_id: str, traceparent: str,
             attributes: Mapping[str, Any] | None = None) -> tuple[NewRun, I]:
        """The run to be made, and its input as its steps will see it."""
        engine = self._engine
        if engine.broken is not None or engine.stopping:
            raise engine.broken or JournalError("the engine is closing", do="start it again")
        if engine.sagas.get(saga.name) is not saga:
            raise UsageError(f"saga {saga.name!r} was not given to this engine", do=f"open it with sagas=[..., {saga.name}]")
        now = engine.journal.now()
        data, decoded = _encoded(saga, value)
        return NewRun(run_id or runtime.new_id(), saga.name, saga.graph.hash, data, now + saga.deadline if saga.deadline else 0.0,
                      traceparent, now, fresh=not run_id, attributes=attributes_of(saga.attributes, decoded, attributes)), decoded

    def _adopt(self, new: NewRun) -> None:
        """Who starts this run has stopped waiting for it. It is on its way all the same, and will be ours, so we go on with it."""
        task = runtime.spawn(self._go_on_with(new), name=f"yaoki-adopt-{new.id}")
        self.adopting.add(task)
        task.add_done_callback(self.adopting.discard)

    async def _go_on_with(self, new: NewRun) -> None:
        engine = self._engine
        with contextlib.suppress(JournalError):  # then it is not there, or is not ours any more
            async with engine.requests.taking:
                life = engine.lives
                await engine.journal.create(msgspec.structs.replace(new, keep=False))  # answered after the first one
                stored = await engine.journal.take_one(new.id)
                if stored is not None and life == engine.lives:
                    engine.floor.begin(stored)

    def _has_room(self, coming: int = 0) -> bool:
        engine = self._engine
        return engine.works and engine.floor.room > coming and not engine.intake.backlog and engine.fencing is None

    async def create(self, new: NewRun) -> Created:
        """Make a run durable, also if this worker has to start again for it."""
        engine = self._engine
        while True:
            try:
                return await engine.journal.create(new)
            except FencedError:  # nothing was written, and this worker starts again
                engine.fence()
                if engine.fencing is None:
                    raise
                await asyncio.wait([engine.fencing])
                new = msgspec.structs.replace(new, keep=False)  # for whoever has room now

    async def _create_all(self, page: list[NewRun]) -> list[Created]:
        try:
            # Futures: a task each would cost more than the row.
            return await asyncio.gather(*[self._engine.journal.create(new) for new in page])
        except FencedError:  # a part of it may be there already, which harms nothing: an id is one run
            return [await self.create(new) for new in page]


def _pages(runs: Iterable[NewRun], size: int) -> Iterator[list[NewRun]]:
    each = iter(runs)
    while page := list(itertools.islice(each, size)):
        yield page


def _encoded(saga: Saga[I], value: I) -> tuple[bytes, I]:
    """As JSON, and as what is read back from it. Raises InputError."""
    try:
        data = codec.encode(value)
        return data, saga.input.decode(data)
    except (TypeError, msgspec.ValidationError) as error:
        takes = getattr(saga.input_type, "__name__", saga.input_type)
        raise InputError(f"saga {saga.name!r} takes {takes}, and this is not one: {error}",
                         do="give it the type that the saga was defined with", saga=saga.name) from error


def _same(header: Header, new: NewRun) -> None:
    if header.saga != new.saga or header.input != new.input:
        what = f"of saga {header.saga!r}" if header.saga != new.saga else "with another input"
        raise RunConflictError(f"run {header.id!r} exists already, {what}", do="use another id, or start it with the same input",
                               run_id=header.id)
