"""Messages in a universe: the real stores, consumers, relays and inboxes, on virtual time, with a point wherever they meet the world.

    app = Messages("orders", mail_store(world, "orders.db"), broker=mail_broker(world, "broker"))

    publish ──commit──▶ store ──relay──▶ broker ──deliver──▶ inbox ──commit──▶ store ──▶ handler ──commit──▶ ...
               At.COMMIT         At.SEND         At.RECEIVE        At.COMMIT  ack At.ACK           At.COMMIT

The statements are those of `SqliteStore` and `StoredBroker`, the embedded broker. Taking and renewing leases are no points of their
own: whoever dies there has done nothing that the next owner of the lease could see.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from yaoki import effect as effects
from yaoki import runtime
from yaoki.chaos.faults import At
from yaoki.errors import BrokerError, StoreError
from yaoki.explore.databases import Database, database
from yaoki.explore.dialect import OurDialect
from yaoki.explore.runtime import InlineWorker
from yaoki.explore.world import World
from yaoki.messages.brokers.port import Delivery
from yaoki.messages.brokers.stored import StoredBroker, StoredSubscription
from yaoki.messages.envelope import Message
from yaoki.messages.store import sqlite_sql as sql
from yaoki.messages.store.port import Entry, Held, Position, Settlement
from yaoki.messages.store.sqlite import SqliteStore, SqliteTx

T = TypeVar("T")

DELAY_S = 30.0
"""How late a delayed message comes: later than any lease of a test."""
POISON = b"\xff\xfe{not a message"
BROKER_LEASE_S = 2.0
"""How long the broker waits for a reader that says nothing."""
_WHAT_IS_DURABLE = (
    "SELECT part, id, source, data FROM yaoki_messages ORDER BY pos", "SELECT grp, part, pos FROM yaoki_cursors WHERE pos > 0 ORDER BY grp, part",
    "SELECT grp, part, pos, state, attempts FROM yaoki_held ORDER BY grp, part, pos")


class _MailDialect(OurDialect):
    """What a store of messages says of its disk, and a broker of itself."""

    def __init__(self, kind: type[StoreError | BrokerError]) -> None:
        self._kind = kind

    def _said(self, site: str, what: str) -> Any:
        return self._kind(f"{site}: {what}", do="simulated by the explorer")

    def refused(self, site: str) -> Any:
        return self._said(site, "refused: nothing was written")

    def in_doubt(self, site: str) -> Any:
        return self._said(site, "the connection was lost after it was sent")

    def timed_out(self, site: str, after_s: float) -> Any:
        return self._said(site, f"no answer within {after_s:g} s")

    def throttled(self, site: str) -> Any:
        return self._said(site, "too much at once")

    def failed(self, site: str) -> Any:
        return self._said(site, "failed")

    def conflict(self, site: str) -> Any:
        return self._said(site, "database is locked")

    def exhausted(self, site: str) -> Any:
        return self._said(site, "no connection is free")


_STORE, _BROKER = _MailDialect(StoreError), _MailDialect(BrokerError)


# ── the store of one service ──


class SimMailStore(SqliteStore):
    """A `SqliteStore` on a database that outlives the process.

    Args:
        points: may a fault strike at its commits? Not inside a broker, which is met by its own points.
    """

    def __init__(self, world: World, box: Database, *, points: bool = True) -> None:
        connected = InlineWorker(), box.connection
        super().__init__(box.name, connected, connected, power_safe=True)
        self.bell = box.bell
        self._world = world
        self._box = box
        self._points = points
        self._labels: list[str] = []
        self._is_news = False

    async def append(self, messages: Sequence[Message]) -> None:
        if messages:
            self._labels.append(f"append:{messages[0].type}")
            self._is_news = True
        await super().append(messages)

    async def settle(self, group: str, settlement: Settlement) -> None:
        if settlement.cursors or settlement.hold or settlement.drop or settlement.publish:
            self._labels.append(f"settle:{group}")
            self._is_news = self._is_news or bool(settlement.publish or settlement.hold or settlement.drop)
        await super().settle(group, settlement)

    async def rewrite(self, group: str, rows: Sequence[Held]) -> None:
        self._is_news = True
        await super().rewrite(group, rows)

    async def discard(self, group: str, rows: Sequence[tuple[int, Position]]) -> None:
        self._is_news = True
        await super().discard(group, rows)

    async def _flush(self) -> None:
        """As the real one, with the lock that a power cut frees. It wakes nobody for a lease or a cursor: whoever is woken for
        those looks, finds nothing and sleeps again, which was half of all that a universe did.
        """
        effects.current.set(None)  # what is written together belongs to several effects, and to none of them alone
        try:
            while self._writes or self._appends:
                async with self._box.locked(self):
                    appends, self._appends = self._appends, []
                    writes, self._writes = self._writes, []
                    is_news, self._is_news = self._is_news, False
                    await self._commit(appends, writes)
                if is_news:
                    self.bell.ring()
        finally:
            self._flusher = None

    async def _commit(self, appends: list[tuple[Sequence[Message], asyncio.Future[Any]]],
                      writes: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]]) -> None:
        labels, self._labels = self._labels, []
        futures = [future for _, future in appends] + [future for _, future in writes]

        def write() -> list[Any]:
            return sql.commit(self._box.connection, [each for each, _ in appends], [work for work, _ in writes])

        try:
            outcomes = await self._at_point(min(labels, default=""), write)
        except Exception as error:
            outcomes = [error] * len(futures)
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    async def _at_point(self, what: str, write: Callable[[], T]) -> T:
        """Carry out a commit where a fault can strike, if there is anything to it but leases."""
        if not self._points or not what:
            return write()
        kept: list[T] = []  # what a transaction gives is not for the eyes of the key of a state
        await self._world.call(self._box.name, what, lambda: kept.append(write()), kind=At.COMMIT, dialect=_STORE, timeout_s=None)
        return kept[-1]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteTx]:
        async with self._box.locked(self) as connection:
            sql.begin(connection)
            try:
                yield SqliteTx(connection)
                await self._at_point("transaction", connection.commit)
            except BaseException:
                connection.rollback()
                raise
        self.bell.ring()

    async def wait_changed(self, timeout_s: float) -> None:
        """Everybody who writes here rings this bell, so nobody has to look at the file."""
        await self.bell.wait(self.bell.rings, timeout_s)

    async def close(self) -> None:
        """Finish what was begun; the database stays."""
        while self._flusher is not None:
            await asyncio.wait([self._flusher])


def mail_store(world: World, name: str) -> SimMailStore:
    """The store of messages in the database of that name: the same after a power cut, with a new life."""
    return SimMailStore(world, database(world, name, prepare=sql.migrate, digest=_WHAT_IS_DURABLE))


# ── the broker ──


class BrokerBox(Database):
    """The database of a broker, which forgets who had which message when it is started again."""

    def lose_memory(self) -> None:
        self.connection.execute("UPDATE yaoki_cursors SET owner = '', lease_until = 0, fence = fence + 1")
        self.connection.execute("DELETE FROM yaoki_members")
        self.bell.ring()


class SimBroker:
    """The embedded broker behind a network: what is sent, delivered and acknowledged can be lost, doubled, late and out of order.

    Args:
        timeout: seconds after which its clients give up on an answer.
        delay: seconds by which a delayed message is late.
    """

    def __init__(self, world: World, name: str, *, timeout: float = 5.0, delay: float = DELAY_S) -> None:
        box = world.services.get(name)
        if box is None:
            box = world.services[name] = BrokerBox(world, name, prepare=sql.migrate, digest=_WHAT_IS_DURABLE)
        self.box: Database = box
        self.name = name
        self.timeout = timeout
        self.delay = delay
        self._world = world
        self._inner = StoredBroker(SimMailStore(world, box, points=False), lease_s=BROKER_LEASE_S)
        self.durability = self._inner.durability

    async def publish(self, messages: Sequence[Message]) -> None:
        what = f"publish:{messages[0].type}" if messages else "publish"
        await self._world.call(self.name, what, lambda: self._inner.publish(messages), kind=At.SEND, dialect=_BROKER, timeout_s=self.timeout,
                               variants={"msg.drop": lambda: None})

    async def subscribe(self, group: str, types: Collection[str]) -> SimSubscription:
        return SimSubscription(self, group, await self._inner.subscribe(group, types))

    async def close(self) -> None:
        await self._inner.close()


class SimSubscription:
    """One reader's way to the broker."""

    def __init__(self, broker: SimBroker, group: str, inner: StoredSubscription) -> None:
        self._broker = broker
        self._group = group
        self._inner = inner

    async def fetch(self, limit: int, wait_s: float) -> list[Delivery]:
        broker, bell = self._broker, self._broker.box.bell
        until = runtime.monotonic() + wait_s
        while True:
            heard = bell.rings
            found = await self._inner.fetch(limit, 0.0)
            if found:
                break
            if runtime.monotonic() >= until:
                return []
            await bell.wait(heard, until - runtime.monotonic())
        delivered: list[Delivery] = []

        def hand_over(batch: list[Delivery]) -> list[str]:
            """What it is told is a part of the reader's state: which messages, how often, in which order."""
            delivered.extend(batch)
            return [each.message.id for each in batch]

        await broker._world.call(broker.name, f"deliver:{self._group}", lambda: hand_over(found), kind=At.RECEIVE, dialect=_BROKER,
                                 timeout_s=broker.timeout, variants=self._variants(found, hand_over))
        return delivered

    def _variants(self, found: list[Delivery], hand_over: Callable[[list[Delivery]], list[str]]) -> dict[str, Callable[[], Any]]:
        async def late() -> list[str]:
            await asyncio.sleep(self._broker.delay)
            return hand_over(found)

        variants: dict[str, Callable[[], Any]] = {
            "msg.duplicate": lambda: hand_over([*found, *found]), "msg.delay": late,
            "msg.poison": lambda: hand_over([self._poisoned(found[0]), *found[1:]])}
        keys = list(dict.fromkeys(each.message.key for each in found))
        if len(keys) > 1:  # a key's messages stay in order: that is what a broker promises
            variants["msg.reorder"] = lambda: hand_over(sorted(found, key=lambda each: -keys.index(each.message.key)))
        return variants

    def _poisoned(self, delivery: Delivery) -> Delivery:
        """Its data is garbage, now and whenever it comes again."""
        entry: Entry = delivery.token
        self._broker.box.connection.execute("UPDATE yaoki_messages SET data = ? WHERE pos = ?", (POISON, entry.position[1]))
        return Delivery(msgspec.structs.replace(delivery.message, data=POISON), entry)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        broker = self._broker
        await broker._world.call(broker.name, f"ack:{self._group}", lambda: self._inner.ack(deliveries), kind=At.ACK, dialect=_BROKER,
                                 timeout_s=broker.timeout, variants={"msg.redeliver": self._forget})

    def _forget(self) -> None:
        """The acknowledgement never came: the broker delivers all of it again."""
        for part in self._inner.lanes.parts:
            self._inner.lanes.revoke(part)
        self._inner._balance_at = 0.0

    async def close(self) -> None:
        await self._inner.close()


def mail_broker(world: World, name: str = "broker", *, timeout: float = 5.0, delay: float = DELAY_S) -> SimBroker:
    """The broker of that name, as one process sees it. delay: by how many seconds a delayed message is late."""
    return SimBroker(world, name, timeout=timeout, delay=delay)
