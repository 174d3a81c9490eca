"""Seal what is ready, all partitions together, in few round trips and one commit.

    leases taken ──▶ newest epochs read ──▶ what is ready after them read ──▶ epochs made (pure) ──▶ written

Each arrow is one statement for all partitions. Reading comes after the leases are held: what another worker sealed until
then is seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from yaoki.ledger.epochs import Epoch, seal_all
from yaoki.ledger.leases import take_all
from yaoki.ledger.store.port import SqlRow, Tx

EPOCH_COLUMNS = ("part, epoch, first_seq, row_count, count, sum128, sketch, beat, until_xid, until_pos, sealed_at, root, "
                 "previous, hash")
INSERT_EPOCH = (f"INSERT INTO yaoki_ledger_epoch ({EPOCH_COLUMNS}) "  # noqa: S608  only our own column names
                "VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)")
SELECT_EPOCH = f"SELECT {EPOCH_COLUMNS} FROM yaoki_ledger_epoch WHERE part = ?1 "  # noqa: S608
NEWEST_EPOCH = SELECT_EPOCH + "ORDER BY epoch DESC LIMIT 1"

SEAL_ROWS = 5000
"""Most rows an epoch holds. Reading and sealing so many takes some 50 ms."""


async def seal_mine(tx: Tx, parts: Sequence[int], owner: str) -> list[Epoch]:
    """Seal an epoch in each of these partitions whose lease is, or can be, `owner`'s."""
    now = await tx.now()
    taken = await take_all(tx, [f"seal/{part}" for part in parts], owner, now)
    mine = [part for part in parts if f"seal/{part}" in taken]
    return await seal_in(tx, mine, now) if mine else []


async def seal_in(tx: Tx, parts: Sequence[int], now: float) -> list[Epoch]:
    """Seal an epoch in each of these partitions, whose leases are held until the transaction ends."""
    newest = {epoch.part: epoch for epoch in map(epoch_of, await tx.fetch_many(NEWEST_EPOCH, [(part,) for part in parts]))}
    after = {part: newest[part].until if part in newest else (0, 0) for part in parts}
    epochs = seal_all(newest, await tx.ready(after, SEAL_ROWS), now)
    await tx.execute_many(INSERT_EPOCH, [
        (each.part, each.epoch, each.first_seq, each.rows, each.count, each.sum128, each.sketch, each.beat, *each.until,
         each.sealed_at, each.root, each.previous, each.hash) for each in epochs])
    if any(each.count for each in epochs):
        await tx.tell()
    return epochs


def epoch_of(row: SqlRow) -> Epoch:
    """An epoch as it is stored, in the order of `EPOCH_COLUMNS`."""
    (part, number, first, rows, count, sum128, sketch, beat, xid, pos, at, root, previous, own) = row
    return Epoch(part=part, epoch=number, first_seq=first, rows=rows, count=count, sum128=sum128, sketch=sketch, beat=beat,
                 until=(xid, pos), sealed_at=at, root=root, previous=previous, hash=own)
