"""Messages in PostgreSQL, 13 or newer. How order and completeness come about: see `postgres_sql`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from yaoki import events, runtime
from yaoki.errors import StoreError
from yaoki.messages.envelope import PARTS, Message, message_of
from yaoki.messages.store import postgres_segments as segments
from yaoki.messages.store import postgres_sql as sql
from yaoki.messages.store import postgres_write as write
from yaoki.messages.store.bell import Bell
from yaoki.messages.store.gather import Gather
from yaoki.messages.store.port import (
    START,
    Durability,
    Entry,
    GroupLag,
    Held,
    Lease,
    Page,
    Position,
    Settlement,
    Share,
)
from yaoki.messages.store.postgres_errors import as_store_errors
from yaoki.messages.store.postgres_tx import PostgresTx, settle, transaction
from yaoki.messages.store.shares import Owned, plan
from yaoki.text import without_password

log = logging.getLogger("yaoki.messages")

GUARD_S = 10.0
"""A transaction that keeps messages from being read for longer than this is reported."""
END_OF_XID = 2**62
"""Above every row number: the position after all of a transaction id."""

_history = msgspec.json.Decoder(tuple[tuple[float, str], ...])


class PostgresStore:
    """A `Store` in a PostgreSQL database. Open it with `await PostgresStore.open(url)`."""

    def __init__(self, url: str, pool: asyncpg.Pool[Any], durability: Durability) -> None:
        self.url = url
        self.pool = pool
        self.durability = durability
        self.decisions = 0
        self.bell = Bell()
        self._gather = Gather(self._append)
        self._tasks = [runtime.spawn(self._listen(), name="yaoki-messages-listen"),
                       runtime.spawn(self._guard(), name="yaoki-messages-guard")]

    @classmethod
    async def open(cls, url: str, *, connections: int = 8) -> PostgresStore:
        """Connect, and create our tables in the first schema of the search path. Raises `StoreError`."""
        with as_store_errors(f" at {without_password(url).rpartition('@')[2]}"):
            pool = await asyncpg.create_pool(url, min_size=1, max_size=connections, command_timeout=60, reset=_nothing_to_reset)
            try:
                async with pool.acquire() as connection, connection.transaction():
                    await _migrate(connection)
                    synchronous = await connection.fetchval("SHOW synchronous_commit")
            except BaseException:
                await pool.close()
                raise
        return cls(url, pool, _durability(synchronous))

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, messages: Sequence[Message]) -> None:
        if messages:
            await self._gather.append(messages)

    async def _append(self, messages: Sequence[Message]) -> None:
        with as_store_errors():
            async with self.pool.acquire() as connection:
                await write.append(connection, messages)
                # After the commit, so that its lock is not held while others commit.
                await connection.execute(sql.NOTIFY)
        self.bell.ring()

    async def settle(self, group: str, settlement: Settlement) -> None:
        with as_store_errors():
            async with self.pool.acquire() as connection:
                if settlement.hold or settlement.drop or settlement.publish:
                    async with connection.transaction():
                        await settle(connection, group, settlement)
                else:
                    await settle(connection, group, settlement)
                if settlement.publish:
                    await connection.execute(sql.NOTIFY)
        if settlement.publish:
            self.bell.ring()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresTx]:
        async with transaction(self.pool) as tx:
            yield tx
        if tx.published:
            self.bell.ring()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, types: Collection[str] | None, after: Mapping[int, Position], limit: int) -> Page:
        together: dict[Position, list[int]] = {}
        for part, position in after.items():
            together.setdefault(position, []).append(part)
        entries: list[Entry] = []
        read_to: dict[int, Position] = {}
        for position, parts in sorted(together.items()):
            found, end = await self._read(types, position, parts, limit - len(entries))
            entries += found
            full = len(entries) >= limit
            read_to.update(dict.fromkeys(parts, found[-1].position if full else max(position, end)))
            if full:
                break
        return Page(sorted(entries, key=_position), read_to, more=len(entries) >= limit)

    async def _read(self, types: Collection[str] | None, after: Position, parts: list[int],
                    limit: int) -> tuple[list[Entry], Position]:
        rows = await self._fetch(sql.READ, *after, None if len(parts) == PARTS else parts, None if types is None else list(types), limit)
        entries, end = [], START
        for row in rows:
            x, pos, part, *columns = row
            if pos is None:
                end = (x - 1, END_OF_XID)
            else:
                entries.append(Entry((x, pos), part, message_of(*columns)))
        return entries, end

    async def held_beyond(self, group: str, after: Mapping[int, Position]) -> list[tuple[int, Position]]:
        rows = await self._fetch(sql.HELD_BEYOND, group, list(after), [x for x, _ in after.values()],
                                 [pos for _, pos in after.values()])
        return [(row["part"], (row["x"], row["pos"])) for row in rows]

    async def is_done(self, group: str, part: int, position: Position) -> bool:
        rows = await self._fetch("SELECT (x, pos) >= ($3, $4) AS done FROM yaoki_cursors "
                                 "WHERE grp = $1 AND part = $2", group, part, *position)
        return bool(rows and rows[0]["done"])

    async def due(self, group: str, parts: Collection[int], *, now: float, limit: int) -> list[tuple[Entry, Held]]:
        return [_pair(row) for row in await self._fetch(sql.DUE, group, list(parts), now, limit)]

    async def blocked_keys(self, group: str, parts: Collection[int]) -> dict[int, set[str]]:
        rows = await self._fetch(sql.BLOCKED, group, list(parts))
        if any(not row["heads"] for row in rows):
            await self._fetch(sql.WAKE_ORPHANS, group, list(parts))
        keys: dict[int, set[str]] = {}
        for row in rows:
            keys.setdefault(row["part"], set()).add(row["key"])
        return keys

    async def held(self, *, group: str | None = None, states: Collection[str] = ("quarantined", "dead"),
                   key: str | None = None, limit: int = 100) -> list[tuple[str, Entry, Held]]:
        rows = await self._fetch(sql.HELD_ROWS, group, key, list(states), limit)
        return [(row["grp"], *_pair(row)) for row in rows]

    async def get(self, message_id: str) -> list[Entry]:
        return await self.starting_with(message_id, limit=20)

    async def starting_with(self, prefix: str, *, limit: int = 10_000) -> list[Entry]:
        return [_entry(row) for row in await self._fetch(sql.STARTING_WITH, prefix, prefix + "\U0010ffff", limit)]

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        rows = await self._fetch(sql.LAG, group)
        states: dict[str, dict[str, int]] = {}
        for row in await self._fetch(sql.STATES, group):
            states.setdefault(row["grp"], {})[row["state"]] = row["n"]
        now = runtime.unix_time()
        return [GroupLag(
            group=row["grp"], waiting=row["waiting"], oldest_s=max(0.0, now - row["oldest"]) if row["oldest"] else 0.0,
            states=states.get(row["grp"], {}), keys_blocked=row["keys_blocked"], workers=row["workers"],
            parts=row["parts"], under_way=row["under_way"]) for row in rows]

    async def _fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        with as_store_errors():
            return await self.pool.fetch(statement, *values)

    async def wait_changed(self, timeout_s: float) -> None:
        await self.bell.wait(self.bell.rings, timeout_s)

    async def _listen(self) -> None:
        """Ring when somebody publishes. A lost connection is made again; meanwhile readers look by themselves."""
        while True:
            try:
                connection = await asyncpg.connect(self.url)
                try:
                    closed = asyncio.Event()
                    connection.add_termination_listener(lambda _, closed=closed: closed.set())
                    await connection.add_listener(sql.CHANNEL, lambda *_: self.bell.ring())
                    self.bell.ring()
                    await closed.wait()
                finally:
                    await connection.close(timeout=5)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await runtime.sleep(1.0)

    async def _guard(self) -> None:
        """Say who keeps committed messages from being read, and for how long."""
        last, since = 0, runtime.monotonic()
        while True:
            await runtime.sleep(GUARD_S / 4)
            try:
                row = await self.pool.fetchrow(sql.HELD_BACK)
                now = runtime.monotonic()
                if row is None or row["w"] != last or not row["waiting"]:
                    last, since = 0 if row is None else row["w"], now
                elif now - since >= GUARD_S:
                    holder = await self.pool.fetchval(sql.HOLDERS) or "unknown: it may be hidden from this user"
                    log.warning("published messages cannot be read for %.0f s: %s", now - since, holder)
                    events.emit(events.ReadingHeld(held_s=now - since, holder=holder))
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                continue

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def declare(self, group: str, types: Collection[str], *, since: str) -> None:
        await self._fetch(sql.DECLARE, group, sorted(types), since == "now")

    async def forget(self, group: str) -> None:
        with as_store_errors():
            async with self.pool.acquire() as connection, connection.transaction():
                for table in ("held", "cursors", "members", "groups"):
                    await connection.execute(f"DELETE FROM yaoki_{table} WHERE grp = $1", group)  # noqa: S608 (ours)

    async def balance(self, group: str, worker: str, ttl_s: float, *, draining: Collection[int] = (), under_way: int = 0) -> Share:
        with as_store_errors():
            async with self.pool.acquire() as connection, connection.transaction():
                await connection.execute(sql.LOCK, group)
                await connection.execute("DELETE FROM yaoki_members WHERE grp = $1 AND lease_until < clock_timestamp()", group)
                await connection.execute(sql.JOIN, group, worker, ttl_s, under_way)
                workers = await connection.fetch("SELECT worker FROM yaoki_members WHERE grp = $1", group)
                owned = await connection.fetch(sql.OWNED, group)
                share = plan({row["part"]: Owned(row["owner"], row["left_s"]) for row in owned},
                             [row["worker"] for row in workers], worker, ttl_s=ttl_s, draining=draining)
                await connection.execute(sql.RENEW, group, worker, ttl_s)
                if share.take:
                    await connection.execute(sql.TAKE, group, worker, list(share.take), ttl_s)
                await connection.execute(sql.FORGET_DONE, group)
                mine = await connection.fetch(sql.MINE, group, worker)
        leases = {row["part"]: Lease(row["part"], (row["x"], row["pos"]), row["fence"], row["crashes"]) for row in mine}
        return Share(leases, share.surplus, share.check_in_s)

    async def release(self, group: str, worker: str, parts: Collection[int], *, leaving: bool) -> None:
        await self._fetch("UPDATE yaoki_cursors SET owner = '', lease_until = '-infinity' WHERE grp = $1 AND owner = $2 "
                          "AND part = ANY ($3::smallint[])", group, worker, list(parts))
        if leaving:
            await self._fetch("DELETE FROM yaoki_members WHERE grp = $1 AND worker = $2", group, worker)

    # ── what a person decides ────────────────────────────────────────────────────────────────────────────────────

    async def rewrite(self, group: str, rows: Sequence[Held]) -> None:
        await self.settle(group, Settlement(hold=list(rows)))
        self._decided()

    async def discard(self, group: str, rows: Sequence[tuple[int, Position]]) -> None:
        await self.settle(group, Settlement(drop=list(rows)))
        self._decided()

    def _decided(self) -> None:
        self.decisions += 1
        self.bell.ring()

    async def prune(self, older_than_s: float, *, limit: int = 10_000, runs: bool = True, patient: bool = True) -> int:
        before = runtime.unix_time() - older_than_s
        with as_store_errors():
            async with self.pool.acquire() as connection:
                return await segments.prune(connection, before, older_than_s, limit, runs=runs, patient=patient)

    async def close(self) -> None:
        await self._gather.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pool.close()


async def _nothing_to_reset(_connection: Any) -> None:
    """Our own statements leave no session state behind, so the round trip that would clear it is saved."""


async def _migrate(connection: Any) -> None:
    # Two that create the same table at once would trip over each other in the catalogue.
    await connection.execute("SELECT pg_advisory_xact_lock(7230901, 0)")
    await connection.execute("SET LOCAL client_min_messages = warning")
    await connection.execute(sql.SCHEMA + sql.FUNCTIONS)
    version = await connection.fetchval("SELECT version FROM yaoki_messages_version")
    if version is None:
        await segments.make_first(connection)
        await connection.execute("INSERT INTO yaoki_messages_version VALUES ($1)", sql.VERSION)
    elif version > sql.VERSION:
        raise StoreError(f"the messages here were written by a newer program (format {version}, known {sql.VERSION})",
                         do="use the newer program, or another schema", found=version)


def _durability(synchronous: str) -> Durability:
    if synchronous == "off":
        return Durability(survives="process", kill="nothing",
                          power_cut="the last commits, up to three times wal_writer_delay (synchronous_commit is off)")
    return Durability(survives="power", kill="nothing", power_cut="nothing")


def _position(entry: Entry) -> Position:
    return entry.position


def _entry(row: Any, *, attempts: int = 0, held: bool = False, data: bytes | None = None) -> Entry:
    # Columns by number: names of the held row and of the message would collide.
    columns = tuple(row)[-12:]
    x, pos, part, id_, source, type_, key, version, time, due, body, meta = columns
    message = message_of(id_, source, type_, key, version, time, due, body if data is None else data, meta)
    return Entry((x, pos), part, message, attempts, held)


def _pair(row: Any) -> tuple[Entry, Held]:
    part, x, pos, key, state, attempts, due_at, error, first_at, history, replays, data = tuple(row)[-24:-12]
    held = Held(part=part, position=(x, pos), key=key, state=state, attempts=attempts, due_at=due_at, error=error,
                first_at=first_at, history=_history.decode(history), replays=replays, data=data)
    return _entry(row, attempts=attempts, held=True, data=data), held
