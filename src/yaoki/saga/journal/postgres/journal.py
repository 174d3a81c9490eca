"""The journal's port on PostgreSQL. See `statements.py` for the fence, and `docs/explanation/fencing.md` for why it holds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence

from yaoki import events, runtime
from yaoki.errors import FencedError, JournalError
from yaoki.saga.journal.group import GroupCommit
from yaoki.saga.journal.locks.postgres import PostgresLocks
from yaoki.saga.journal.operations.postgres import PostgresOperations
from yaoki.saga.journal.port import Ask, Request
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.batch import COMMON, rehearsal
from yaoki.saga.journal.postgres.claiming import Claiming
from yaoki.saga.journal.postgres.lanes import KnownLanes
from yaoki.saga.journal.postgres.lease import Lease
from yaoki.saga.journal.postgres.link import Connection, Link, Target
from yaoki.saga.journal.postgres.past import archive, drop_days
from yaoki.saga.journal.postgres.schema import prepare, refuse_newer, version_of
from yaoki.saga.journal.postgres.spares import Spares
from yaoki.saga.journal.postgres.writing import Writing
from yaoki.saga.journal.registers.postgres import PostgresRegisters

# So many writers at once take turns (`group.py`). A run costs the program some 40 µs between two of its commits, and a commit takes
# one to two milliseconds, so below this the server waits for them no longer than a second commit would take.
TURNS = 128

# The longest wait for a batch under way when closing; the server may be gone.
CLOSE_S = 10.0


def _nothing() -> None:
    """For who does not listen."""


class PostgresJournal(Writing, Claiming, PostgresRegisters, PostgresLocks, PostgresOperations):
    """Runs in a PostgreSQL database that any number of workers share.

    Args:
        url: `postgresql://user@host/database?lease=15`; `bouncer=yes` behind PgBouncer in transaction mode.
        durability: "power", or "process": commits are not awaited on the server's disk.
        name: how this worker is called in `yk workers`; the host and process by default.
    """

    shared = True
    is_bare = False

    def __init__(self, url: str, *, durability: str = "power", name: str = "") -> None:
        self.target = Target.of(url, durability=durability)
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.incarnation = 0
        self.bell: Callable[[], None] = _nothing  # called when there may be something to take or to carry out
        self.fenced: Callable[[], None] = _nothing  # called when this worker was declared dead
        self._group = GroupCommit(self._commit, turns=TURNS)
        self._writer = Link(self.target, "writer", patience_s=None, connected=self._rehearse)
        self._side = Link(self.target, "claims", patience_s=10.0, connected=self._listen)
        self._spares = Spares(self.target, lambda: self._lost)
        self._lease: Lease | None = None
        self._graphs: list[str] | None = None
        self._queues: list[str] | None = None
        self._batch = 0
        self._claim = 0
        self._claiming = asyncio.Lock()
        self._lanes = KnownLanes()
        self._hints: list[int] = []
        self._walk_at = 0.0
        self._held: set[int] = set()  # what this incarnation owns, as far as it knows
        self._released: list[int] = []
        self._unsure = False  # was the last claim given up on, so that nobody knows what became of it?
        self._may_be_limited = True  # until the first look says otherwise
        self._offset = 0.0  # the server's clock less our monotonic one
        self._lost: FencedError | None = None
        self._failed: JournalError | None = None

    # ── opening and closing ──────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Register a new incarnation. After a `FencedError` it may be called again."""
        try:
            await self._register()
        except BaseException:
            await self.close()
            raise

    async def _register(self) -> None:
        self._writer.reopen()
        self._side.reopen()
        await self._end_lease()
        # What was given to the last incarnation fails with it, all of it: nothing may be written in the new one's name.
        await self._group.drain()
        async with self._claiming:
            if self.incarnation:  # it leaves by its own will, if it is not dead: others need not wait for its lease to end
                await self._leave()
            await self._join()

    async def _join(self) -> None:
        await self._side.run(prepare)
        began = runtime.monotonic()
        (row,) = await self._side.fetch(sql.REGISTER, self.name, socket.gethostname(), os.getpid(), self.target.lease_s,
                                        self._graphs or [], self._queues or [])
        self._offset = float(row["now"]) - (began + runtime.monotonic()) / 2
        self.incarnation, self._batch, self._claim, self._lost, self._failed = row["no"], 0, 0, None, None
        self._held.clear()
        self._released.clear()
        self._unsure = False
        self._lanes = KnownLanes()
        await self._writer.ready()
        self._lease = Lease(self.target, self.incarnation, self._was_fenced)
        await self._lease.start()
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
        if self.incarnation:
            with contextlib.suppress(JournalError):  # then its lease runs out
                await self._leave()
        self.incarnation = 0
        self._spares.close()
        await self._writer.close()
        await self._side.close()

    async def _leave(self) -> None:
        async def leave(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute(sql.LEAVE, self.incarnation)
                await connection.execute(sql.LEAVE_BEHIND, self.incarnation)

        await self._side.run(leave)

    async def drain(self) -> None:
        """Say that this worker takes nothing more, and finishes what it has."""
        await self._side.execute(sql.DRAIN, self.incarnation)

    async def serve(self, graphs: Sequence[str], queues: Sequence[str] | None = None) -> None:
        """Take only runs of these definitions (hashes), and of these queues."""
        self._graphs = list(graphs)
        self._queues = None if queues is None else list(queues)
        await self._side.execute(sql.SERVE, self.incarnation, self._graphs, self._queues or [])

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
        await self.request_many([Ask(run_id, kind, data)], at)

    async def requests(self) -> list[Request]:
        if self.incarnation:  # who only looks on sees them all, and changes nothing
            await self._side.execute(sql.MISSED)
        return [Request(*row) for row in await self._side.fetch(sql.REQUESTS, self.incarnation)]

    async def carried_out(self, numbers: Sequence[int]) -> None:
        await self._side.execute("DELETE FROM yaoki.request WHERE no = ANY($1)", list(numbers))

    # ── waking each other ────────────────────────────────────────────────────────────────────────────────────────────

    async def _rehearse(self, connection: Connection) -> None:
        """Have the server prepare and plan what most batches are, so that the first runs need not wait for it. No worker has the number 0."""
        if not self.target.bouncer:
            for parts in COMMON:
                statement, values = rehearsal(parts)
                await connection.fetch(statement, 0, 1, 0, *values)

    async def _listen(self, connection: Connection) -> None:
        if not self.target.bouncer:
            await connection.add_listener("yaoki", lambda *_: self.bell())

    async def ring(self) -> None:
        """Wake the other workers. Never inside a batch: a NOTIFY takes a lock of the whole server at commit."""
        if not self.target.bouncer:
            with contextlib.suppress(JournalError):
                await self._side.execute("SELECT pg_notify('yaoki', '')")


async def _must_be_there(connection: Connection) -> None:
    found = await version_of(connection)
    refuse_newer(found)
    if found == 0:
        raise JournalError("there is no journal in this database", do="make one with `yk db upgrade`, or check the address (--db)")
