"""The simulated journal: the real one in memory, on a platter that outlives its process, with a point before each commit.

What a commit acknowledged is on the platter; what was waiting for one when the power failed is gone. A torn write leaves half of its
batch there, and whoever opens the journal next drops it (`torn.py`); a bit that turns over while a history is read back is found by its
checksum. That SQLite does so too is for `sqlite_journal`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import lru_cache, partial
from typing import Any, TypeVar

import msgspec

from yaoki.chaos.faults import At
from yaoki.errors import JournalLockedError
from yaoki.explore.dialect import DISK
from yaoki.explore.process import Life, owner
from yaoki.explore.torn import TornTail
from yaoki.explore.world import Variants, World
from yaoki.saga.define import Saga
from yaoki.saga.graph import Graph
from yaoki.saga.journal.group import GroupCommit
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Append, Created, NewRun
from yaoki.saga.journal.sums import damaged, record_sum
from yaoki.saga.machine import HistoryError, Machine
from yaoki.saga.records import Kind, Record, Stored

T = TypeVar("T")


class Platter:
    """What is durable of one journal. Every life of the process opens a new `SimJournal` on it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept = MemoryJournal()
        self.sagas: dict[str, Saga[Any]] = {}
        self.held_by: tuple[SimJournal | None, Life | None] = (None, None)
        self.torn = TornTail()
        self.sums: dict[int, int] = {}  # of runs of which a bit has turned over: the checksum of what was written

    def outcomes(self) -> dict[str, str]:
        """State of each run, by id."""
        return {header.id: header.state._value_ for header in self.kept._headers.values()}

    def audit(self) -> str:
        """What is wrong with a history, or ""."""
        for number, header in self.kept._headers.items():
            saga = self.sagas.get(header.saga)
            if saga is None or number in self.sums:  # of a damaged history nothing can be said
                continue
            # The value of an enum's member, without the detour by which it is asked for.
            records = tuple([(record.kind._value_, record.step, record.data) for record in self.kept._records[number]])
            if said := _fault_of(saga.graph, records, header.state._value_):
                return f"run {header.id} {said}"
        return ""

    def digest(self) -> Any:
        """Everything durable that a later run could depend on: not the times, and not what is told for people."""
        runs = [(header.id, header.state.value, [(record.kind.value, record.step, record.data) for record in self.kept._records[number]
                                                 if record.kind is not Kind.ATTEMPTS])
                for number, header in self.kept._headers.items()]
        if not (self.kept._registers or self.kept._claims or self.kept._requests):
            return runs
        asked = [(request.run, request.kind, request.data) for request in self.kept._requests.values()]
        registers = [(key, found.data) for key, found in self.kept._registers.items()]
        return runs, asked, registers, [(key, [claim.run for claim in queue]) for key, queue in self.kept._claims.items()]


class SimJournal(MemoryJournal):
    """One life of a journal in a universe.

    Args:
        world: the universe; None: none, every commit succeeds at once.
        platter: what is durable.
    """

    def __init__(self, world: World | None, platter: Platter) -> None:
        self._world = world
        self._platter = platter
        # What is kept is the platter's own; which runs are taken, and what waits for a commit, dies with the process.
        vars(self).update(vars(platter.kept))
        self._taken = set()
        self._owned = False
        self._group = GroupCommit(self._commit)
        self._next = max(self._headers, default=0) + 1
        self._next_request = max(self._requests, default=0) + 1

    async def open(self) -> None:
        """Own the platter. A power cut frees it, as the operating system frees a dead process's lock."""
        holder, life = self._platter.held_by
        if holder is not None and holder is not self and (life is None or life.alive):
            raise JournalLockedError(f"journal {self._platter.name!r} is owned by another engine", do="close that one first")
        self._platter.torn.recover()
        await super().open()
        self._platter.held_by = (self, owner.get())

    async def close(self) -> None:
        await super().close()
        if self._platter.held_by[0] is self:
            self._platter.held_by = (None, None)

    def _commit(self, batch: list[NewRun | Append]) -> asyncio.Future[list[Created | None]]:
        world = self._world
        if world is None:
            return super()._commit(batch)
        write = partial(self._write_batch, batch, self._writer(), owner.get())
        return world.call(self._platter.name, what_is_committed(batch), write, kind=At.COMMIT, dialect=DISK, timeout_s=None, variants=self._torn(batch))

    def _torn(self, batch: list[NewRun | Append]) -> Variants | None:
        return {"disk.torn": partial(self._platter.torn.write, self._platter.kept, batch, self._write_one)}

    def _write_batch(self, batch: list[NewRun | Append], write_one: Callable[[NewRun | Append], Created | None],
                     life: Life | None) -> list[Created | None]:
        answers = list(map(write_one, batch))
        world = self._world
        if world is not None and world.states is not None and life is not None:
            self._forget(batch, life.heard)
        return answers

    async def _beside(self, what: str, write: Callable[[], T]) -> T:
        if self._world is None:
            return write()
        return await self._world.call(self._platter.name, what, write, kind=At.COMMIT, dialect=DISK, timeout_s=None)  # type: ignore[no-any-return]

    def _writer(self) -> Callable[[NewRun | Append], Created | None]:
        """What writes the operations of the batch that is sent now."""
        return self._write_one

    # ── reading back ──

    def _taken_up(self, no: int) -> Stored:
        return self._read_back(super()._taken_up(no))

    async def take_one(self, run_id: str) -> Stored | None:
        stored = await super().take_one(run_id)
        return None if stored is None else self._read_back(stored)

    async def read(self, run_id: str) -> Stored | None:
        stored = await super().read(run_id)
        if stored is not None and self._platter.sums and (damage := self._damage_of(stored)):
            raise damaged(run_id, damage)
        return stored

    def _read_back(self, stored: Stored) -> Stored:
        """A history is read from the platter: a place where a bit may turn over."""
        if self._world is not None and stored.records:
            self._world.call_blocking(self._platter.name, "load", lambda: None, kind=At.LOAD, dialect=DISK, timeout_s=None,
                                      variants={"disk.bitrot": partial(self._rot, stored)})
        if self._platter.sums:
            stored.damage = self._damage_of(stored)
        return stored

    def _rot(self, stored: Stored) -> None:
        """One bit of the last record that has any: on the platter, and in what has just been read."""
        records, number = self._records[stored.header.no], stored.header.no
        seq = max((seq for seq, record in enumerate(records) if record.data), default=0)
        self._platter.sums.setdefault(number, _sum_of(number, records))
        records[seq] = stored.records[seq] = msgspec.structs.replace(records[seq], data=turned(records[seq].data))

    def _damage_of(self, stored: Stored) -> str:
        number = stored.header.no
        kept = self._platter.sums.get(number)
        return "" if kept is None or _sum_of(number, stored.records) == kept else "its records do not fit their checksum"

    def _forget(self, batch: list[NewRun | Append], heard: dict[str, bytes]) -> None:
        """A step whose end is recorded: the answers on the way there decide nothing any more."""
        for each in batch:
            for record in each.records if isinstance(each, Append) else ():
                run = self._headers[each.run].id  # type: ignore[union-attr]
                for step in (record.step, f"{record.step}!undo"):
                    heard.pop(step, None)
                    heard.pop(f"{run}/{step}", None)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits: all of what it does is in memory, or its threads run in place."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    work.close()
    raise AssertionError("a journal in a universe waited for something")


def turned(data: bytes) -> bytes:
    """With one bit of its middle turned over."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:] if data else b"\1"


def _sum_of(run: int, records: list[Record]) -> int:
    return sum(record_sum(run, seq, record.kind.value, record.step, record.data) for seq, record in enumerate(records))


@lru_cache(8192)
def _fault_of(graph: Graph, records: tuple[tuple[str, str, bytes], ...], state: str) -> str:
    """What is wrong with a history. The machine is pure, and thousands of executions leave the same few histories."""
    machine = Machine(graph)
    try:
        for kind, step, data in records:
            machine.apply(Record(Kind(kind), step, data))
    except HistoryError as error:
        return f"has a history that no run can have: {error}"
    return "" if machine.state.value == state else f"says {state}, and its history says {machine.state.value}"


def what_is_committed(batch: list[NewRun | Append]) -> str:
    """A name for a commit that outlives edits: what it records, of its first run."""
    first = batch[0]
    if len(batch) == 1 and type(first) is Append and len(first.records) == 1:  # most commits
        record = first.records[0]
        return f"{record.kind._value_}:{record.step}" if record.step else record.kind._value_
    if isinstance(first, NewRun):
        said = "start"
    elif not first.records:
        said = "rest"
    else:
        last = first.records[-1]
        if last.kind is Kind.ABORT:
            last = next((record for record in reversed(first.records) if record.kind is not Kind.ABORT), last)
        said = f"{last.kind._value_}:{last.step}" if last.step else last.kind._value_
    return said if len(batch) == 1 else f"{said}~{len(batch)}"
