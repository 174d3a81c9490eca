"""Audit one sink against one source, once or for ever.

    look:  source, refreshed ──▶ what is recent, by name (or all of it, by listing) ──▶ differences ──▶ read again ──▶ findings
           open findings ──▶ read again ──▶ closed, with evidence
           beats ──▶ a verdict for each partition

Everything a look found is stored in one transaction with how far it came. A look that fails stores nothing, and the next
one covers its time too. Only one auditor of a sink runs at a time, by lease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from yaoki import events, runtime
from yaoki.errors import AuditError
from yaoki.events import AuditAdvanced, FindingClosed, FindingOpened, VerdictReached
from yaoki.ledger import findings as kinds
from yaoki.ledger.arrivals import Arrivals
from yaoki.ledger.auditor import Auditor
from yaoki.ledger.compare import Difference, Summary, compare_records, differences
from yaoki.ledger.findings import Finding
from yaoki.ledger.leases import LEASE_S, Lease, give_up, prove, take
from yaoki.ledger.notes import Progress, load_findings, load_progress, save_look
from yaoki.ledger.records import Batch, Naming, Record, is_beat
from yaoki.ledger.rules import Rules
from yaoki.ledger.sinks.port import Sink
from yaoki.ledger.sources.port import Lane, Source
from yaoki.ledger.store.port import Store
from yaoki.ledger.verdicts import Look, Verdict

READ_AT_ONCE = 1000

BEATS_JUDGED = 120
"""The newest beats of a partition are judged; older ones have served and are removed from the sink."""

CLOSED_KEPT_S = 7 * 86_400.0
"""How long a closed finding is remembered by the auditor, so that it is not told twice. The store keeps it for ever."""

Lint = Callable[[], Awaitable[Sequence[tuple[str, str]]]]


class Watch:
    """The audit of `sink` against `source`.

    Args:
        store: where findings and progress are kept: the ledger's own database, or a file beside it.
        list_every_s: how often the whole sink is read; between, only what is recent is asked for, by name.
        lint: reads the settings of the pipeline and says what is dangerous about them: (name, sentence) pairs.
    """

    def __init__(self, store: Store, source: Source, sink: Sink, rules: Rules, *, owner: str = "",
                 list_every_s: float = 3600.0, lint: Lint | None = None) -> None:
        self.store = store
        self.source = source
        self.sink = sink
        self.rules = rules
        self._owner = owner or f"auditor-{runtime.new_id()[-12:]}"
        self._lease: Lease | None = None
        self._arrived: dict[str, set[Naming]] = {}
        self._forgotten: dict[str, set[Naming]] = {}
        self._arrivals = Arrivals()
        self._list_every_s = list_every_s
        self._lint = lint
        self.progress = Progress(sink=sink.name)
        self.auditor = Auditor(sink.name, rules, part_of=source.part_of)
        self.under_way = 0
        """Versions that were not in the sink at the last look, and are not due yet."""
        self.by_name_only = not (source.knows_digests and sink.knows_digests)

    async def look(self, *, whole: bool = False, repaired: Sequence[Naming] = ()) -> list[Verdict]:
        """Look once and store what was found. Returns the verdict for each partition.

        Args:
            whole: read the whole sink, whatever was read before.
            repaired: names that were just delivered again.

        Raises:
            AuditError: another auditor of this sink is at work, or a side cannot be read.
        """
        lease_s = LEASE_S + 3 * self.rules.listing_s
        lease = self._lease = await take(self.store, f"audit/{self.sink.name}", self._owner, lease_s=lease_s)
        if lease is None:
            raise AuditError(f"another auditor is at work on {self.sink.name}",
                             do="let it work, or wait until its lease has ended")
        began = runtime.monotonic()
        await self._recall()
        await self.source.refresh()
        now = await self.source.now()
        whole = whole or now - self.progress.listed_at > self._list_every_s
        changed = await self._compare(now, whole=whole)
        await self._recheck(now, repaired)
        verdicts = [await self._judge(lane, now, changed) for lane in await self.source.lanes()]
        if self._lint is not None:
            self._note_lint(await self._lint(), now)
        changes = self.auditor.book.take_changed()
        before = {verdict.part: verdict.kind for verdict in self.progress.verdicts}
        self._advance(now, verdicts, changes, whole=whole)
        async with self.store.transaction() as tx:
            await prove(tx, lease)
            await save_look(tx, self.progress, changes)
        self._tell(changes, verdicts, before, runtime.monotonic() - began)
        return verdicts

    async def close(self) -> None:
        """Let the next auditor of this sink in at once."""
        if self._lease is not None:
            await give_up(self.store, self._lease)

    async def run(self, *, looks: int | None = None) -> None:
        """Look every `rules.audit_every_s` until cancelled, or so many times."""
        done = 0
        while looks is None or done < looks:
            await self.look()
            done += 1
            if done != looks:
                await runtime.sleep(self.rules.audit_every_s)

    # ── the steps of a look ──────────────────────────────────────────────────────────────────────────────────────────

    async def _recall(self) -> None:
        """Start from what is stored: this may be a new process, or a person closed a finding meanwhile."""
        settled = self.auditor
        self.progress = await load_progress(self.store, self.sink.name)
        since = await self.source.now() - CLOSED_KEPT_S
        stored = await load_findings(self.store, self.sink.name, since=since)
        self.auditor = Auditor(self.sink.name, self.rules, stored, self.source.part_of)
        self.auditor.adopt(settled)

    async def _compare(self, now: float, *, whole: bool) -> Counter[str]:
        """Name what differs; returns how many versions came due, by partition."""
        due = self.auditor.due_until(now)
        recent = await self.source.recent(self.progress.audited_through, due)
        found_differences: list[Difference] = []
        if recent is not None:
            there = await self._read(self.sink.read, [(each.key, each.version) for each in recent])
            found_differences = compare_records(self._stripped(recent), there)
            self.auditor.arrived(recent, there, now)
            self.auditor.ordered(self._arrivals.in_order(there), {}, now)
        if recent is None or whole:
            found_differences = await self._list(now)
        self.under_way = sum(each.kind == kinds.MISSING and each.expected_at > due for each in found_differences)
        names = self.auditor.screen(found_differences, now)
        found = await self._read(self.sink.read, names)
        self.auditor.confirm(await self._read(self.source.read, names), found, now)
        return Counter(self.source.part_of(each.key) for each in recent or ())

    async def _list(self, now: float) -> list[Difference]:
        """Read the whole sink, and name what differs."""
        known = None if self.by_name_only else await self.source.known()
        summary = await differences(self._expected, self._found, known=known)
        self._note_flood(summary, now)
        # A source that cannot vouch for every name says nothing about a name that only the sink has.
        return [each for each in summary.differences if self.source.vouches or each.kind != kinds.EXTRA]

    async def _recheck(self, now: float, repaired: Sequence[Naming]) -> None:
        names = self.auditor.to_recheck()
        found = await self._read(self.sink.read, names)
        expected = await self._read(self.source.read, names)
        closed = self.auditor.recheck(expected, found, now, repaired=repaired)
        came = {(each.key, each.version) for each in closed if each.kind == kinds.LATE}
        if came:  # by themselves, after all: perhaps after a later version
            after = await self._read(self.sink.read, [(key, version + 1) for key, version in sorted(came)])
            self.auditor.ordered(self._arrivals.in_order([*after, *(
                each for each in found if (each.key, each.version) in came)]), {}, now)
        missing = [each for each in self.auditor.book.open_ones() if each.kind == kinds.MISSING]
        copies = await self.source.has_copies([(each.key, each.version) for each in missing]) if missing else set()
        for each in missing:
            if (each.key, each.version) not in copies:
                self.auditor.book.lose(each, "no copy is left at the source or in what was recorded of the stream")

    async def _judge(self, lane: Lane, now: float, changed: Counter[str]) -> Verdict:
        beats, names = lane.beats[-BEATS_JUDGED:], lane.names[-BEATS_JUDGED:]
        there = await self._beats_there(lane.part, names)
        arrived = frozenset(beat.number for beat, name in zip(beats, names, strict=True) if name in there)
        if lane.natural:
            arrived = frozenset(range(max(arrived) + 1)) if arrived else arrived
        else:
            await self._forget(lane)
        open_ones = [each for each in self.auditor.book.open_ones() if each.part in {lane.part, ""} and each.version >= 0]
        if self.source.complete and not open_ones and arrived:
            # Everything written among the beats that never came was compared by name and is there.
            self.auditor.settle(lane.part, self._settled_until(lane, arrived))
        return self.auditor.judge(Look(
            part=lane.part, now=now, beats=beats, arrived=arrived, transported=lane.transported,
            changed=changed[lane.part] + changed[""], differing=len(open_ones), held_s=lane.held_s, holder=lane.holder))

    async def _beats_there(self, part: str, names: Sequence[Naming]) -> set[Naming]:
        """Which of these beats are at rest. What was seen once is not asked for again: a request each would cost too much."""
        seen = self._arrived.get(part, set()) & set(names)
        asked = [name for name in names if name not in seen]
        seen |= {(each.key, each.version) for each in await self._read(self.sink.read, asked)}
        self._arrived[part] = seen
        return seen

    async def _forget(self, lane: Lane) -> None:
        """Remove beats that have served from the sink, each once: they would pile up for ever."""
        old = {name for name in lane.names[:-BEATS_JUDGED] if is_beat(name[0])}
        due = old - self._forgotten.get(lane.part, set())
        if due:
            await self.sink.forget(sorted(due))
        self._forgotten[lane.part] = old

    def _note_flood(self, summary: Summary, now: float) -> None:
        """Say that there is more than is worth naming: a wrong table or bucket, not a loss."""
        if summary.truncated:
            self.auditor.book.open("flood", now, note=(
                f"{len(summary.differences)} differences were named and there are more: {summary.expected} versions are expected "
                f"and {summary.found} are there; are source, sink and template the right ones?"))

    def _settled_until(self, lane: Lane, arrived: frozenset[int]) -> int:
        """The newest beat written before what has been audited: skipped ones below it are accounted for."""
        newest = max(arrived)
        through = self.progress.audited_through
        return max((beat.number for beat in lane.beats if beat.number < newest and beat.at <= through), default=-1)

    def _note_lint(self, dangers: Sequence[tuple[str, str]], now: float) -> None:
        present = {f"lint:{name}": sentence for name, sentence in dangers}
        for kind, sentence in present.items():
            self.auditor.book.open(kind, now, note=sentence)
        for each in self.auditor.book.open_ones():
            if each.kind.startswith("lint:") and each.kind not in present:
                self.auditor.book.close(each, now, "the setting was put right")

    def _advance(self, now: float, verdicts: list[Verdict], changes: list[Finding], *, whole: bool) -> None:
        progress = self.progress
        delays = [each.delay_s for each in changes if each.state == kinds.OPEN and each.version >= 0]
        progress.longest_delay_s = max([progress.longest_delay_s, *delays])
        progress.audited_through = max(progress.audited_through, self.auditor.due_until(now))
        progress.looked_at = now
        progress.listed_at = now if whole else progress.listed_at
        progress.bound_s = self.rules.loss_bound_s
        progress.silent_after_s = 3 * self.rules.audit_every_s + self.rules.listing_s + 2 * self.rules.clock_error_s
        progress.verdicts = verdicts

    def _tell(self, changes: list[Finding], verdicts: list[Verdict], before: dict[str, str], duration_s: float) -> None:
        if not events.wanted():
            return
        for each in changes:
            if each.state == kinds.OPEN:
                events.emit(FindingOpened(finding=each.id, kind=each.kind, sink=each.sink, key=each.key, version=each.version,
                                          part=each.part, delay_s=each.delay_s, bound_s=each.bound_s))
            else:
                events.emit(FindingClosed(finding=each.id, kind=each.kind, sink=each.sink, state=each.state, note=each.note))
        for verdict in verdicts:
            if before.get(verdict.part) != verdict.kind:
                events.emit(VerdictReached(sink=self.sink.name, part=verdict.part, kind=verdict.kind,
                                           before=before.get(verdict.part, ""), reason=verdict.reason))
        open_ones = self.auditor.book.open_ones()
        events.emit(AuditAdvanced(
            sink=self.sink.name, audited_through=self.progress.audited_through, duration_s=duration_s,
            open_findings=len(open_ones), lost=sum(each.state == kinds.LOST for each in open_ones), worst=self.auditor.worst(),
            loss_bound_s=self.rules.loss_bound_s, stuck_bound_s=self.rules.stuck_bound_s,
            longest_delay_s=self.progress.longest_delay_s))

    # ── reading both sides alike ─────────────────────────────────────────────────────────────────────────────────────

    async def _expected(self) -> AsyncIterator[Batch]:
        async for batch in self.source.expected():
            yield batch.without_digests() if self.by_name_only else batch

    async def _found(self) -> AsyncIterator[Batch]:
        async for batch in self.sink.listing():
            forgotten = await self.source.forgotten(list(zip(batch.keys, batch.versions, strict=True)))
            kept = batch.select([at for at, key in enumerate(batch.keys)
                                 if not is_beat(key) and not (forgotten and (key, batch.versions[at]) in forgotten)])
            yield kept.without_digests() if self.by_name_only else kept

    async def _read(self, read: Callable[[Sequence[Naming]], object], names: Sequence[Naming]) -> list[Record]:
        found: list[Record] = []
        for start in range(0, len(names), READ_AT_ONCE):
            found += await read(names[start:start + READ_AT_ONCE])  # type: ignore[misc]
        return self._stripped(found)

    def _stripped(self, records: list[Record]) -> list[Record]:
        return [Record(each.key, each.version, b"", each.at) for each in records] if self.by_name_only else records
