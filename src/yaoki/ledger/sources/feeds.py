"""Other people's tables, queues and streams as sources: whatever can be read becomes known to a shadow, and is audited from it.

A *feed* reads on from a place and tells what it saw. It writes nothing, so there are no beats; instead what was written last
serves: if it arrived, the path was open then. A time in which nothing is written proves nothing, and the verdict is UNKNOWN.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Protocol

from yaoki import runtime
from yaoki.errors import ConfigError
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.lint import Danger
from yaoki.ledger.records import Batch, Naming, Record
from yaoki.ledger.sinks.port import Sink
from yaoki.ledger.sketch import Tally
from yaoki.ledger.sources.port import Lane
from yaoki.ledger.sources.shadow import Seen, Shadow
from yaoki.ledger.verdicts import Beat

if TYPE_CHECKING:
    from yaoki.ledger.pipelines import Pipeline

RECENT_MOST = 20_000
NATURAL_BEATS = 100


class Feed(Protocol):
    """Something that can be read on.

    Attributes:
        name: without secrets.
        heads: does it tell the newest version of each key, so that all before it existed too?
        vouches: does it have every version ever written? Then what only the sink has is extra.
    """

    name: str
    heads: bool
    vouches: bool

    def read(self, place: str) -> AsyncIterator[tuple[list[Seen], str]]:
        """What came after `place` ("" for the beginning), in pages, each with the place it ends at."""
        ...

    async def settle(self, place: str) -> None:
        """What was read up to `place` is remembered: a queue may forget it."""
        ...

    async def dangers(self) -> list[Danger]: ...


class FeedSource:
    """A feed, remembered by a shadow, as the source of an audit."""

    complete = False

    def __init__(self, feed: Feed, shadow: Shadow, *, first: int = 1) -> None:
        self.feed = feed
        self.shadow = shadow
        self.name = feed.name
        self.knows_digests = not feed.heads
        self.vouches = feed.vouches
        self.first = first

    async def now(self) -> float:
        return runtime.unix_time()

    def part_of(self, key: str) -> str:  # noqa: ARG002  a feed is one lane
        return ""

    async def refresh(self) -> None:
        place, _ = (await self.shadow.places()).get(self.name, ("", False))
        async for seen, after in self.feed.read(place):
            if self.feed.heads:
                await self.shadow.note_heads([(each.key, each.version) for each in seen], await self.now(), first=self.first)
            else:
                await self.shadow.note(seen, shard=self.name, place=after)
            await self.feed.settle(after)

    async def dangers(self) -> list[Danger]:
        return await self.feed.dangers()

    async def lanes(self) -> list[Lane]:
        rows = await self.shadow.store.fetch(
            "SELECT key, version, at FROM yaoki_shadow_version ORDER BY at DESC, key, version LIMIT ?1", NATURAL_BEATS)
        rows.reverse()
        return [Lane(part=self.name, beats=[Beat(number, at) for number, (_, _, at) in enumerate(rows)],
                     names=[(key, version) for key, version, _ in rows], natural=True)]

    def expected(self) -> AsyncIterator[Batch]:
        return self.shadow.versions()

    async def recent(self, after: float, until: float) -> list[Record] | None:
        return await self.shadow.recent(after, until, RECENT_MOST)

    async def known(self) -> Tally | None:
        return None

    async def forgotten(self, names: Sequence[Naming]) -> set[Naming]:  # noqa: ARG002
        return set()  # nothing is ever forgotten here

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        return await self.shadow.read(names)

    async def has_copies(self, names: Sequence[Naming]) -> set[Naming]:
        return set(await self.shadow.records(names))

    async def redeliver(self, names: Sequence[Naming], sink: Sink) -> dict[Naming, str]:
        failed = {}
        for (key, version), copy in (await self.shadow.records(names)).items():
            content = base64.b64decode(copy)
            try:
                await sink.put(key, version, content, content_digest(content))
            except Exception as error:
                failed[key, version] = f"{type(error).__name__}: {error}"
        return failed


def seen(key: str, version: int, at: float, content: bytes | None) -> Seen:
    """A version with its content, as a shadow remembers it."""
    if content is None:
        return Seen(key, version, at)
    return Seen(key, version, at, "", base64.b64encode(content).decode(), content_digest(content))


async def open_feed(pipeline: Pipeline, shadow: Shadow, stack: contextlib.AsyncExitStack) -> FeedSource:
    """The source that a URL names. Raises `AuditError` if it cannot be read."""
    scheme = pipeline.source.split("://", 1)[0]
    feed: Feed
    if scheme in {"sqlite", "postgresql", "postgres"}:
        from yaoki.ledger.sources.tables import open_table  # noqa: PLC0415
        feed = await open_table(pipeline, stack)
    elif scheme == "sqs":
        from yaoki.ledger.pipelines import aws  # noqa: PLC0415
        from yaoki.ledger.sources.sqs import QueueFeed  # noqa: PLC0415
        feed = QueueFeed(aws(pipeline, "sqs"), pipeline.source.removeprefix("sqs://"), pipeline.key, pipeline.version)
        await feed.open()
    elif scheme == "nats":
        from yaoki.ledger.sources.jetstream import StreamFeed  # noqa: PLC0415
        feed = StreamFeed(pipeline.source, pipeline.version)
        await feed.open()
        stack.push_async_callback(feed.close)
    elif scheme.startswith("broker+"):
        from yaoki.ledger.pipelines import broker_of  # noqa: PLC0415
        from yaoki.ledger.sources.broker import BrokerFeed  # noqa: PLC0415
        feed = BrokerFeed(*broker_of(pipeline.source), pipeline.version)
        await feed.open()
        stack.push_async_callback(feed.close)
    else:
        raise ConfigError(f"no feed is known at {pipeline.source!r}", do="see `yk audit --help`")
    return FeedSource(feed, shadow, first=pipeline.first if pipeline.first is not None else 1)
