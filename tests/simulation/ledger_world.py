"""A ledger, its delivery and its audit in a world of whole seconds, where everything may be lost, doubled, altered or late.

The deciders are the real ones (`seal`, `Search`, `Auditor`); writer, sealer, deliverer and sink are a few lines each. A
history is drawn from one seed. `World.truth` is what was really done to the sink; `World.named` what the auditor said.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

from yaoki.ledger import findings as kinds
from yaoki.ledger.auditor import Auditor
from yaoki.ledger.compare import Search, compare_records
from yaoki.ledger.epochs import Epoch, Row, Stretch, beat_key, seal
from yaoki.ledger.findings import Finding
from yaoki.ledger.records import Batch, Record, is_beat
from yaoki.ledger.rules import Rules
from yaoki.ledger.verdicts import Beat, Look

RULES = Rules(slo_s=20, beat_every_s=10, seal_every_s=5, hold_s=0, audit_every_s=10, listing_s=0, clock_error_s=1)
WRITING_S = 60
PARTS = 2
FAULTS = ("lose", "duplicate", "corrupt", "delay", "reorder")


@dataclass
class Plan:
    """What goes wrong, as shares of the deliveries, and how often processes crash."""

    faults: float = 0.0
    crashes: float = 0.0
    kinds: tuple[str, ...] = FAULTS
    stops: bool = False
    """Is the trigger stopped for a while, and started again after what it missed (`LATEST`)?"""


@dataclass
class World:
    seed: int
    plan: Plan
    through_sketches: bool = False
    rng: random.Random = field(init=False)
    now: int = 0
    rows: dict[int, list[Row]] = field(default_factory=lambda: defaultdict(list))
    epochs: dict[int, list[Epoch]] = field(default_factory=lambda: defaultdict(list))
    versions: dict[str, int] = field(default_factory=dict)
    beats: dict[int, list[Beat]] = field(default_factory=lambda: defaultdict(list))
    delivered: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    waiting: list[tuple[int, Row, bool]] = field(default_factory=list)  # (when, row, altered)
    held: dict[str, Row] = field(default_factory=dict)  # by key: goes after the key's next version
    sink: list[Record] = field(default_factory=list)
    stored: dict[str, Finding] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    read_until: int = 0
    looks_missed: int = 0
    verdicts: list[str] = field(default_factory=list)
    count_only: bool = False
    counts_seen: set[str] = field(default_factory=set)
    stopped: tuple[int, int] = (0, 0)
    sent: set[tuple[str, int]] = field(default_factory=set)
    lost: set[tuple[str, int]] = field(default_factory=set)
    doubled: set[tuple[str, int]] = field(default_factory=set)
    altered: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.auditor = Auditor("sink", RULES)
        if self.plan.stops:
            began = self.rng.randrange(10, 40)
            self.stopped = began, began + self.rng.randrange(45, 70)

    # ── the pipeline ─────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> World:
        rng = self.rng
        keys = [f"A{n:06d}" for n in range(rng.randrange(1, 7))]
        writes = defaultdict(list)
        for _ in range(rng.randrange(40)):
            writes[rng.randrange(1, WRITING_S)].append(rng.choice(keys))
        end = WRITING_S + max(self.stopped[1] - WRITING_S, 0) + int(RULES.loss_bound_s) + 40
        for self.now in range(end):
            for key in writes[self.now]:
                if not self._crashes():  # nothing was acknowledged, nothing was written
                    self._write(key)
            if self.now % 10 == 0:
                for part in range(PARTS):
                    self._write(beat_key(part))
                    self.beats[part].append(Beat(self.versions[beat_key(part)], self.now))
            if self.now % 5 == 0 and not self._crashes():
                self._seal()
            if not self._crashes():
                self._deliver(last=self.now > WRITING_S)
            if self.now % 10 == 9:
                self._audit()
        return self

    def _crashes(self) -> bool:
        return self.now < WRITING_S and self.rng.random() < self.plan.crashes

    def _write(self, key: str) -> None:
        version = self.versions[key] = self.versions.get(key, -1) + 1
        part = int(key[-1]) % PARTS
        digest = self.rng.getrandbits(128).to_bytes(16, "little")
        self.rows[part].append(Row((0, len(self.rows[part]) + 1), key, version, digest, digest * 2, self.now))

    def _seal(self) -> None:
        for part in range(PARTS):
            last = self.epochs[part][-1] if self.epochs[part] else None
            fresh = self.rows[part][last.next_seq if last else 0:]
            self.epochs[part].append(seal(last, part, Stretch.of(fresh), self.now))

    def _deliver(self, *, last: bool) -> None:
        for part in range(PARTS):
            sealed = self.epochs[part][-1].next_seq if self.epochs[part] else 0
            for row in self.rows[part][self.delivered[part]:sealed]:
                self._send(row)
            self.delivered[part] = sealed
            if self._crashes() and sealed:
                self.delivered[part] -= 1  # the cursor was not stored: the last one goes again, which must change nothing
        due, self.waiting = [each for each in self.waiting if each[0] <= self.now], [
            each for each in self.waiting if each[0] > self.now]
        for _, row, altered in due:
            self._store(row, altered=altered)
        if last:
            for row in self.held.values():
                self._store(row)
            self.held.clear()

    def _send(self, row: Row) -> None:
        name = row.key, row.version
        if self.stopped[0] <= self.now < self.stopped[1]:
            if not is_beat(row.key):
                self.lost.add(name)
            return
        if name in self.sent:
            return  # sent again after a crash: it meets the same fate, so it changes nothing
        self.sent.add(name)
        fault = self.rng.choice(self.plan.kinds) if not is_beat(row.key) and self.rng.random() < self.plan.faults else ""
        if fault == "lose":
            self.lost.add(name)
            return
        if fault == "delay":
            self.waiting.append((self.now + self.rng.randrange(25, 40), row, False))
            return
        if fault == "reorder" and row.key not in self.held:
            self.held[row.key] = row
            return
        self._store(row, altered=fault == "corrupt", twice=fault == "duplicate")
        if row.key in self.held and self.held[row.key].version < row.version:
            self._store(self.held.pop(row.key))

    def _store(self, row: Row, *, altered: bool = False, twice: bool = False) -> None:
        name = row.key, row.version
        digest = bytes(16) if altered else row.digest
        self.sink += [Record(row.key, row.version, digest, self.now)] * (2 if twice else 1)
        self.altered |= {name} if altered else set()
        self.doubled |= {name} if twice else set()

    # ── the audit ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _audit(self) -> None:
        if self._crashes():  # dies before it stored anything: the next one starts from what is stored
            self.auditor = Auditor("sink", RULES, self.stored.values())
            self.newest, self.read_until = {}, 0
            self.looks_missed += 1
            return
        auditor, now = self.auditor, float(self.now)
        expected = [Record(row.key, row.version, row.digest, row.written_at) for part in range(PARTS)
                    for row in self.rows[part][:self.epochs[part][-1].next_seq if self.epochs[part] else 0]]
        opened = auditor.confirm(*self._named(auditor.screen(self._differences(expected), now), expected), now)
        auditor.arrived(expected, self.sink, now)
        auditor.ordered(self.sink[self.read_until:], self.newest, now)
        self.read_until = len(self.sink)
        auditor.recheck(*self._named(auditor.to_recheck(), expected), now)
        for part in range(PARTS):
            verdict = auditor.judge(Look(
                part=str(part), now=now, beats=self._sealed_beats(part), changed=len(expected), differing=len(opened),
                arrived=frozenset(each.version for each in self.sink if each.key == beat_key(part))))
            self.verdicts.append(verdict.kind)
        self._count_only(expected, now)
        for each in auditor.book.take_changed():
            self.stored[each.id] = each

    def _sealed_beats(self, part: int) -> list[Beat]:
        newest = self.epochs[part][-1].beat if self.epochs[part] else -1
        return [beat for beat in self.beats[part] if beat.number <= newest]

    def _differences(self, expected: list[Record]) -> list:
        if not self.through_sketches:
            return compare_records(expected, self.sink)
        search = Search()
        while search.begin_pass():
            search.feed_expected(Batch.of(expected))
            search.feed_found(Batch.of(self.sink))
            search.end_pass()
        return search.result().differences

    def _named(self, names: list, expected: list[Record]) -> tuple[list[Record], list[Record]]:
        wanted = set(names)
        return ([each for each in expected if (each.key, each.version) in wanted],
                [each for each in self.sink if (each.key, each.version) in wanted])

    def _count_only(self, expected: list[Record], now: float) -> None:
        """What an auditor that compares numbers of messages in finished windows would see in the end (Chaperone's way)."""
        due = [each for each in expected if each.at <= now - 60 and not is_beat(each.key)]
        names = {(each.key, each.version) for each in due}
        found = sum((each.key, each.version) in names for each in self.sink)
        self.count_only = found != len(due)

    # ── truth and verdict ────────────────────────────────────────────────────────────────────────────────────────────

    def truth(self) -> set[tuple[str, str, int]]:
        """(kind, key, version) of all that really happened to the sink."""
        written = {(row.key, row.version): row.written_at for rows in self.rows.values() for row in rows}
        wrong = {(kinds.MISSING, *name) for name in self.lost}
        wrong |= {(kinds.DUPLICATE, *name) for name in self.doubled} | {(kinds.CORRUPT, *name) for name in self.altered}
        high: dict[str, int] = {}
        for each in self.sink:
            if is_beat(each.key):
                continue
            if each.at - written[each.key, each.version] > RULES.slo_s + RULES.clock_error_s:
                wrong.add((kinds.LATE, each.key, each.version))
            if each.version < high.get(each.key, -1):
                wrong.add((kinds.REORDERED, each.key, each.version))
            high[each.key] = max(high.get(each.key, -1), each.version)
        return wrong

    def named(self) -> set[tuple[str, str, int]]:
        return {(each.kind, each.key, each.version) for each in self.stored.values() if each.version >= 0}
