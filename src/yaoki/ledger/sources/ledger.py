"""Our own ledger as the source of an audit: sealed epochs say what sinks must hold, and its rows repair what they lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from yaoki.ledger.epochs import beat_key, partition_of
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.ledger import Ledger
from yaoki.ledger.notes import load_note
from yaoki.ledger.records import Batch, Naming, Record, is_beat
from yaoki.ledger.retention import marks
from yaoki.ledger.sinks.port import Sink
from yaoki.ledger.sketch import Tally
from yaoki.ledger.sources.port import Lane
from yaoki.ledger.verdicts import Beat

BEATS_KEPT = 240
"""How many of the newest beats are looked at: two hours of one each 30 s."""

RECENT_MOST = 50_000
"""Above this many recent versions reading the whole sink is cheaper than asking for each (1 000 a page of a listing)."""


class LedgerSource:
    """A `Ledger`, open. Partitions are its own; a version counts as committed when it was sealed."""

    knows_digests = True
    complete = True
    vouches = True

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.name = ledger.name

    async def now(self) -> float:
        return await self.ledger.store.now()

    async def refresh(self) -> None:
        """Beats and sealing are the service's business (`Service` in `service.py`), not the auditor's."""

    def part_of(self, key: str) -> str:
        return str(partition_of(key, self.ledger.partitions))

    async def lanes(self) -> list[Lane]:
        held_s, holder = await self.ledger.store.held()
        lanes = []
        for part in range(self.ledger.partitions):
            last = await self.ledger.last_epoch(part)
            newest = last.beat if last else -1
            key = beat_key(part)
            versions = await self.ledger.history(key, first=max(newest - BEATS_KEPT + 1, 1), last=max(newest, 1))
            beats = [Beat(each.version, each.written_at) for each in versions if each.version <= newest]
            lanes.append(Lane(part=str(part), beats=beats, names=[(key, beat.number) for beat in beats],
                              held_s=held_s, holder=holder))
        return lanes

    def expected(self) -> AsyncIterator[Batch]:
        return self.ledger.sealed()

    async def recent(self, after: float, until: float) -> list[Record] | None:
        found: list[Record] = []
        for part in range(self.ledger.partitions):
            rows = await self.ledger.store.fetch(
                "SELECT coalesce(min(epoch), -1), coalesce(sum(row_count), 0) FROM yaoki_ledger_epoch "
                "WHERE part = ?1 AND sealed_at > ?2 AND sealed_at <= ?3", part, after, until)
            first, count = rows[0]
            if first < 0:
                continue
            if len(found) + count > RECENT_MOST:
                return None
            found += await self._records(part, first, until)
        return found

    async def _records(self, part: int, first: int, until: float) -> list[Record]:
        found: list[Record] = []
        while epochs := await self.ledger.epochs(part, first=first, limit=100):
            for epoch in epochs:
                if epoch.sealed_at > until:
                    return found
                if epoch.count:
                    found += [Record(row.key, row.version, row.digest, epoch.sealed_at)
                              for row in await self.ledger.rows(epoch) if row.digest and not is_beat(row.key)]
            first = epochs[-1].epoch + 1
        return found

    async def known(self) -> Tally | None:
        if await load_note(self.ledger.store, "erased") or await marks(self.ledger.store):
            return None  # sealed sums still count what was erased or pruned
        total = Tally()
        for part in range(self.ledger.partitions):
            first = 0
            while epochs := await self.ledger.epochs(part, first=first, limit=200):
                if any(epoch.count and not epoch.sketch for epoch in epochs):
                    return None  # trimmed: the rows say it
                for epoch in epochs:
                    if epoch.count:
                        total += epoch.tally()
                first = epochs[-1].epoch + 1
        return total

    async def forgotten(self, names: Sequence[Naming]) -> set[Naming]:
        if not await marks(self.ledger.store):
            return set()
        kept = await self.ledger.store.lowest([key for key, _ in names])
        nothing = 1, 0  # a key that never was: all of it is extra
        return {(key, version) for key, version in names
                if version < kept.get(key, nothing)[0] and 1 <= version <= kept.get(key, nothing)[1]}

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        found = []
        for key, version in names:
            for each in await self.ledger.history(key, first=version, last=version):
                if each.content is not None:  # what was erased should not be anywhere: a copy in a sink is an extra
                    at = await self._sealed_at(key, version) or each.written_at
                    found.append(Record(key, version, content_digest(each.content), at))
        return found

    async def _sealed_at(self, key: str, version: int) -> float:
        position = await self.ledger.store.position(key, version)
        rows = await self.ledger.store.fetch(
            "SELECT min(sealed_at) FROM yaoki_ledger_epoch WHERE part = ?1 AND (until_xid, until_pos) >= (?2, ?3)",
            partition_of(key, self.ledger.partitions), *position)
        return float(rows[0][0] or 0.0)

    async def has_copies(self, names: Sequence[Naming]) -> set[Naming]:
        return {name for name, content in (await self.ledger.contents(names)).items() if content is not None}

    async def redeliver(self, names: Sequence[Naming], sink: Sink) -> dict[Naming, str]:
        failed = {}
        for (key, version), content in (await self.ledger.contents(names)).items():
            if content is not None:
                try:
                    await sink.put(key, version, content, content_digest(content))
                except Exception as error:
                    failed[key, version] = f"{type(error).__name__}: {error}"
        return failed
