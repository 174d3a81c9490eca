"""One worker at a time seals a partition, delivers it, or audits a sink: a lease in the ledger's own database.

A lease has a `fence` that grows whenever it changes hands. Who holds it proves so inside each transaction that depends on
it (`Tx.lock_lease`); a worker that was paused for longer than its lease finds that out there, and writes nothing. Only the
database's clock counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from yaoki.errors import FencedError
from yaoki.ledger.store.port import Store, Tx

LEASE_S = 20.0
"""Long enough that a starved process does not lose its leases for nothing, short enough to be taken over soon."""

TAKE = """INSERT INTO yaoki_ledger_lease (name, owner, fence, held_until) VALUES (?1, ?2, 1, ?3)
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, held_until = excluded.held_until,
        fence = yaoki_ledger_lease.fence + CASE WHEN yaoki_ledger_lease.owner = excluded.owner THEN 0 ELSE 1 END
    WHERE yaoki_ledger_lease.owner = excluded.owner OR yaoki_ledger_lease.held_until < ?4
    RETURNING name, fence"""


class Lease(msgspec.Struct, frozen=True):
    """Proof that `owner` holds `name`, for as long as `fence` is the newest."""

    name: str
    owner: str
    fence: int


async def take(store: Store, name: str, owner: str, *, lease_s: float = LEASE_S) -> Lease | None:
    """Take or renew the lease for `lease_s` seconds. None: somebody else holds it."""
    async with store.transaction() as tx:
        return await take_in(tx, name, owner, lease_s=lease_s)


async def take_in(tx: Tx, name: str, owner: str, *, lease_s: float = LEASE_S) -> Lease | None:
    """The same as part of a transaction, in which it then needs no further proof."""
    now = await tx.now()
    return (await take_all(tx, [name], owner, now, lease_s=lease_s)).get(name)


async def take_all(tx: Tx, names: Sequence[str], owner: str, now: float, *, lease_s: float = LEASE_S) -> dict[str, Lease]:
    """The same for many, in one round trip. Returns those that are held now."""
    # Always in the same order: two workers that take the same leases never wait for each other in a circle.
    taken = await tx.fetch_many(TAKE, [(name, owner, now + lease_s, now) for name in sorted(names)])
    return {name: Lease(name, owner, int(fence)) for name, fence in taken}


async def prove(tx: Tx, lease: Lease) -> None:
    """Raise `FencedError` unless the lease still stands; it then stands until the transaction ends."""
    if not await tx.lock_lease(lease.name, lease.owner, lease.fence):
        raise FencedError(f"{lease.owner} no longer holds {lease.name}: another worker took over",
                          do="nothing: the other worker goes on", name=lease.name, fence=lease.fence)


async def give_up(store: Store, lease: Lease) -> None:
    """Let the next worker in at once."""
    async with store.transaction() as tx:
        await tx.execute("UPDATE yaoki_ledger_lease SET held_until = 0 WHERE name = ?1 AND owner = ?2 AND fence = ?3",
                         lease.name, lease.owner, lease.fence)


async def give_up_all(store: Store, owner: str) -> None:
    """Let others in at once everywhere: this worker ends."""
    async with store.transaction() as tx:
        await tx.execute("UPDATE yaoki_ledger_lease SET held_until = 0 WHERE owner = ?1", owner)
