"""The journal's port on PostgreSQL. See `statements.py` for the fence, and `docs/explanation/fencing.md` for why it holds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from yaoki import events, runtime
from yaoki.errors import FencedError, JournalError
from yaoki.saga.journal.group import GroupCommit
from yaoki.saga.journal.locks.postgres import PostgresLocks
from yaoki.saga.journal.port import Append, Created, NewRun, Query, Request, TransactionLost
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.columns import BatchColumns, Lane, lane_of
from yaoki.saga.journal.postgres.kin import CLAIM_ENDED, asks_of, recall, send_asking
from yaoki.saga.journal.postgres.lease import Lease
from yaoki.saga.journal.postgres.link import BACKOFF, Connection, Link, Target, is_lost
from yaoki.saga.journal.postgres.past import archive, drop_days
from yaoki.saga.journal.postgres.schema import prepare
from yaoki.saga.journal.postgres.stepping import CommitLost, transacted
from yaoki.saga.journal.registers.postgres import PostgresRegisters
from yaoki.saga.records import Header, Kind, Record, RunState, Stored

KINDS = {kind.value: kind for kind in Kind}
STATES = {state.value: state for state in RunState}

# What one lane gives at a time at least. Small, so that a tenant with a million runs leaves room for another's ten.
LANE_SHARE = 8

# So many writers at once take turns (`group.py`). A run costs the program some 40 µs between two of its commits, and a commit takes
# one to two milliseconds, so below this the server waits for them no longer than a second commit would take.
TURNS = 128

# The longest wait for a batch under way when closing; the server may be gone.
CLOSE_S = 10.0


def _nothing() -> None:
    """For who does not listen."""


class PostgresJournal(PostgresRegisters, PostgresLocks):
    """Runs in a PostgreSQL database that any number of workers share.

    Args:
        url: `postgresql://user@host/database?lease=15`; `bouncer=yes` behind PgBouncer in transaction mode.
        durability: "power", or "process": commits are not awaited on the server's disk.
        name: how this worker is called in `yk workers`; the host and process by default.
    """

    shared = True

    def __init__(self, url: str, *, durability: str = "power", name: str = "") -> None:
        self.target = Target.of(url, durability=durability)
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.incarnation = 0
        self.bell: Callable[[], None] = _nothing  # called when there may be something to take or to carry out
        self.fenced: Callable[[], None] = _nothing  # called when this worker was declared dead
        self._group = GroupCommit(self._commit, turns=TURNS)
        self._writer = Link(self.target, "writer", patience_s=None)
        self._side = Link(self.target, "claims", patience_s=10.0, connected=self._listen)
        self._lease: Lease | None = None
        self._graphs: list[str] | None = None
        self._queues: list[str] | None = None
        self._batch = 0
        self._claim = 0
        self._claiming = asyncio.Lock()
        self._lanes: dict[Lane, int] = {}
        self._held: set[int] = set()  # what this incarnation owns, as far as it knows
        self._released: list[int] = []
        self._unsure = False  # was the last claim given up on, so that nobody knows what became of it?
        self._offset = 0.0  # the server's clock less our monotonic one
        self._lost: FencedError | None = None

    # ── opening and closing ──────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Register a new incarnation. After a `FencedError` it may be called again."""
        try:
            await self._register()
        except BaseException:
            await self.close()
            raise

    async def _register(self) -> None:
        await self._end_lease()
        # What was given to the last incarnation fails with it, all of it: nothing may be written in the new one's name.
        await self._group.drain()
        async with self._claiming:
            if self.incarnation and self._lost is None:  # it leaves by its own will: others need not wait for its lease to end
                await self._side.execute(sql.LEAVE, self.incarnation)
            await self._join()

    async def _join(self) -> None:
        await self._side.run(prepare)
        began = runtime.monotonic()
        (row,) = await self._side.fetch(sql.REGISTER, self.name, socket.gethostname(), os.getpid(), self.target.lease_s,
                                        self._graphs or [], self._queues or [])
        self._offset = float(row["now"]) - (began + runtime.monotonic()) / 2
        self.incarnation, self._batch, self._claim, self._lost = row["no"], 0, 0, None
        self._held.clear()
        self._released.clear()
        self._unsure = False
        await self._learn_lanes()
        self._lease = Lease(self.target, self.incarnation, self._was_fenced)
        self._lease.start()
        if events.wanted():
            events.emit(events.WorkerJoined(worker=self.name, incarnation=self.incarnation))

    async def observe(self) -> None:
        try:
            await self._side.run(_must_be_there)
        except BaseException:
            await self._side.close()
            raise

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._group.drain(), CLOSE_S)
        await self._end_lease()
        if self.incarnation and self._lost is None:
            with contextlib.suppress(JournalError):
                await self._side.execute(sql.LEAVE, self.incarnation)
        self.incarnation = 0
        await self._writer.close()
        await self._side.close()

    async def drain(self) -> None:
        """Say that this worker takes nothing more, and finishes what it has."""
        await self._side.execute(sql.DRAIN, self.incarnation)

    async def serve(self, graphs: Sequence[str], queues: Sequence[str] | None = None) -> None:
        """Take only runs of these definitions (hashes), and of these queues."""
        self._graphs = list(graphs)
        self._queues = None if queues is None else list(queues)
        await self._side.execute(sql.SERVE, self.incarnation, self._graphs, self._queues or [])

    async def _end_lease(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            await runtime.run_blocking(lease.stop)

    def _was_fenced(self) -> None:
        if self._lost is None:
            self._lost = FencedError(f"worker {self.name} was declared dead: it gave no sign of life for its lease of "
                                     f"{self.target.lease_s:g} s", do="nothing: it starts again by itself, and others go on with its runs; "
                                     "if it happens often, give a longer lease or more CPU", worker=self.name)
            self.fenced()

    def now(self) -> float:
        """Seconds since 1970 by the server's clock, as well as it was last measured."""
        offset = self._lease.server_offset if self._lease is not None and self._lease.server_offset else self._offset
        return offset + runtime.monotonic()

    async def hold(self) -> None:
        """Wait until this worker is sure to be alive in the eyes of the others: nobody begins an effect in doubt."""
        while self._lease is not None and self._lease.in_doubt and self._lost is None:
            await runtime.sleep(0.05)

    @property
    def is_sure(self) -> bool:
        return self._lease is not None and not self._lease.in_doubt

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def create(self, run: NewRun) -> Awaitable[Created]:
        return self._group.submit(run)

    def append(self, entry: Append) -> Awaitable[None]:
        return self._group.submit(entry)

    async def _commit(self, batch: list[NewRun | Append]) -> list[Created | None]:
        """Write a batch once, however often it has to be sent."""
        if self._lost is not None:
            raise self._lost
        columns = BatchColumns(batch)
        if columns.created:
            await self._know_lanes(columns.created)
        incarnation, number = self.incarnation, self._batch + 1
        statement = sql.CREATE if columns.created else sql.APPEND
        asks = asks_of(batch)
        values = columns.values(self._lanes)
        sent_at = 0.0

        async def send(connection: Connection) -> list[Any]:
            nonlocal sent_at
            sent_at = runtime.monotonic()
            if asks:
                rows = await send_asking(connection, statement, [incarnation, number, *values], asks)
            else:
                rows = await connection.fetch(statement, incarnation, number, *values)
            return rows or await self._sent_before(connection, number)

        rows = await self._writer.run(send)
        self._batch = number
        if self._lease is not None:
            self._lease.renewed(sent_at)
        answers = await self._answers(columns.created, rows) if columns.created else {}
        self._held.difference_update(columns.let_go)
        return [answers[id(each)] if isinstance(each, NewRun) else None for each in batch]

    async def transact(self, run: int, work: Callable[[Any], Any]) -> Append:
        incarnation = self.incarnation
        connection = await self._another_connection()
        try:
            entry = await transacted(connection, incarnation, work, self._was_refused)
        except CommitLost as lost:
            # Two statements, so that the second sees what the first one waited for.
            await self._side.fetch("SELECT no FROM yaoki.run WHERE no = $1 FOR UPDATE", run)
            (row,) = await self._side.fetch(sql.STEP_FOUND, run, lost.entry.seq)
            if not row[0]:
                raise TransactionLost from lost
            entry = lost.entry
        finally:
            connection.terminate()
        if entry.due_at is not None or (entry.state is not None and entry.state.is_end):
            self._held.discard(run)
        return entry

    async def _another_connection(self) -> Connection:
        """For a step's own transaction; waits while the server is away, for that is not the step's failure."""
        failures = 0
        while True:
            try:
                return await self.target.connect("step")
            except Exception as error:
                if self._lost is not None:
                    raise self._lost from error
                if not is_lost(error):
                    raise
            failures += 1
            await runtime.sleep(BACKOFF.delay(failures, 0.0, runtime.rng()))

    def _was_refused(self) -> FencedError:
        self._was_fenced()
        assert self._lost is not None
        return self._lost

    async def _sent_before(self, connection: Connection, number: int) -> list[Any]:
        """The fence did not let the batch through: was it there already, or are we dead?"""
        row = await connection.fetchrow(sql.DID_COMMIT, self.incarnation)
        if row is not None and row["batch"] == number:
            if events.wanted():
                events.emit(events.DoubtSettled(worker=self.name))
            return []
        if events.wanted():
            events.emit(events.BatchRefused(worker=self.name))
        self._was_fenced()
        assert self._lost is not None
        raise self._lost

    async def _answers(self, runs: list[NewRun], rows: list[Any]) -> dict[int, Created]:
        made = {row["id"]: row["no"] for row in rows if row["no"] is not None and row["id"] is not None} if rows else {}
        others = [run.id for run in runs if run.id not in made]
        found: dict[str, tuple[Header, int | None]] = {}
        if others:
            for statement in (sql.PAST_BY_IDS, sql.BY_IDS):
                for row in await self._writer.fetch(statement, others):
                    found[row["id"]] = (_header(row), row["owner"] if statement is sql.BY_IDS else None)
        answers: dict[int, Created] = {}
        for run in runs:
            no = made.pop(run.id, None)
            if no is not None:
                header, new = _made(run, no), True
                found[run.id] = (header, None)
            else:
                header, owner = found[run.id]
                # Sent twice, so nothing says which rows are new: what we own and never heard of, this batch has made.
                new = not rows and owner == self.incarnation and header.no not in self._held and header.created_at == run.at
                header = msgspec.structs.replace(header)
            if new and run.keep:
                self._held.add(header.no)
            answers[id(run)] = Created(header, new)
        return answers

    async def _know_lanes(self, runs: Iterable[NewRun]) -> None:
        if missing := {lane_of(run) for run in runs} - self._lanes.keys():
            await self._writer.execute(sql.NEW_LANES, *([list(each) for each in zip(*sorted(missing), strict=True)]))
            await self._learn_lanes()

    async def _learn_lanes(self) -> None:
        self._lanes = {(row[1], row[2], row[3], row[4], row[5]): row[0] for row in await self._side.fetch(sql.LANES)}

    # ── taking runs up ───────────────────────────────────────────────────────────────────────────────────────────────

    async def take(self, limit: int) -> list[Stored]:
        return await self._taken(await self._claimed(sql.CLAIM, limit, self._graphs, self._queues, LANE_SHARE))

    async def take_one(self, run_id: str) -> Stored | None:
        found = await self._taken(await self._claimed(sql.CLAIM_ONE, run_id))
        return found[0] if found else None

    async def take_ended(self, run_id: str) -> Stored | None:
        await self._side.run(lambda c: recall(c, run_id, self.incarnation))
        found = await self._taken(await self._claimed(CLAIM_ENDED, run_id))
        return found[0] if found else None

    async def _taken(self, rows: list[Any]) -> list[Stored]:
        try:
            return await self._with_records(sorted((_header(row) for row in rows), key=lambda header: header.no))
        except BaseException:  # nobody will drive them: give them back, or they would be ours until this worker ends
            for row in rows:
                self.release(row["no"])
            raise

    def release(self, no: int) -> None:
        self._released.append(no)
        self._held.discard(no)

    async def flush(self) -> None:
        """Give back what was released."""
        if self._released:
            numbers, self._released = self._released, []
            try:
                await self._fenced_claim(sql.RELEASE, numbers)
            except BaseException:
                self._released += numbers
                raise

    async def peek(self) -> tuple[bool, bool]:
        (row,) = await self._side.fetch(sql.PEEK, self._graphs, self._queues)
        return row["due"] or bool(self._released), row["asked"]  # what is to be given back goes with the next claim

    async def _claimed(self, statement: str, *values: Any) -> list[Any]:
        await self.flush()
        rows = await self._fenced_claim(statement, *values)
        found = [row for row in rows if row["no"] is not None]
        self._held.update(row["no"] for row in found)
        return found

    async def _fenced_claim(self, statement: str, *values: Any) -> list[Any]:
        async with self._claiming:
            if self._lost is not None:
                raise self._lost
            if self._unsure:
                await self._settle_claim()
            number = self._claim + 1

            async def send(connection: Connection) -> list[Any]:
                rows = await connection.fetch(statement, self.incarnation, number, *values)
                if rows:
                    return list(rows)
                row = await connection.fetchrow(sql.DID_COMMIT, self.incarnation)
                if row is None or row["claim"] != number or row["state"] == "dead":
                    self._was_fenced()
                    assert self._lost is not None
                    raise self._lost
                # It came through, and its answer was lost.
                return list(await connection.fetch(sql.CLAIMED, self.incarnation, number))

            self._unsure = True
            rows = await self._side.run(send)
            self._claim, self._unsure = number, False
            return rows

    async def _settle_claim(self) -> None:
        """The last claim was given up on while the server was away. What it took, if it came through, goes back."""
        number = self._claim + 1
        (row,) = await self._side.fetch(sql.DID_COMMIT, self.incarnation)
        if row["claim"] == number:
            self._claim = number
            self._released += [each["no"] for each in await self._side.fetch(sql.CLAIMED, self.incarnation, number)]
        self._unsure = False

    async def _with_records(self, headers: list[Header]) -> list[Stored]:
        stored = {header.no: Stored(header, []) for header in headers}
        if stored:
            for no, kind, step, data, at in await self._side.fetch(sql.RECORDS, list(stored)):
                stored[no].records.append(Record(KINDS[kind], step, data, at))
        return list(stored.values())

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, run_id: str) -> Stored | None:
        for row in await self._side.fetch(sql.READ, run_id):
            return (await self._with_records([_header(row)]))[0]
        for row in await self._side.fetch(sql.READ_PAST, run_id):
            records = [Record(KINDS[kind], step, base64.b64decode(data), at)
                       for kind, step, data, at in msgspec.json.decode(row["records"])]
            return Stored(_header(row), records)
        return None

    async def headers(self, run_ids: Sequence[str]) -> list[Header]:
        """The headers of these runs; of those that exist."""
        return [_header(row) for row in await self._side.fetch(sql.HEADERS, list(run_ids))]

    async def search(self, query: Query) -> list[Header]:
        where, values = _where(query)
        statement = (f"SELECT * FROM (SELECT {sql.HEADER} FROM yaoki.run {where} UNION ALL SELECT {sql.HEADER} FROM yaoki.past {where})"
                     f" AS found ORDER BY no DESC LIMIT {int(query.limit)}")
        return [_header(row) for row in await self._side.fetch(statement, *values)]

    async def counts(self, saga: str = "") -> dict[RunState, int]:
        return {STATES[state]: n for state, n in await self._side.fetch(sql.COUNTS, saga)}

    async def workers(self, dead_for_s: float = 3600.0) -> list[dict[str, Any]]:
        """Live workers, and those that ended in the last `dead_for_s` seconds."""
        return [dict(row) for row in await self._side.fetch(sql.WORKERS, dead_for_s)]

    # ── housekeeping ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def archive(self, before: float, limit: int = 1000) -> int:
        """Move up to `limit` runs that ended before then out of the live tables. Returns how many."""
        return await self._side.run(lambda c: archive(c, before, limit))

    async def purge(self, before: float, limit: int) -> int:
        dropped = await self._side.run(lambda c: drop_days(c, before))
        if dropped:
            return dropped
        done = int((await self._side.execute(sql.PURGE, before, limit)).rpartition(" ")[2])
        if done < limit:
            done += int((await self._side.execute(sql.PURGE_PAST, before, limit - done)).rpartition(" ")[2])
        return done

    async def request(self, run_id: str, kind: str, data: bytes, at: float) -> None:
        await self._side.execute(sql.REQUEST, run_id, kind, data, at)
        await self.ring()

    async def requests(self) -> list[Request]:
        if self.incarnation:  # who only looks on sees them all, and changes nothing
            await self._side.execute(sql.MISSED)
        return [Request(*row) for row in await self._side.fetch(sql.REQUESTS, self.incarnation)]

    async def carried_out(self, numbers: Sequence[int]) -> None:
        await self._side.execute("DELETE FROM yaoki.request WHERE no = ANY($1)", list(numbers))

    async def save_graph(self, graph_hash: str, saga: str, graph: bytes) -> None:
        await self._side.execute("INSERT INTO yaoki.definition (hash, saga, graph) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                                 graph_hash, saga, graph)

    async def load_graph(self, graph_hash: str) -> bytes | None:
        rows = await self._side.fetch("SELECT graph FROM yaoki.definition WHERE hash = $1", graph_hash)
        return rows[0][0] if rows else None

    async def graphs(self, sagas: Sequence[str]) -> list[tuple[str, bytes]]:
        rows = await self._side.fetch("SELECT hash, graph FROM yaoki.definition WHERE saga = ANY($1)", list(sagas))
        return [(row[0], row[1]) for row in rows]

    async def stranded(self) -> list[tuple[str, str, int]]:
        return [(row[0], row[1], row[2]) for row in await self._side.fetch(sql.STRANDED)]

    # ── waking each other ────────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self, connection: Connection) -> None:
        if not self.target.bouncer:
            await connection.add_listener("yaoki", lambda *_: self.bell())

    async def ring(self) -> None:
        """Wake the other workers. Never inside a batch: a NOTIFY takes a lock of the whole server at commit."""
        if not self.target.bouncer:
            with contextlib.suppress(JournalError):
                await self._side.execute("SELECT pg_notify('yaoki', '')")


async def _must_be_there(connection: Connection) -> None:
    from yaoki.saga.journal.postgres.schema import refuse_newer, version_of  # noqa: PLC0415

    found = await version_of(connection)
    refuse_newer(found)
    if found == 0:
        raise JournalError("there is no journal in this database", do="make one with `yk db upgrade`, or check the address (--db)")


def _header(row: Any) -> Header:
    values = [row[name] for name in Header.__struct_fields__]
    values[4] = STATES[values[4]]
    return Header(*values)


def _made(run: NewRun, no: int) -> Header:
    return Header(no=no, id=run.id, saga=run.saga, graph=run.graph, state=RunState.RUNNING, input=run.input,
                  traceparent=run.traceparent, created_at=run.at, updated_at=run.at, deadline_at=run.deadline_at,
                  fence=int(run.keep))


def _where(query: Query) -> tuple[str, tuple[Any, ...]]:
    tests: list[str] = []
    values: list[Any] = []

    def add(test: str, value: Any) -> None:
        values.append(value)
        tests.append(test.replace("?", f"${len(values)}"))

    if query.states:
        add("state = ANY(?::text[])", [state.value for state in query.states])
    if query.saga:
        add("saga = ?", query.saga)
    if query.id_prefix:
        add("starts_with(id, ?)", query.id_prefix)
    if query.since:
        add("created_at >= ?", query.since)
    if query.until:
        add("created_at < ?", query.until)
    if query.before_no:
        add("no < ?", query.before_no)
    return (f"WHERE {' AND '.join(tests)}" if tests else ""), tuple(values)
