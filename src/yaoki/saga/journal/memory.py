"""A journal in memory, for tests and for operations that need undo but no durability: it ends with the process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from yaoki.errors import JournalError, JournalLockedError
from yaoki.saga.journal.group import GroupCommit
from yaoki.saga.journal.locks import Claim
from yaoki.saga.journal.locks.memory import MemoryLocks
from yaoki.saga.journal.operations.memory import Desk, MemoryOperations
from yaoki.saga.journal.port import Append, Ask, Created, NewRun, OneOwner, Query, Request
from yaoki.saga.journal.registers import Register
from yaoki.saga.journal.registers.memory import MemoryRegisters
from yaoki.saga.records import Header, Record, RunState, Stored


class MemoryJournal(MemoryRegisters, MemoryLocks, MemoryOperations, OneOwner):
    """Keeps what is written, as long as the object lives: closing and opening it again is how tests restart an engine."""

    def __init__(self) -> None:
        self._headers: dict[int, Header] = {}
        self._records: dict[int, list[Record]] = {}
        self._numbers: dict[str, int] = {}
        self._taken: set[int] = set()
        self._parked: dict[int, float] = {}  # when to take them up again
        self._requests: dict[int, Request] = {}
        self._graphs: dict[str, bytes] = {}
        self._registers: dict[tuple[str, str], Register] = {}
        self._claims: dict[str, list[Claim]] = {}
        self._desk = Desk()
        self._next = 1
        self._next_request = 1
        self._owned = False
        self._group = GroupCommit(self._commit)

    async def open(self) -> None:
        if self._owned:
            raise JournalLockedError("this journal in memory is owned by another engine", do="close that one first")
        self._owned = True
        self._taken.clear()
        self._desk.turns.placed.clear()

    @property
    def is_bare(self) -> bool:
        return not (self._headers or self.shared)

    async def observe(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        await self._group.drain()
        self._owned = False

    def create(self, run: NewRun) -> Awaitable[Created]:
        return self._group.submit(run)

    def append(self, entry: Append) -> Awaitable[None]:
        return self._group.submit(entry)

    def _commit(self, batch: list[NewRun | Append]) -> asyncio.Future[list[Created | None]]:
        done: asyncio.Future[list[Created | None]] = asyncio.get_running_loop().create_future()
        try:
            done.set_result([self._write_one(each) for each in batch])
        except Exception as error:
            done.set_exception(error)
        return done

    def _write_one(self, operation: NewRun | Append) -> Created | None:
        if isinstance(operation, NewRun):
            return self._create(operation)
        self._append(operation)
        return None

    def _create(self, run: NewRun) -> Created:
        known = self._numbers.get(run.id)
        if known is not None:
            return Created(_copy(self._headers[known]), new=False)
        header = Header(no=self._next, id=run.id, saga=run.saga, graph=run.graph, state=RunState.RUNNING, input=run.input,
                        traceparent=run.traceparent, created_at=run.at, updated_at=run.at, deadline_at=run.deadline_at)
        self._next += 1
        self._headers[header.no] = header
        self._records[header.no] = []
        self._numbers[run.id] = header.no
        if run.keep:
            self._taken.add(header.no)
        if run.due_at:
            self._parked[header.no] = run.due_at
        self._place(header.no, run)
        self._records[header.no] += run.records
        if run.attributes:
            self._desk.attributes[header.no] = run.attributes
        return Created(_copy(header), new=True)

    def _append(self, entry: Append) -> None:
        records = self._records[entry.run]
        if len(records) != entry.seq:
            raise JournalError(f"run {entry.run} has {len(records)} records, not {entry.seq}", do="this is a bug: report it")
        records.extend(entry.records)
        header = self._headers[entry.run]
        header.updated_at = entry.at
        if entry.due_at is not None:
            self._parked[entry.run] = entry.due_at
            self._let_go(entry.run)
        if entry.state is not None:
            header.state, header.reason = entry.state, entry.reason
            if entry.state.is_end:
                header.result, header.finished_at = entry.result, entry.at
                self._let_go(entry.run)
            else:
                header.finished_at = 0.0
        for ask in entry.asks:
            self._ask(ask.run, ask.kind, ask.data, entry.at)

    async def transact(self, run: int, work: Callable[[Any], Any]) -> Append:
        """There is no transaction to share: `tx` is None."""
        del run
        made = work(None)
        entry: Append = await made if inspect.isawaitable(made) else made
        await self.append(entry)
        return entry

    async def move(self, run: int, entry: Append, graph: str) -> None:
        await self.append(entry)
        self._headers[run].graph = graph

    async def take(self, limit: int) -> list[Stored]:
        lanes = self._desk.lanes
        found = [self._taken_up(no) for no in self._take_from_queues(limit)] if lanes else []
        for no, header in self._headers.items():
            if len(found) == limit:
                break
            if no not in lanes and no not in self._taken and self._parked.get(no, 0.0) <= self.now() and header.state in {RunState.RUNNING, RunState.UNDOING}:
                found.append(self._taken_up(no))
        return found

    def _taken_up(self, no: int) -> Stored:
        self._taken.add(no)
        self._parked.pop(no, None)
        return self._stored(no)

    def _let_go(self, no: int) -> None:
        self._taken.discard(no)
        self._desk.turns.placed.pop(no, None)

    async def peek(self) -> tuple[bool, bool]:
        now = self.now()
        return any(due_at <= now for due_at in self._parked.values()), bool(self._requests)

    async def take_one(self, run_id: str) -> Stored | None:
        no = self._numbers.get(run_id)
        if no is None or self._headers[no].state.is_end:
            return None
        self._taken.add(no)
        self._parked.pop(no, None)
        return self._stored(no)

    async def take_ended(self, run_id: str) -> Stored | None:
        no = self._numbers.get(run_id)
        if no is None or self._headers[no].state is not RunState.COMPLETED:
            return None
        self._taken.add(no)
        return self._stored(no)

    def release(self, no: int) -> None:
        self._let_go(no)

    async def read(self, run_id: str) -> Stored | None:
        no = self._numbers.get(run_id)
        return None if no is None else self._stored(no)

    def _stored(self, no: int) -> Stored:
        lane = self._desk.lanes.get(no)
        return Stored(_copy(self._headers[no]), list(self._records[no]), lane[1] if lane else "default")

    async def search(self, query: Query) -> list[Header]:
        found = (_copy(header) for header in reversed(self._headers.values())
                 if _matches(header, query) and set(query.where) <= set(self._desk.attributes.get(header.no, ())))
        return [header for header, _ in zip(found, range(query.limit), strict=False)]

    async def counts(self, saga: str = "") -> dict[RunState, int]:
        found: dict[RunState, int] = {}
        for header in self._headers.values():
            if not saga or header.saga == saga:
                found[header.state] = found.get(header.state, 0) + 1
        return found

    async def purge(self, before: float, limit: int) -> int:
        old = [h for h in self._headers.values() if h.state.is_end and h.finished_at < before][:limit]
        for header in old:
            del self._headers[header.no], self._records[header.no], self._numbers[header.id]
            self._desk.lanes.pop(header.no, None)
            self._desk.attributes.pop(header.no, None)
        return len(old)

    async def request(self, run_id: str, kind: str, data: bytes, at: float) -> None:
        self._ask(run_id, kind, data, at)
        self._log_request(Ask(run_id, kind, data), at)

    def _ask(self, run_id: str, kind: str, data: bytes, at: float) -> None:
        self._requests[self._next_request] = Request(self._next_request, run_id, kind, data, at)
        self._next_request += 1

    async def requests(self) -> list[Request]:
        return list(self._requests.values())

    async def carried_out(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._requests.pop(number, None)

    async def save_graph(self, graph_hash: str, saga: str, graph: bytes) -> None:
        del saga
        self._graphs[graph_hash] = graph

    async def load_graph(self, graph_hash: str) -> bytes | None:
        return self._graphs.get(graph_hash)


def _copy(header: Header) -> Header:
    return msgspec.structs.replace(header)


def _matches(header: Header, query: Query) -> bool:
    return ((not query.states or header.state in query.states)
            and (not query.saga or header.saga == query.saga)
            and header.id.startswith(query.id_prefix)
            and (not query.since or header.created_at >= query.since)
            and (not query.until or header.created_at < query.until)
            and (not query.before_no or header.no < query.before_no)
            and (not query.idle_since or header.updated_at < query.idle_since))
