"""A stream for scenarios: shards in order, read by position, with everything that goes wrong between a table and its trigger.

    append ──▶ shard of the key ──read(shard, position)──▶ records, next position
                  └─ split: closed, and its keys go on in two others, which begin where it ends

What it leaves out is retention: nothing is trimmed.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from yaoki.chaos.faults import At
from yaoki.errors import RefusedError
from yaoki.explore import world as worlds
from yaoki.explore.store import copied, universe

# How long a stuck trigger or shard delivers nothing: longer than most promises of how soon something arrives.
STUCK_S = 120.0


class PositionExpiredError(RefusedError):
    """The position in the stream is too old: ask again from the last one that was kept."""

    code = "YK-1394"
    why = "The explorer made the stream answer like this, once. Iterators of real streams expire after minutes."


class Arrival(msgspec.Struct):
    """One record of a shard."""

    key: str
    data: Any
    at: float = 0.0


class Page(msgspec.Struct):
    """What a read gives: records, the position after them, and whether the shard ends there."""

    records: list[Arrival]
    next: int
    closed: bool = False


class Shard(msgspec.Struct):
    """One shard. `low` and `high` bound the hashes of its keys; `parent` is read before it."""

    id: str
    low: int
    high: int
    parent: str = ""
    records: list[Arrival] = []
    closed: bool = False


class Channel:
    """What a stream keeps."""

    def __init__(self, shards: int) -> None:
        width = (1 << 32) // shards
        self.shards = {f"s{n}": Shard(f"s{n}", n * width, (1 << 32) if n == shards - 1 else (n + 1) * width) for n in range(shards)}
        self.stuck: dict[str, float] = {}  # shard, or "*" for the whole trigger → until

    def lose_memory(self) -> None:
        """A stream keeps what it took."""

    def digest(self) -> Any:
        return [(each.id, len(each.records), each.closed) for each in self.shards.values()], sorted(self.stuck)

    def add(self, record: Arrival) -> None:
        number = zlib.crc32(record.key.encode())
        shard = next(each for each in self.shards.values() if not each.closed and each.low <= number < each.high)
        shard.records.append(record)

    def split(self, parent: Shard) -> None:
        parent.closed = True
        middle = (parent.low + parent.high) // 2
        for half, low, high in (("a", parent.low, middle), ("b", middle, parent.high)):
            name = f"{parent.id}{half}"
            self.shards[name] = Shard(name, low, high, parent=parent.id)


class FakeStream:
    """A stream of records by key.

    Args:
        name: its name in sites and timelines.
        shards: at the beginning.
        poll: seconds between looks at a shard with nothing new.
    """

    def __init__(self, name: str, *, shards: int = 1, poll: float = 0.5, timeout: float | None = 5.0) -> None:
        self.name = name
        self._shards = shards
        self.poll = poll
        self.timeout = timeout

    @property
    def channel(self) -> Channel:
        """What it keeps, without a call: for invariants."""
        world = universe()
        channel = world.services.get(self.name)
        if channel is None:
            channel = world.services[self.name] = Channel(self._shards)
        return channel

    def capture(self, key: str, data: Any) -> None:
        """Take in a change: what a table does with its stream in the write itself, so that it cannot fail for itself."""
        self.channel.add(Arrival(key, copied(data), universe().now))

    async def shards(self) -> list[tuple[str, str]]:
        """Each shard and its parent, "" for none."""
        channel = self.channel
        return await universe().call(self.name, "shards", lambda: [(each.id, each.parent) for each in channel.shards.values()],  # type: ignore[no-any-return]
                                     kind=At.READ, timeout_s=self.timeout)

    async def read(self, shard: str, position: int = 0, *, limit: int = 100, wait_s: float = 1.0) -> Page:
        """The next records of a shard, waiting a while for the first.

        Args:
            position: where to go on: 0, or what the last page said.

        Raises:
            PositionExpiredError: ask again, from the position that was kept.
        """
        world, channel = universe(), self.channel
        until = world.now + wait_s
        while self._waits(channel, shard, position):
            if world.now >= until:
                return Page([], position)
            await asyncio.sleep(self.poll)
        return await world.call(self.name, f"read {shard}", lambda: self._page(channel, shard, position, limit), kind=At.STREAM,  # type: ignore[no-any-return]
                                timeout_s=self.timeout, variants=self._variants(channel, shard, position, limit))

    def _waits(self, channel: Channel, shard: str, position: int) -> bool:
        now = universe().now
        if any(now < channel.stuck.get(name, 0.0) for name in (shard, "*")):
            return True
        found = channel.shards[shard]
        return position >= len(found.records) and not found.closed

    @staticmethod
    def _page(channel: Channel, shard: str, position: int, limit: int) -> Page:
        found = channel.shards[shard]
        records = found.records[position:position + limit]
        after = position + len(records)
        return Page([copied_record(each) for each in records], after, closed=found.closed and after >= len(found.records))

    def _variants(self, channel: Channel, shard: str, position: int, limit: int) -> worlds.Variants:
        def stick(name: str) -> Page:
            channel.stuck[name] = universe().now + STUCK_S
            return Page([], position)

        def split() -> Page:
            channel.split(channel.shards[shard])
            return self._page(channel, shard, position, limit)

        def expire() -> Page:
            raise PositionExpiredError(f"{self.name}: position {position} of {shard} has expired", do="read again from the position that was kept")

        found: dict[str, Any] = {"stream.gap": lambda: self._page(channel, shard, len(channel.shards[shard].records), limit),
                                 "stream.stuck": lambda: stick("*"), "stream.shard_stuck": lambda: stick(shard), "stream.iterator_expired": expire}
        if position:  # from the beginning nothing can come again
            found["stream.replay"] = lambda: self._page(channel, shard, 0, limit)
        if not channel.shards[shard].closed:
            found["stream.shard_split"] = split
        return found


def copied_record(record: Arrival) -> Arrival:
    return Arrival(record.key, copied(record.data), record.at)


def records_of(channel: Channel) -> Sequence[Arrival]:
    """Everything that was captured, shard by shard."""
    return [record for shard in channel.shards.values() for record in shard.records]
