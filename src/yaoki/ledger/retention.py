"""Let go of old rows, and keep proving everything else.

    prune(ledger, before)     epochs sealed before that time, delivered and audited everywhere ──▶ mark ──▶ rows go

What goes is whole epochs from the beginning of each partition. Their records stay (half a kilobyte each), with count, sum
and hash: the chain stays whole and can be verified from its first link, and versions go on being numbered from where they
were. What was there is still known; what was in it no longer is. Nothing goes that a sink still needs:

    not delivered to some sink · quarantined · not audited · a finding is open in its partition

In SQLite rows are deleted, some thousand a transaction; in PostgreSQL whole days are dropped, once every row of the day may
go. The triggers that keep a ledger append-only let nothing else go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from yaoki import events
from yaoki.events import LedgerPruned
from yaoki.ledger.epochs import Position
from yaoki.ledger.notes import all_progress, load_findings
from yaoki.ledger.store.port import Store

if TYPE_CHECKING:
    from yaoki.ledger.ledger import Ledger

CURSORS = """SELECT sink, next_seq FROM yaoki_ledger_cursor WHERE part = ?1"""
QUARANTINED = "SELECT coalesce(min(seq), -1) FROM yaoki_ledger_quarantine WHERE part = ?1"
ENDS = """SELECT epoch, first_seq + row_count, until_xid, until_pos, sealed_at FROM yaoki_ledger_epoch
    WHERE part = ?1 AND sealed_at < ?2 AND first_seq + row_count <= ?3 ORDER BY epoch DESC LIMIT 1"""
MARK = """INSERT INTO yaoki_ledger_pruned (part, epoch, next_seq, until_xid, until_pos, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (part) DO UPDATE SET epoch = excluded.epoch, next_seq = excluded.next_seq, until_xid = excluded.until_xid,
        until_pos = excluded.until_pos, at = excluded.at WHERE yaoki_ledger_pruned.epoch < excluded.epoch"""
MARKS = "SELECT part, epoch, next_seq, until_xid, until_pos FROM yaoki_ledger_pruned"


class Mark(msgspec.Struct, frozen=True):
    """How much of a partition was let go: through `epoch`, rows before number `next_seq`, up to position `until`."""

    epoch: int
    next_seq: int
    until: Position


class Pruned(msgspec.Struct, kw_only=True):
    """What a pruning did, or would do.

    Attributes:
        rows: rows that were marked to go now.
        through: the newest epoch that goes, by partition.
        held: why more was not let go, by partition.
        waiting: days of PostgreSQL that go when all their rows may, and could not go yet.
    """

    rows: int = 0
    through: dict[int, int] = msgspec.field(default_factory=dict)
    held: dict[int, str] = msgspec.field(default_factory=dict)
    waiting: list[str] = msgspec.field(default_factory=list)


class Holder(msgspec.Struct, frozen=True):
    """What keeps rows of a partition: rows from number `seq` on, sealed from `since` on, because of `why`."""

    seq: float
    since: float
    why: str


async def marks(store: Store) -> dict[int, Mark]:
    """What was let go so far, by partition."""
    rows = await store.fetch(MARKS)
    return {part: Mark(epoch, next_seq, (xid, pos)) for part, epoch, next_seq, xid, pos in rows}


async def prune(ledger: Ledger, before: float, *, dry_run: bool = False) -> Pruned:
    """Let go of what was sealed before this time (seconds since 1970) and nobody needs any more.

    Safe to repeat, to interrupt, and to run in several processes.
    """
    result, done = Pruned(), await marks(ledger.store)
    for part in range(ledger.partitions):
        holders = await _holders(ledger, part)
        seq = min((each.seq for each in holders), default=float("inf"))
        since = min((each.since for each in holders), default=float("inf"))
        found = await _end(ledger, part, min(before, since), seq)
        wanted = await _end(ledger, part, before, float("inf"))
        if wanted is not None and (found is None or found.epoch < wanted.epoch):
            result.held[part] = "; ".join(sorted({each.why for each in holders}))
        if found is not None and (part not in done or done[part].epoch < found.epoch):
            result.rows += found.next_seq - (done[part].next_seq if part in done else 0)
            result.through[part] = found.epoch
            done[part] = found
    if not dry_run:
        await _mark(ledger, done, result)
        result.waiting = await ledger.store.remove({part: mark.until for part, mark in done.items()})
        events.emit(LedgerPruned(ledger=ledger.name, rows=result.rows, held=len(result.held)))
    return result


async def _end(ledger: Ledger, part: int, before: float, seq: float) -> Mark | None:
    """The newest epoch sealed before this time whose rows all have lower numbers."""
    rows = await ledger.store.fetch(ENDS, part, min(before, 1e18), int(min(seq, 1 << 62)))
    return Mark(rows[0][0], rows[0][1], (rows[0][2], rows[0][3])) if rows else None


async def _holders(ledger: Ledger, part: int) -> list[Holder]:
    nothing, never = float("inf"), float("inf")
    found = [Holder(seq, never, f"{sink} has not all of it yet") for sink, seq in await ledger.store.fetch(CURSORS, part)]
    ((quarantined,),) = await ledger.store.fetch(QUARANTINED, part)
    if quarantined >= 0:
        found.append(Holder(quarantined, never, "a version is quarantined"))
    for progress in await all_progress(ledger.store):
        found.append(Holder(nothing, progress.audited_through, f"{progress.sink} is audited only up to then"))
        open_ones = [each for each in await load_findings(ledger.store, progress.sink) if each.part in {str(part), ""}]
        found += [Holder(nothing, each.written_at, f"finding {each.id} is open") for each in open_ones if each.version >= 0]
    return found


async def _mark(ledger: Ledger, done: Mapping[int, Mark], result: Pruned) -> None:
    async with ledger.store.transaction() as tx:
        now = await tx.now()
        await tx.execute_many(MARK, [
            (part, done[part].epoch, done[part].next_seq, *done[part].until, now) for part in result.through])
