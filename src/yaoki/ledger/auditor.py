"""Decide what was lost, doubled, altered, late or out of order, and whether the path is open. Pure.

    read both sides ──differences──▶ screen ──names to read again──▶ confirm ──▶ findings
    arrivals ──▶ arrived ──▶ late, reordered, duplicate
    beats ──▶ judge ──▶ a verdict for each partition
    open findings, read again ──▶ recheck ──▶ closed, with evidence

A difference is believed only when both sides, read again by name, still show it: something may have been under way while
the first reading took its time. What is not due yet is nobody's loss.

The same decider runs behind `yk audit`, in the simulation of the tests, and over any source and sink.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from yaoki.ledger import findings as kinds
from yaoki.ledger import verdicts
from yaoki.ledger.compare import Difference, compare_records
from yaoki.ledger.findings import Book, Finding, out_of_order
from yaoki.ledger.records import Naming, Record, is_beat
from yaoki.ledger.rules import Rules
from yaoki.ledger.verdicts import Look, Verdict

STANDSTILLS = (verdicts.STREAM_STUCK, verdicts.TRIGGER_STUCK, verdicts.SKIPPED_INTERVAL, verdicts.WATERMARK_HELD)
"""Verdicts that open a finding for the partition. UNKNOWN does not: it says that nothing can be said."""

PartOf = Callable[[str], str]


class Auditor:
    """The audit of one sink.

    Args:
        sink: the name under which the sink is known.
        findings: those stored by earlier audits of this sink.
        part_of: the partition of a key, for the findings; "" where the source has none.
    """

    def __init__(self, sink: str, rules: Rules, findings: Iterable[Finding] = (),
                 part_of: PartOf = lambda _key: "") -> None:
        self.rules = rules
        self.book = Book(sink, rules, findings)
        self.verdicts: dict[str, Verdict] = {}
        self._part_of = part_of
        self.settled: dict[str, int] = {}  # part: beats up to this number are accounted for

    def due_until(self, now: float) -> float:
        """What was written before this must be at rest by now."""
        return now - self.rules.slo_s - self.rules.clock_error_s

    # ── single versions ──────────────────────────────────────────────────────────────────────────────────────────────

    def screen(self, differences: Iterable[Difference], now: float) -> list[Naming]:
        """The names worth reading again: not beats, not known already, not still under way."""
        due = self.due_until(now)
        known = {(each.key, each.version) for each in self.book.open_ones()}
        return [(each.key, each.version) for each in differences
                if not is_beat(each.key) and (each.key, each.version) not in known
                and not (each.kind == kinds.MISSING and each.expected_at > due)]

    def confirm(self, expected: list[Record], found: list[Record], now: float) -> list[Finding]:
        """Open a finding for each difference that is still there.

        Args:
            expected, found: both sides' records of the screened names, read just now: the sink first, the source after,
                so that what the source wrote meanwhile is not taken for an extra.
        """
        due = self.due_until(now)
        opened = []
        for each in compare_records(expected, found):
            if each.kind == kinds.MISSING and each.expected_at > due:
                continue
            finding = self.book.observe(each, now, self._part_of(each.key))
            if finding is not None:
                opened.append(finding)
        return opened

    def arrived(self, expected: list[Record], found: list[Record], now: float) -> list[Finding]:
        """Name what is there now but came later than the rules allow. Needs times on both sides."""
        first: dict[Naming, float] = {}
        for each in found:
            name = each.key, each.version
            first[name] = min(first.get(name, each.at), each.at)
        opened = []
        for each in expected:
            at = first.get((each.key, each.version), 0.0)
            if at and each.at and at - each.at > self.rules.slo_s + self.rules.clock_error_s and not is_beat(each.key):
                opened += self._note_late(each, at, now)
        return opened

    def _note_late(self, record: Record, arrived_at: float, now: float) -> list[Finding]:
        ident = kinds.finding_id(self.book.sink, kinds.LATE, record.key, record.version, self._part_of(record.key))
        if self.book.get(ident) is not None:  # known as missing or as late: `recheck` closes it
            return []
        finding = self.book.open(kinds.LATE, now, key=record.key, version=record.version, written_at=record.at,
                                 part=self._part_of(record.key), evidence={"arrived_at": f"{arrived_at:.3f}"})
        assert finding is not None
        return [self.book.close(finding, now, f"arrived {arrived_at - record.at:.1f} s after it was written")]

    def ordered(self, arrivals: Iterable[Record], newest: dict[str, int], now: float) -> list[Finding]:
        """Name what arrived after a later version of its key.

        Args:
            arrivals: what arrived since the last call, in order of arrival.
            newest: the newest version of each key so far; kept up to date. Forget keys when no older version can come.
        """
        opened = []
        for each in out_of_order((each for each in arrivals if not is_beat(each.key)), newest):
            name = {"key": each.key, "version": each.version, "part": self._part_of(each.key)}
            if self.book.get(kinds.finding_id(self.book.sink, kinds.REORDERED, each.key, each.version, str(name["part"]))):
                continue
            finding = self.book.open(kinds.REORDERED, now, note="arrived after a later version of its key", **name)  # type: ignore[arg-type]
            if finding is not None:
                # Nothing can undo the order of arrival: it is on record, and nothing is left to do.
                opened.append(self.book.close(finding, now, "arrived after a later version of its key"))
        return opened

    def to_recheck(self) -> list[Naming]:
        """The names of all open findings about versions."""
        return [(each.key, each.version) for each in self.book.open_ones() if each.version >= 0]

    def recheck(self, expected: list[Record], found: list[Record], now: float, *,
                repaired: Iterable[Naming] = ()) -> list[Finding]:
        """Close the open findings whose names are in order now, given both sides' records of `to_recheck`."""
        sides: list[dict[Naming, list[Record]]] = [defaultdict(list), defaultdict(list)]
        for side, records in zip(sides, (expected, found), strict=True):
            for each in records:
                side[each.key, each.version].append(each)
        healed = set(repaired)
        closed = []
        for finding in self.book.open_ones():
            name = finding.key, finding.version
            if finding.version >= 0:
                after = self.book.recheck(finding, sides[0].get(name, []), sides[1].get(name, []), now,
                                          repaired=name in healed)
                closed += [after] if after.state == kinds.CLOSED else []
        return closed

    # ── partitions ───────────────────────────────────────────────────────────────────────────────────────────────────

    def judge(self, look: Look) -> Verdict:
        """Decide about a partition; open and close the findings about standstills."""
        settled = self.settled.get(look.part, -1)
        if settled >= 0:
            waved = frozenset(beat.number for beat in look.beats if beat.number <= settled)
            look = _with_arrived(look, look.arrived | waved)
        verdict = verdicts.judge(look, self.rules)
        self.verdicts[look.part] = verdict
        for kind in STANDSTILLS:
            ident = kinds.finding_id(self.book.sink, kind.lower(), "", -1, look.part)
            known = self.book.get(ident)
            if verdict.kind == kind:
                since = verdict.next_beat.at if verdict.next_beat else 0.0
                self.book.open(kind.lower(), look.now, part=look.part, note=verdict.reason, written_at=since)
            elif known is not None and known.is_open and verdict.kind != verdicts.UNKNOWN:
                self.book.close(known, look.now, f"over: {verdict.kind}, {verdict.reason}")
        return verdict

    def settle(self, part: str, number: int) -> None:
        """Account for beats up to `number` that never arrived: all that was written among them was compared, by name."""
        self.settled[part] = max(self.settled.get(part, -1), number)

    def adopt(self, other: Auditor) -> None:
        """Take over which beats another auditor of this sink had accounted for."""
        for part, number in other.settled.items():
            self.settle(part, number)

    def worst(self) -> str:
        """The verdict that asks for attention first."""
        found = {each.kind for each in self.verdicts.values()}
        for kind in (verdicts.STREAM_STUCK, verdicts.TRIGGER_STUCK, verdicts.SKIPPED_INTERVAL, verdicts.LOSS,
                     verdicts.WATERMARK_HELD, verdicts.UNKNOWN, verdicts.FLOWING, verdicts.QUIET):
            if kind in found:
                return kind
        return verdicts.UNKNOWN


def _with_arrived(look: Look, arrived: frozenset[int]) -> Look:
    return Look(part=look.part, now=look.now, beats=look.beats, arrived=arrived, transported=look.transported,
                changed=look.changed, differing=look.differing, held_s=look.held_s, holder=look.holder)
