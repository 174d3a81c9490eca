"""`embedded` and `postgres`: the store itself carries messages to every service that opens it. No server of its own.

What is published with data (`Outbox`) is on the broker the moment it commits: there is nothing to relay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self

from yaoki import runtime
from yaoki.errors import FencedError
from yaoki.messages.brokers.port import Delivery
from yaoki.messages.envelope import Message
from yaoki.messages.lanes import Lanes
from yaoki.messages.store.opening import open_store
from yaoki.messages.store.port import Entry, Store


class StoredBroker:
    """The log of a store as a broker.

    Args:
        store: an open one. lease_s: a silent reader's messages go to another after this.
    """

    def __init__(self, store: Store, *, lease_s: float = 15.0) -> None:
        self.store = store
        self.lease_s = lease_s
        self.name = "embedded" if store.url.startswith("sqlite") else "postgres"
        self.durability = store.durability

    @classmethod
    async def open(cls, url: str, *, lease_s: float = 15.0) -> Self:
        return cls(await open_store(url), lease_s=lease_s)

    def address(self, type_: str) -> str:
        """Where messages of a type travel, as AsyncAPI documents say it: the type is a column of the log."""
        return type_

    async def publish(self, messages: Sequence[Message]) -> None:
        await self.store.append(messages)

    async def subscribe(self, group: str, types: Collection[str]) -> StoredSubscription:
        await self.store.declare(group, types, since="beginning")
        return StoredSubscription(self.store, group, types, self.lease_s)

    async def close(self) -> None:
        await self.store.close()


class StoredSubscription:
    """Reads by leased partitions; an acknowledgement moves their cursors."""

    def __init__(self, store: Store, group: str, types: Collection[str], lease_s: float) -> None:
        self.store = store
        self.group = group
        self.types = frozenset(types)
        self.lease_s = lease_s
        self.lanes = Lanes(limit=2_000)
        self._worker = runtime.new_id()
        self._balance_at = 0.0

    async def fetch(self, limit: int, wait_s: float) -> list[Delivery]:
        until = runtime.monotonic() + wait_s
        while True:
            if runtime.monotonic() >= self._balance_at:
                await self._balance()
            page = await self.store.read(self.types, self.lanes.after(), min(limit, max(1, self.lanes.room)))
            # A message that is not due yet is delivered all the same: the reader's own store keeps it until then.
            self.lanes.offer(page, now=float("inf"))
            batch = self.lanes.take_batch(limit)
            left_s = min(until, self._balance_at) - runtime.monotonic()
            if batch or runtime.monotonic() >= until:
                return [Delivery(entry.message, entry) for entry in batch]
            if not page.more:
                await self.store.wait_changed(max(0.0, left_s))

    async def _balance(self) -> None:
        # Also where nothing was for this group: what it has passed by must not be kept for it.
        await self._settle(all_parts=True)
        share = await self.store.balance(self.group, self._worker, self.lease_s)
        self._balance_at = runtime.monotonic() + share.check_in_s
        self.lanes.grant(share.leases.values())
        idle = [part for part in share.surplus if self.lanes.is_idle(part)]
        if idle:
            await self.store.release(self.group, self._worker, idle, leaving=False)
            self.lanes.grant(lease for part, lease in share.leases.items() if part not in idle)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for each in deliveries:
            entry: Entry = each.token
            self.lanes.finish(entry)
        await self._settle()

    async def _settle(self, *, all_parts: bool = False) -> None:
        settlement = self.lanes.settlement(all_parts=all_parts)
        if not settlement:
            return
        try:
            await self.store.settle(self.group, settlement)
        except FencedError:
            # Another reader has them now and will see them again; that is what "at least once" allows.
            self.lanes.forget()
            self._balance_at = 0.0

    async def close(self) -> None:
        settlement = self.lanes.settlement(all_parts=True)
        try:
            if settlement:
                await self.store.settle(self.group, settlement)
        except FencedError:
            return
        finally:
            await self.store.release(self.group, self._worker, self.lanes.parts, leaving=True)
