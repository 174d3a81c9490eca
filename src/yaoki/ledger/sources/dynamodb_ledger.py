"""A ledger of ours in DynamoDB as the source of an audit: its sealed epochs say what sinks must hold, its items repair.

Beats are items of the ledger and pass through stream and function to the sink like any other. Sealing and beating is the
business of whoever keeps the ledger (`await ledger.beat(); await ledger.seal()` every few seconds), not the auditor's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from yaoki import runtime
from yaoki.ledger.dynamodb.ledger import DynamoLedger
from yaoki.ledger.dynamodb.sealing import Sealed
from yaoki.ledger.epochs import beat_key, partition_of
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.ledger import Version
from yaoki.ledger.records import Batch, Naming, Record, is_beat
from yaoki.ledger.sinks.port import Sink
from yaoki.ledger.sketch import Tally
from yaoki.ledger.sources.port import Lane
from yaoki.ledger.verdicts import Beat

BEATS_KEPT = 240
RECENT_MOST = 20_000


class DynamoLedgerSource:
    """A `DynamoLedger`, open. Partitions are its own; a version counts as committed when it was sealed."""

    knows_digests = True
    complete = True
    vouches = True

    def __init__(self, ledger: DynamoLedger) -> None:
        self.ledger = ledger
        self.name = f"dynamodb-ledger://{ledger.name}"

    async def now(self) -> float:
        return runtime.unix_time()

    async def refresh(self) -> None:
        """Nothing is kept here."""

    def part_of(self, key: str) -> str:
        return str(partition_of(key, self.ledger.partitions))

    async def lanes(self) -> list[Lane]:
        lanes = []
        for part in range(self.ledger.partitions):
            last = await self.ledger.last_epoch(part)
            newest = last.beat if last else -1
            key = beat_key(part)
            versions = await self.ledger.history(key, first=max(newest - BEATS_KEPT + 1, 1), last=max(newest, 1))
            beats = [Beat(each.version, each.written_at) for each in versions if each.version <= newest]
            lanes.append(Lane(part=str(part), beats=beats, names=[(key, beat.number) for beat in beats]))
        return lanes

    async def expected(self) -> AsyncIterator[Batch]:
        for part in range(self.ledger.partitions):
            async for sealed in self.ledger.epochs(part):
                yield Batch.of(await self._records(sealed))

    async def _records(self, sealed: Sealed) -> list[Record]:
        """What sinks must hold of an epoch: no beats, and nothing that was erased."""
        return [Record(row.key, row.version, row.digest, sealed.epoch.sealed_at)
                for row in await self.ledger.rows(sealed) if row.digest and not is_beat(row.key)]

    async def recent(self, after: float, until: float) -> list[Record] | None:
        found: list[Record] = []
        for part in range(self.ledger.partitions):
            async for sealed in self.ledger.newest_first(part):
                if sealed.epoch.sealed_at <= after:
                    break
                if sealed.epoch.sealed_at <= until:
                    found += await self._records(sealed)
                if len(found) > RECENT_MOST:
                    return None
        return found

    async def known(self) -> Tally | None:
        """Erased items would have to be taken out of the sums: the rows say it."""
        return None

    async def forgotten(self, names: Sequence[Naming]) -> set[Naming]:  # noqa: ARG002
        return set()  # nothing is ever forgotten here

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        return [Record(each.key, each.version, content_digest(each.content), each.written_at)
                for each in await self._versions(names) if each.content is not None]

    async def _versions(self, names: Sequence[Naming]) -> list[Version]:
        return [each for key, version in names for each in await self.ledger.history(key, first=version, last=version)]

    async def has_copies(self, names: Sequence[Naming]) -> set[Naming]:
        return {(each.key, each.version) for each in await self._versions(names) if each.content is not None}

    async def redeliver(self, names: Sequence[Naming], sink: Sink) -> dict[Naming, str]:
        failed = {}
        for each in await self._versions(names):
            if each.content is not None:
                try:
                    await sink.put(each.key, each.version, each.content, content_digest(each.content))
                except Exception as error:
                    failed[each.key, each.version] = f"{type(error).__name__}: {error}"
        return failed
