"""Keep every version of every key, written in the same transaction as the change itself.

    async with Ledger("sqlite:///shop.db") as ledger:
        async with ledger.tx() as t:                           # or ledger.tx(connection): your transaction, your tables
            version = await t.append("A000001", {"points": 40}, expect=2)

Versions of a key run 1, 2, 3, ... without holes, whatever is rolled back. What is committed is sealed into epochs
(`ledger.seal()`), delivered to sinks (`delivery.py`) and audited there (`watch.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self, TypeVar

import msgspec

from yaoki import events
from yaoki.errors import ConfigError, InputError, LedgerError
from yaoki.events import EpochSealed, WatermarkHeld
from yaoki.ledger.bookmarks import SqlBookmarks
from yaoki.ledger.changes import Changes, beats, prepare
from yaoki.ledger.epochs import Epoch, Row, verify_epoch
from yaoki.ledger.leases import Lease, prove
from yaoki.ledger.records import MAX_VERSION, Batch, Naming, is_beat
from yaoki.ledger.retention import marks
from yaoki.ledger.schemas import Schemas
from yaoki.ledger.sealing import NEWEST_EPOCH, SEAL_ROWS, SELECT_EPOCH, epoch_of, seal_in, seal_mine
from yaoki.ledger.store.port import Store, Tx
from yaoki.ledger.store.sqlite import SqliteStore

S = TypeVar("S")

class Version(msgspec.Struct, frozen=True):
    """One version of one key. `content` is None once it was erased; `written_at` is seconds since 1970.

    `schemas`: the ledger's, by which `value` reads the content.
    """

    key: str
    version: int
    content: bytes | None
    schema: int
    written_at: float
    traceparent: str = ""
    schemas: Schemas | None = None

    def value(self) -> Any:
        """The content, up-cast to today's schema where the ledger has schemas; else read as JSON.

        Raises:
            LedgerError: it was erased.
            SchemaError: this program cannot read its schema.
        """
        if self.content is None:
            raise LedgerError(f"{self.key} version {self.version} was erased", do="only its existence is left, by law")
        if self.schemas is not None:
            return self.schemas.read(self.key, self.version, self.content, self.schema)
        return msgspec.json.decode(self.content)


class LedgerTx:
    """Appends inside one transaction. Nothing of it exists before the transaction commits."""

    def __init__(self, ledger: Ledger, tx: Tx) -> None:
        self._ledger = ledger
        self.sql = tx

    async def append(self, key: str, change: Any, *, expect: int | None = None, schema: int | None = None) -> int:
        """Write the next version of `key` and return its number, from 1.

        Args:
            change: the content: bytes, or anything that msgspec turns into JSON.
            expect: the version that this change was made for, 0 for a key that has none yet.
            schema: the number of the content's schema; None: the newest of the ledger's schemas, or 0.

        Raises:
            VersionConflictError: somebody else wrote a version first; nothing was written.
        """
        (version,) = await self.sql.append(self._ledger.prepare([(key, change)], expect=expect, schema=schema))
        return version

    async def append_many(self, changes: Sequence[tuple[str, Any]], *, schema: int | None = None) -> list[int]:
        """Write many changes in one go, in this order; a key may come up more than once. Returns their versions."""
        prepared = self._ledger.prepare(changes, schema=schema)
        return [version for piece in prepared.pieces() if len(piece) for version in await self.sql.append(piece)]


class Ledger:
    """A ledger in SQLite or PostgreSQL.

    Args:
        url: `sqlite:///PATH`, `sqlite://` (in memory), `postgresql://...`, or a store of your own.
        partitions: how many streams of numbers it has; fixed when the ledger is made.
        schemas: how its contents are read, whatever shape they were written in; None: as plain JSON.
    """

    def __init__(self, url: str | Store, *, partitions: int = 8, schemas: Schemas | None = None) -> None:
        if not 1 <= partitions <= 1024:
            raise ConfigError(f"partitions must be from 1 to 1024, got {partitions}", do="8 is right for most")
        self.store = store_for(url) if isinstance(url, str) else url
        self.partitions = partitions
        self.schemas = schemas
        self.name = self.store.name

    async def __aenter__(self) -> Self:
        await self.store.open()
        try:
            await self._keep_partitions()
            await self.store.prepare_days(2)
        except BaseException:
            await self.store.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.store.close()

    async def _keep_partitions(self) -> None:
        async with self.store.transaction() as tx:
            await tx.execute("INSERT INTO yaoki_ledger_note (name, body) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
                             "partitions", str(self.partitions))
            ((stored,),) = await tx.fetch("SELECT body FROM yaoki_ledger_note WHERE name = ?1", "partitions")
        self.partitions = int(stored)  # what it was made with: keys would move between partitions otherwise

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def tx(self, connection: Any = None) -> AsyncIterator[LedgerTx]:
        """A transaction to append in.

        Args:
            connection: yours, to the same database (`sqlite3`, asyncpg, async psycopg). If it is in a transaction, the
                appends are part of it and you commit; else one is begun and committed here.
        """
        async with self.store.transaction(connection) as tx:
            yield LedgerTx(self, tx)

    def prepare(self, changes: Sequence[tuple[str, Any]], *, schema: int | None = None, expect: int | None = None) -> Changes:
        """(key, change) pairs as they are stored."""
        if schema is None:
            schema = self.schemas.current if self.schemas else 0
        return prepare(changes, self.partitions, schema=schema, expect=expect)

    async def beat(self) -> None:
        """Write one heartbeat into each partition."""
        async with self.store.transaction() as tx:
            await tx.append(beats(self.partitions))

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def history(self, key: str, *, first: int = 1, last: int | None = None) -> list[Version]:
        """The versions of `key`, oldest first."""
        found = await self.store.versions(key, first, last or MAX_VERSION)
        return [Version(key, number, content, schema, at, trace, self.schemas) for _, number, content, schema, at, trace in found]

    async def version(self, key: str, version: int | None = None, *, at: float | None = None) -> Version | None:
        """One version of `key`: the newest, or number `version`, or the newest written at or before `at`."""
        if version is None and at is None:
            heads = await self.store.fetch("SELECT version FROM yaoki_ledger_head WHERE key = ?1", key)
            version = heads[0][0] if heads else 1
        found = await self.history(key, first=version or 1, last=version)
        return next((each for each in reversed(found) if at is None or each.written_at <= at), None)

    async def state(self, key: str, fold: Callable[[S | None, Any], S], *, version: int | None = None,
                    at: float | None = None) -> S | None:
        """What the changes of `key`, up to a version or a time, add up to: `fold(state, change)` over each."""
        state: S | None = None
        versions = await self.history(key, last=version)
        if versions and versions[0].version > 1:
            raise LedgerError(f"{key} is kept from version {versions[0].version} on: earlier ones were pruned",
                              do="keep a version that sums up those before it, and fold from there by `history`")
        for each in versions:
            if at is None or each.written_at <= at:
                state = fold(state, each.value())
        return state

    async def keys(self, *, after: str = "", limit: int = 100) -> list[Naming]:
        """(key, newest version) pairs in the order of keys, beats left out."""
        rows = await self.store.fetch(
            "SELECT key, version FROM yaoki_ledger_head WHERE key > ?1 AND key NOT LIKE '__beat/%' ESCAPE '!' "
            "ORDER BY key LIMIT ?2".replace("__beat", "!_!_beat"), after, limit)
        return [(key, version) for key, version in rows]

    async def erase(self, key: str, *, versions: Sequence[int] | None = None) -> int:
        """Erase the contents of `key` for good (or of some versions of it) and return how many.

        Versions stay numbered and counted, and the chain of hashes stays whole; salt and digest go with the content, so
        that nobody can guess a content and check the guess. Copies in sinks are yours to delete; an audit that reads the
        whole sink names those that are left, as extra.
        """
        if is_beat(key):
            raise InputError("a heartbeat holds nothing to erase", do="name the key of a person or thing")
        chosen = versions if versions is not None else [each.version for each in await self.history(key)]
        erased = 0
        async with self.store.transaction() as tx:
            await tx.execute("INSERT INTO yaoki_ledger_note (name, body) VALUES ('erased', 'yes') ON CONFLICT (name) DO NOTHING")
            for version in chosen:
                erased += len(await tx.fetch(
                    "UPDATE yaoki_ledger_version SET content = NULL, salt = NULL, digest = NULL "
                    "WHERE key = ?1 AND version = ?2 AND content IS NOT NULL RETURNING version", key, version))
        return erased

    def bookmarks(self, sink: str) -> SqlBookmarks:
        """What is remembered of a sink: see `Deliverer`."""
        return SqlBookmarks(self, sink)

    # ── epochs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def seal(self, owner: str = "sealer", *, parts: Sequence[int] | None = None) -> list[Epoch]:
        """Seal what is ready in each partition whose lease is ours, an empty epoch if nothing is, and return the epochs.

        All partitions are sealed in one transaction: an fsync for each would cost more than the sealing.
        """
        sealed: list[Epoch] = []
        todo = list(range(self.partitions) if parts is None else parts)
        while todo:
            async with self.store.transaction() as tx:
                fresh = await seal_mine(tx, todo, owner)
            self._tell(fresh)
            sealed += fresh
            todo = [epoch.part for epoch in fresh if epoch.rows == SEAL_ROWS]
        held, holder = await self.store.held()
        if held > 1 and events.wanted():
            events.emit(WatermarkHeld(ledger=self.name, held_s=held, holder=holder))
        return sealed

    async def seal_part(self, part: int, lease: Lease) -> Epoch:
        """Seal one epoch. Raises `FencedError`, and seals nothing, if the lease is no longer ours."""
        async with self.store.transaction() as tx:
            await prove(tx, lease)
            (epoch,) = await seal_in(tx, [part], await tx.now())
        self._tell([epoch])
        return epoch

    def _tell(self, epochs: Sequence[Epoch]) -> None:
        if events.wanted():
            for epoch in epochs:
                events.emit(EpochSealed(ledger=self.name, part=epoch.part, epoch=epoch.epoch, rows=epoch.rows))

    async def last_epoch(self, part: int) -> Epoch | None:
        rows = await self.store.fetch(NEWEST_EPOCH, part)
        return epoch_of(rows[0]) if rows else None

    async def epochs(self, part: int, *, first: int = 0, limit: int = 1000) -> list[Epoch]:
        """Epochs of a partition, oldest first."""
        rows = await self.store.fetch(SELECT_EPOCH + "AND epoch >= ?2 ORDER BY epoch LIMIT ?3", part, first, limit)
        return [epoch_of(row) for row in rows]

    async def epoch_at(self, part: int, seq: int) -> Epoch | None:
        """The epoch that holds row number `seq`, or None if it is not sealed yet."""
        rows = await self.store.fetch(
            SELECT_EPOCH + "AND first_seq <= ?2 AND first_seq + row_count > ?2 ORDER BY first_seq DESC LIMIT 1", part, seq)
        return epoch_of(rows[0]) if rows else None

    async def rows(self, epoch: Epoch, *, content: bool = False) -> list[Row]:
        """The rows of an epoch, in order: row i has number `epoch.first_seq + i`."""
        since = (0, 0)
        if epoch.epoch:
            (before,) = await self.epochs(epoch.part, first=epoch.epoch - 1, limit=1)
            since = before.until
        return await self.store.between(epoch.part, since, epoch.until, content=content)

    async def sealed(self, *, parts: Sequence[int] | None = None) -> AsyncIterator[Batch]:
        """Every sealed version that is neither a beat nor erased, with the time at which it was sealed: what sinks should hold."""
        pruned = await marks(self.store)
        for part in range(self.partitions) if parts is None else parts:
            first, since = (pruned[part].epoch + 1, pruned[part].until) if part in pruned else (0, (0, 0))
            while found := await self.epochs(part, first=first, limit=100):
                for epoch in found:
                    if epoch.rows:
                        yield _batch(await self.store.between(part, since, epoch.until, content=False), epoch.sealed_at)
                    since = epoch.until
                first = found[-1].epoch + 1

    async def contents(self, names: Sequence[Naming]) -> dict[Naming, bytes | None]:
        """The contents of these versions; None where it was erased; absent where there is no such version."""
        found: dict[Naming, bytes | None] = {}
        for key, version in names:
            for (content,) in await self.store.fetch(
                    "SELECT content FROM yaoki_ledger_version WHERE key = ?1 AND version = ?2", key, version):
                found[key, version] = content
        return found

    async def verify(self) -> list[str]:
        """What does not fit the sealed hashes, as sentences; empty: nothing sealed was changed, added or removed.

        Of what was pruned the epochs are checked; their rows are gone.
        """
        faults = []
        pruned = await marks(self.store)
        for part in range(self.partitions):
            previous: Epoch | None = None
            gone = pruned[part].epoch if part in pruned else -1
            while found := await self.epochs(part, first=previous.epoch + 1 if previous else 0, limit=100):
                for epoch in found:
                    since = previous.until if previous else (0, 0)
                    rows = await self.store.between(part, since, epoch.until, content=False) if epoch.epoch > gone else None
                    fault = verify_epoch(epoch, previous, rows)
                    faults += [f"partition {part}, epoch {epoch.epoch}: {fault}"] if fault else []
                    previous = epoch
        return faults

    async def trim_sketches(self, before: float) -> None:
        """Drop the sketches of epochs sealed before this time: 6 KiB each, needed only until their audit is over."""
        async with self.store.transaction() as tx:
            await tx.execute("UPDATE yaoki_ledger_epoch SET sketch = ?1 WHERE sealed_at < ?2", b"", before)


def _batch(rows: list[Row], sealed_at: float) -> Batch:
    kept = [row for row in rows if row.digest and not is_beat(row.key)]  # without a digest: erased
    return Batch([row.key for row in kept], [row.version for row in kept], [row.digest for row in kept],
                 [sealed_at] * len(kept))


def store_for(url: str) -> Store:
    """The store that a URL names."""
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return SqliteStore(url.removeprefix("sqlite:///"))
    if url in {"sqlite://", "sqlite:///:memory:"}:
        return SqliteStore(":memory:")
    if url.startswith(("postgresql://", "postgres://")):
        from yaoki.ledger.store.postgres import PostgresStore  # noqa: PLC0415  asyncpg is an extra
        return PostgresStore(url)
    raise ConfigError(f"no ledger can be kept at {url!r}", do="use sqlite:///PATH or postgresql://USER@HOST/DATABASE")
