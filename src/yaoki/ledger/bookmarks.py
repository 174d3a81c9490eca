"""What is remembered of a sink: how far each partition was delivered to it, who delivers, and what was set aside.

`Deliverer` asks for it through `Bookmarks`; a ledger in a SQL database keeps it there (`SqlBookmarks`), one in DynamoDB in a table
(`dynamodb/bookmarks.py`). Everything that is written stands only with the lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from yaoki.ledger.epochs import Row
from yaoki.ledger.leases import Lease, prove, take
from yaoki.ledger.notes import drills
from yaoki.ledger.records import Naming

if TYPE_CHECKING:
    from yaoki.ledger.ledger import Ledger

CONFLICT, FAILING, BEHIND = "corrupt", "failing", "behind"
"""Why a row was set aside: another content is there; it failed while others did not; one of its key failed before it."""

RETRY_FIRST_S, RETRY_CAP_S = 1.0, 300.0
MOST_ASIDE = 5000
"""Rows that wait to be tried again, and are looked at in one go."""
MOST_CONFLICTS = 100
"""Conflicts that are looked at again in one go: there may be as many as the sink has names."""


def retry_at(now: float, attempts: int) -> float:
    """When to try again after so many attempts: 1, 2, 4, ... seconds, at most 5 minutes."""
    return now + min(RETRY_FIRST_S * 2.0 ** (attempts - 1), RETRY_CAP_S)


class Outcome(msgspec.Struct, frozen=True):
    """How one row fared. state: stored, present, corrupt, failing, behind."""

    seq: int
    row: Row
    state: str
    error: str = ""

    @property
    def is_aside(self) -> bool:
        return self.state in {CONFLICT, FAILING, BEHIND}


class Aside(msgspec.Struct, frozen=True):
    """A row that was set aside. next_at: seconds since 1970."""

    seq: int
    key: str
    version: int
    reason: str
    attempts: int
    next_at: float


class Bookmarks(Protocol):
    """Of one ledger and one sink."""

    partitions: int

    async def begin(self) -> None:
        """From now on the sink is delivered to: nothing that is there may be pruned before it has it."""
        ...

    async def dropped(self) -> set[Naming]:
        """Versions that a drill wants lost."""
        ...

    async def take(self, part: int, owner: str) -> Lease | None:
        """Take or renew the right to deliver a partition. None: somebody else has it."""
        ...

    async def cursor(self, part: int) -> int:
        """The number of the next row to deliver."""
        ...

    async def end(self, part: int) -> int:
        """The number after the last sealed row."""
        ...

    async def rows(self, part: int, cursor: int, limit: int) -> list[tuple[int, Row]]:
        """The next sealed rows with their numbers and contents; from one epoch at most, [] if there are none."""
        ...

    async def blocked(self, part: int) -> set[str]:
        """Keys of which a row waits to be tried again."""
        ...

    async def settle(self, part: int, lease: Lease, aside: Sequence[Outcome], cursor: int) -> None:
        """Remember these rows as set aside, those that are not yet, and move the cursor. Raises `FencedError`."""
        ...

    async def waiting(self, part: int) -> list[Aside]:
        """What waits to be tried again, in the order of numbers; conflicts do not."""
        ...

    async def conflicts(self, part: int) -> list[Aside]:
        """Some of those whose name holds another content, and that are due to be looked at again."""
        ...

    async def content(self, key: str, version: int) -> bytes | None:
        """None: it was erased."""
        ...

    async def settle_retry(self, part: int, lease: Lease, outcome: Outcome, attempts: int) -> None:
        """Remember how another attempt ended; attempts: before it. Raises `FencedError`."""
        ...

    async def now(self) -> float: ...

    def close_epoch(self) -> None:
        """Forget contents that were read ahead: they may be erased before the next call."""
        ...


class SqlBookmarks:
    """In the ledger's own database."""

    def __init__(self, ledger: Ledger, sink: str) -> None:
        self.ledger = ledger
        self.store = ledger.store
        self.partitions = ledger.partitions
        self.sink = sink
        self._read = (-1, -1)
        self._rows: list[tuple[int, Row]] = []

    async def begin(self) -> None:
        # Before any lease is asked for: who has it may have died before it moved a cursor.
        async with self.store.transaction() as tx:
            await tx.execute_many(
                "INSERT INTO yaoki_ledger_cursor (sink, part, next_seq) SELECT ?1, ?2, coalesce(max(next_seq), 0) "
                "FROM yaoki_ledger_pruned WHERE part = ?2 ON CONFLICT (sink, part) DO NOTHING",
                [(self.sink, part) for part in range(self.partitions)])

    async def dropped(self) -> set[Naming]:
        return await drills(self.store, self.sink)

    async def take(self, part: int, owner: str) -> Lease | None:
        return await take(self.store, f"deliver/{self.sink}/{part}", owner)

    async def cursor(self, part: int) -> int:
        """What was pruned before a sink was added cannot reach it any more."""
        rows = await self.store.fetch(
            "SELECT coalesce(max(n), 0) FROM (SELECT next_seq AS n FROM yaoki_ledger_cursor WHERE sink = ?1 AND part = ?2 "
            "UNION ALL SELECT next_seq FROM yaoki_ledger_pruned WHERE part = ?2) AS either", self.sink, part)
        return int(rows[0][0])

    async def end(self, part: int) -> int:
        last = await self.ledger.last_epoch(part)
        return last.next_seq if last else 0

    async def rows(self, part: int, cursor: int, limit: int) -> list[tuple[int, Row]]:
        epoch = await self.ledger.epoch_at(part, cursor)
        if epoch is None:
            return []
        if self._read != (epoch.part, epoch.epoch):  # one reading serves all batches of an epoch
            self._rows = list(enumerate(await self.ledger.rows(epoch, content=True), epoch.first_seq))
            self._read = epoch.part, epoch.epoch
        first = cursor - epoch.first_seq
        return self._rows[first:first + limit]

    def close_epoch(self) -> None:
        self._read, self._rows = (-1, -1), []

    async def blocked(self, part: int) -> set[str]:
        rows = await self.store.fetch(
            "SELECT DISTINCT key FROM yaoki_ledger_quarantine WHERE sink = ?1 AND part = ?2 AND reason <> ?3",
            self.sink, part, CONFLICT)
        return {key for (key,) in rows}

    async def settle(self, part: int, lease: Lease, aside: Sequence[Outcome], cursor: int) -> None:
        async with self.store.transaction() as tx:
            await prove(tx, lease)
            now = await tx.now()
            for each in aside:
                # A conflict does not hold up its key: the next versions are other names.
                await tx.execute(
                    "INSERT INTO yaoki_ledger_quarantine VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8, ?9) "
                    "ON CONFLICT (sink, part, seq) DO NOTHING", self.sink, part, each.seq, each.row.key,
                    each.row.version, each.state, each.error, now, retry_at(now, 1))
            await tx.execute("INSERT INTO yaoki_ledger_cursor VALUES (?1, ?2, ?3) ON CONFLICT (sink, part) "
                             "DO UPDATE SET next_seq = excluded.next_seq", self.sink, part, cursor)

    async def waiting(self, part: int) -> list[Aside]:
        rows = await self.store.fetch(
            "SELECT seq, key, version, reason, attempts, next_at FROM yaoki_ledger_quarantine "
            "WHERE sink = ?1 AND part = ?2 AND reason <> ?3 ORDER BY seq LIMIT ?4", self.sink, part, CONFLICT, MOST_ASIDE)
        return [Aside(*row) for row in rows]

    async def conflicts(self, part: int) -> list[Aside]:
        rows = await self.store.fetch(
            "SELECT seq, key, version, reason, attempts, next_at FROM yaoki_ledger_quarantine "
            "WHERE sink = ?1 AND part = ?2 AND reason = ?3 AND next_at <= ?4 ORDER BY next_at, seq LIMIT ?5",
            self.sink, part, CONFLICT, await self.now(), MOST_CONFLICTS)
        return [Aside(*row) for row in rows]

    async def content(self, key: str, version: int) -> bytes | None:
        (found,) = await self.ledger.history(key, first=version, last=version)
        return found.content

    async def settle_retry(self, part: int, lease: Lease, outcome: Outcome, attempts: int) -> None:
        async with self.store.transaction() as tx:
            await prove(tx, lease)
            if not outcome.is_aside:
                await tx.execute("DELETE FROM yaoki_ledger_quarantine WHERE sink = ?1 AND part = ?2 AND seq = ?3",
                                 self.sink, part, outcome.seq)
                return
            await tx.execute(
                "UPDATE yaoki_ledger_quarantine SET reason = ?4, attempts = ?5, error = ?6, next_at = ?7 "
                "WHERE sink = ?1 AND part = ?2 AND seq = ?3", self.sink, part, outcome.seq, outcome.state,
                attempts + 1, outcome.error, retry_at(await tx.now(), attempts + 1))

    async def now(self) -> float:
        return await self.store.now()


__all__ = ["BEHIND", "CONFLICT", "FAILING", "Aside", "Bookmarks", "Outcome", "SqlBookmarks", "retry_at"]
