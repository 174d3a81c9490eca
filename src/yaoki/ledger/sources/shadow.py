"""A file beside somebody else's pipeline: every version known to exist, and a copy of those seen in the stream.

The stream forgets after 24 hours; this does not. A version is known from the stream (with a copy of its record) or from the
table, whose newest version of a key says that all before it existed too (without copies). That is the missing source of
repair, and what tells *nothing was written* from *nothing arrived*.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

import msgspec

from yaoki.ledger.records import Batch, Naming, Record, check_version, is_beat
from yaoki.ledger.store.port import Tx
from yaoki.ledger.store.sqlite import SqliteStore
from yaoki.ledger.verdicts import Beat

SCHEMA = """
CREATE TABLE IF NOT EXISTS yaoki_shadow_version (
    key TEXT NOT NULL, version INTEGER NOT NULL, shard TEXT NOT NULL, record TEXT, digest BLOB NOT NULL DEFAULT x'',
    at REAL NOT NULL, PRIMARY KEY (key, version)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS yaoki_shadow_version_at ON yaoki_shadow_version (at);
CREATE TABLE IF NOT EXISTS yaoki_shadow_shard (shard TEXT PRIMARY KEY, place TEXT NOT NULL, closed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS yaoki_shadow_beat (
    key TEXT NOT NULL, number INTEGER NOT NULL, shard TEXT NOT NULL DEFAULT '', at REAL NOT NULL,
    transported INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (key, number)) WITHOUT ROWID;
"""

KNOW = """INSERT INTO yaoki_shadow_version (key, version, shard, record, digest, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (key, version) DO UPDATE SET record = coalesce(record, excluded.record),
        shard = CASE WHEN shard = '' THEN excluded.shard ELSE shard END,
        digest = CASE WHEN digest = x'' THEN excluded.digest ELSE digest END"""

PAGE = 2000
BEATS_KEPT = 240


class Seen(msgspec.Struct, frozen=True):
    """A version seen in a transport. `record`: JSON text from which it can be delivered again, or "" for none."""

    key: str
    version: int
    at: float
    shard: str = ""
    record: str = ""
    digest: bytes = b""


class Shadow:
    """What is known of a pipeline that is not ours, in one SQLite file (together with findings and progress)."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store

    async def open(self) -> None:
        """Make the tables. The store is open already."""
        async with self.store.transaction() as tx:
            for statement in SCHEMA.split(";"):
                if statement.strip():
                    await tx.execute(statement)

    async def note(self, seen: Sequence[Seen], *, shard: str = "", place: str = "", closed: bool = False) -> None:
        """Remember versions together with how far the shard was read: both or neither."""
        async with self.store.transaction() as tx:
            for each in seen:
                check_version(each.version, f"the stream's record of {each.key}")
                if is_beat(each.key):
                    await tx.execute("UPDATE yaoki_shadow_beat SET transported = 1, shard = ?3 WHERE key = ?1 AND number = ?2",
                                     each.key, each.version, each.shard)
                else:
                    await tx.execute(KNOW, each.key, each.version, each.shard, each.record or None, each.digest, each.at)
            if shard:
                await self._keep_place(tx, shard, place, closed=closed)

    async def _keep_place(self, tx: Tx, shard: str, place: str, *, closed: bool) -> None:
        await tx.execute("INSERT INTO yaoki_shadow_shard VALUES (?1, ?2, ?3) ON CONFLICT (shard) DO UPDATE SET "
                         "place = excluded.place, closed = excluded.closed", shard, place, int(closed))

    async def note_heads(self, heads: Iterable[Naming], at: float, *, first: int) -> int:
        """Remember that these keys have these newest versions, hence all versions from `first` on. Returns how many are new."""
        new = 0
        async with self.store.transaction() as tx:
            for key, head in heads:
                ((known, lowest),) = await tx.fetch(
                    "SELECT coalesce(max(version), -1), coalesce(min(version), -1) FROM yaoki_shadow_version WHERE key = ?1", key)
                missing = [*range(first, lowest if lowest >= 0 else first), *range(max(known + 1, first), head + 1)]
                for version in missing:
                    await tx.execute(KNOW, key, version, "", None, b"", at)
                new += len(missing)
        return new

    async def places(self) -> dict[str, tuple[str, bool]]:
        """How far each shard was read: (place, is it closed and read to its end?)."""
        rows = await self.store.fetch("SELECT shard, place, closed FROM yaoki_shadow_shard")
        return {shard: (place, bool(closed)) for shard, place, closed in rows}

    # ── what a source asks ───────────────────────────────────────────────────────────────────────────────────────────

    async def versions(self) -> AsyncIterator[Batch]:
        """Every version known to exist."""
        after = ("", -1)
        while rows := await self.store.fetch(
                "SELECT key, version, digest, at FROM yaoki_shadow_version WHERE (key, version) > (?1, ?2) "
                "ORDER BY key, version LIMIT ?3", *after, PAGE):
            yield Batch(*(list(column) for column in zip(*rows, strict=True)))
            after = rows[-1][0], rows[-1][1]

    async def recent(self, after: float, until: float, most: int) -> list[Record] | None:
        rows = await self.store.fetch("SELECT key, version, digest, at FROM yaoki_shadow_version WHERE at > ?1 AND at <= ?2 "
                                      "LIMIT ?3", after, until, most + 1)
        return [Record(*row) for row in rows] if len(rows) <= most else None

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        return [Record(*row) for name in names for row in await self.store.fetch(
            "SELECT key, version, digest, at FROM yaoki_shadow_version WHERE key = ?1 AND version = ?2", *name)]

    async def records(self, names: Sequence[Naming]) -> dict[Naming, str]:
        """The copies of these versions, where there are any."""
        found = {}
        for name in names:
            for (record,) in await self.store.fetch("SELECT record FROM yaoki_shadow_version WHERE key = ?1 AND version = ?2 "
                                                    "AND record IS NOT NULL", *name):
                found[name] = record
        return found

    # ── beats ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def note_beat(self, key: str, number: int, at: float) -> None:
        """Remember a beat just before it is written: written or not, its absence downstream is then asked about."""
        async with self.store.transaction() as tx:
            await tx.execute("INSERT INTO yaoki_shadow_beat (key, number, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                             key, number, at)

    async def forget_beat(self, key: str, number: int) -> None:
        """It could not be written after all."""
        async with self.store.transaction() as tx:
            await tx.execute("DELETE FROM yaoki_shadow_beat WHERE key = ?1 AND number = ?2", key, number)

    async def beat_keys(self) -> dict[str, tuple[str, int]]:
        """The shard of each key that beats, "" while it is not known, and its newest number."""
        rows = await self.store.fetch("SELECT key, max(number) FROM yaoki_shadow_beat GROUP BY key ORDER BY min(at), key")
        found = {}
        for key, number in rows:
            shard = await self.store.fetch("SELECT shard FROM yaoki_shadow_beat WHERE key = ?1 AND shard <> '' "
                                           "ORDER BY number DESC LIMIT 1", key)
            found[key] = (shard[0][0] if shard else "", number)
        return found

    async def beats(self, key: str) -> tuple[list[Beat], frozenset[int]]:
        """(the newest beats of a key, oldest first; the numbers of those seen in the transport)."""
        rows = await self.store.fetch("SELECT number, at, transported FROM yaoki_shadow_beat WHERE key = ?1 "
                                      "ORDER BY number DESC LIMIT ?2", key, BEATS_KEPT)
        return ([Beat(number, at) for number, at, _ in reversed(rows)],
                frozenset(number for number, _, transported in rows if transported))
