"""What an audit found: durable, named once, and closed only with evidence read again from the sink.

    open ──arrived by itself──▶ closed (late)
      │ ───repaired, read again──▶ closed (repaired)
      │ ───a person says so──▶ acknowledged ──found in order──▶ closed
      └ ───no copy anywhere──▶ lost: LOST_UNREPAIRABLE, said plainly, and never closed silently

Pure: `Book` decides what opens and what closes; who stores the findings passes them in and takes them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

import msgspec

from yaoki.ledger.compare import Difference, compare_records
from yaoki.ledger.records import Record
from yaoki.ledger.rules import Rules

MISSING, EXTRA, DUPLICATE, CORRUPT = "missing", "extra", "duplicate", "corrupt"
LATE, REORDERED = "late", "reordered"
OPEN, ACKNOWLEDGED, CLOSED, LOST = "open", "acknowledged", "closed", "lost"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be.

    Attributes:
        id: follows from sink, kind, key and version: the same trouble is one finding however often it is seen.
        kind: missing, extra, duplicate, corrupt, late, reordered; or a verdict, in lower case; or lint, chain.
        part: the partition or shard, "" where there is none.
        written_at: when the version was committed at the source, 0 if not known.
        opened_at, closed_at: seconds since 1970; 0 while open.
        bound_s: the time within which the rules promised to find it.
        state: open, acknowledged, closed, lost.
        note: why it is in this state, and the evidence.
        evidence: figures: digests, copies, times.
    """

    id: str
    kind: str
    sink: str
    part: str = ""
    key: str = ""
    version: int = -1
    written_at: float = 0.0
    opened_at: float = 0.0
    bound_s: float = 0.0
    state: str = OPEN
    closed_at: float = 0.0
    note: str = ""
    evidence: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.state in {OPEN, ACKNOWLEDGED, LOST}

    @property
    def delay_s(self) -> float:
        """Measured: from the commit at the source to the finding. 0 where the commit's time is not known."""
        return max(self.opened_at - self.written_at, 0.0) if self.written_at else 0.0


def finding_id(sink: str, kind: str, key: str, version: int, part: str = "") -> str:
    """12 hexadecimal digits: long enough that a million findings hardly ever share one (1 in 560)."""
    text = "\0".join((sink, "name" if kind in {MISSING, LATE} else kind, key, str(version), part))
    return blake2b(text.encode(), digest_size=6).hexdigest()


class Book:
    """The findings of one sink. Pure; tells of every change in `changed`.

    Args:
        sink: the name under which the sink is known.
        findings: those stored so far.
    """

    def __init__(self, sink: str, rules: Rules, findings: Iterable[Finding] = ()) -> None:
        self.sink = sink
        self.rules = rules
        self._by_id = {each.id: each for each in findings}
        self.changed: list[Finding] = []

    def __iter__(self) -> Iterator[Finding]:
        return iter(sorted(self._by_id.values(), key=lambda each: (each.opened_at, each.key, each.version)))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, finding_id: str) -> Finding | None:
        return self._by_id.get(finding_id)

    def open_ones(self) -> list[Finding]:
        return [each for each in self if each.is_open]

    def take_changed(self) -> list[Finding]:
        """The findings that changed since last asked, to be stored."""
        changed, self.changed = self.changed, []
        return changed

    def observe(self, difference: Difference, now: float, part: str = "") -> Finding | None:
        """Open a finding for a difference that was read twice. None if it is known already."""
        evidence = {"expected": _described(difference.expected), "found": _described(difference.found)}
        return self.open(difference.kind, now, key=difference.key, version=difference.version, part=part,
                         written_at=difference.expected_at, evidence=evidence)

    def open(self, kind: str, now: float, *, key: str = "", version: int = -1, part: str = "",
             written_at: float = 0.0, note: str = "", evidence: dict[str, str] | None = None) -> Finding | None:
        """Open a finding, or open it again if it had been closed. None if it is open already."""
        ident = finding_id(self.sink, kind, key, version, part)
        known = self._by_id.get(ident)
        if known is not None and known.is_open:
            return None
        stuck = kind not in {MISSING, EXTRA, DUPLICATE, CORRUPT, LATE, REORDERED}
        bound = self.rules.stuck_bound_s if stuck else self.rules.loss_bound_s
        return self._put(Finding(
            id=ident, kind=kind, sink=self.sink, part=part, key=key, version=version, written_at=written_at,
            opened_at=now, bound_s=bound, note=note, evidence=evidence or {}))

    def recheck(self, finding: Finding, expected: list[Record], found: list[Record], now: float, *,
                repaired: bool = False) -> Finding:
        """Close the finding if the sink, read again just now, is in order; else leave it as it is.

        Args:
            expected: what the source says of this (key, version): one record, or none for an extra.
            found: what the sink holds under this name now.
        """
        if compare_records(expected, found):
            return finding
        arrived = min((each.at for each in found), default=0.0)
        evidence = {**finding.evidence, "read_again_at": f"{now:.3f}", "found": _described(_counts(found)),
                    "arrived_at": f"{arrived:.3f}"}
        late = finding.kind == MISSING and not repaired and finding.state != LOST
        note = "repaired; read again from the sink" if repaired else \
            f"arrived {arrived - finding.written_at:.1f} s after it was written" if late and arrived and finding.written_at \
            else "found in order when read again from the sink"
        return self._put(msgspec.structs.replace(
            finding, state=CLOSED, closed_at=now, kind=LATE if late else finding.kind, note=note, evidence=evidence))

    def close(self, finding: Finding, now: float, note: str) -> Finding:
        """Close a finding that is not about a version: a standstill that ended, a setting that was put right."""
        return self._put(msgspec.structs.replace(finding, state=CLOSED, closed_at=now, note=note))

    def acknowledge(self, finding: Finding, note: str) -> Finding:
        return self._put(msgspec.structs.replace(finding, state=ACKNOWLEDGED, note=note))

    def lose(self, finding: Finding, note: str) -> Finding:
        """Say plainly that no copy exists. Stays in every report until the version turns up after all."""
        if finding.state == LOST:
            return finding
        return self._put(msgspec.structs.replace(finding, state=LOST, note="LOST_UNREPAIRABLE: " + note))

    def _put(self, finding: Finding) -> Finding:
        self._by_id[finding.id] = finding
        self.changed.append(finding)
        return finding


def out_of_order(arrivals: Iterable[Record], newest: dict[str, int] | None = None) -> list[Record]:
    """The records that arrived after a later version of their key, and were not there before.

    Args:
        arrivals: in the order in which they arrived.
        newest: the newest version seen so far for each key; kept up to date for the next call.
    """
    high = newest if newest is not None else {}
    seen: set[tuple[str, int]] = set()
    late = []
    for record in arrivals:
        if record.version < high.get(record.key, -1) and (record.key, record.version) not in seen:
            late.append(record)
        seen.add((record.key, record.version))
        high[record.key] = max(high.get(record.key, -1), record.version)
    return late


def _counts(records: list[Record]) -> tuple[tuple[bytes, int], ...]:
    return tuple((record.digest, 1) for record in records)


def _described(side: tuple[tuple[bytes, int], ...]) -> str:
    return ", ".join(f"{digest.hex() or 'by name'} x{count}" for digest, count in side) or "nothing"
