"""Quiet, flowing, stuck or unknown: what the heartbeats prove about one partition of one sink.

"Nothing changed" and "the trigger did not fire" look the same in every metric. Heartbeats tell them apart: they are
written at the source all the time and take the same path, so where the newest of them is, there the path is open.

    at the source   in the transport   at rest in the sink            verdict
    silent          –                  –                              UNKNOWN          never "fine" by default
    fresh           overdue            overdue                        STREAM_STUCK
    fresh           fresh              overdue                        TRIGGER_STUCK    trigger, consumer or sink
    fresh           fresh              fresh, some before missing     SKIPPED_INTERVAL bounded by the beats around it
    fresh           fresh              fresh, versions differ         LOSS             each version named in a finding
    fresh           fresh              fresh, versions due arrived    FLOWING
    fresh           fresh              fresh, no versions due         QUIET            nothing changed: proven

A transaction that holds the watermark back keeps beats from being sealed; that is WATERMARK_HELD and names who holds it.
Pure. A beat is *overdue* when it was written longer than the SLO ago and has not arrived.
"""

from __future__ import annotations

import msgspec

from yaoki.ledger.rules import Rules

QUIET = "QUIET"
FLOWING = "FLOWING"
LOSS = "LOSS"
TRIGGER_STUCK = "TRIGGER_STUCK"
STREAM_STUCK = "STREAM_STUCK"
SKIPPED_INTERVAL = "SKIPPED_INTERVAL"
WATERMARK_HELD = "WATERMARK_HELD"
UNKNOWN = "UNKNOWN"

HEALTHY = (QUIET, FLOWING)
"""Verdicts that ask nothing of anybody."""


class Beat(msgspec.Struct, frozen=True, gc=False):
    """A heartbeat: its number and when it was written at the source."""

    number: int
    at: float


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What an auditor saw of one partition at one time.

    Attributes:
        beats: the beats known to be written at the source, oldest first; a window of some hours is enough.
        transported: numbers of those seen in the transport; None where there is none to look into.
        arrived: numbers of those at rest in the sink.
        changed: versions (beats not counted) whose time to arrive ended since the last look.
        differing: open findings about single versions of this partition.
        held_s, holder: how long the watermark has not moved, and who holds it.
    """

    part: str
    now: float
    beats: list[Beat]
    arrived: frozenset[int]
    transported: frozenset[int] | None = None
    changed: int = 0
    differing: int = 0
    held_s: float = 0.0
    holder: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is proven about a partition.

    Attributes:
        last_beat, next_beat: the beats around a standstill or a skipped stretch: what was written between them is
            what to look for. None where there is none.
    """

    part: str
    kind: str
    reason: str
    at: float
    last_beat: Beat | None = None
    next_beat: Beat | None = None

    @property
    def healthy(self) -> bool:
        return self.kind in HEALTHY


def judge(look: Look, rules: Rules) -> Verdict:
    """Decide about one partition. Source: the table above."""
    kind, reason, last, following = _decide(look, rules)
    return Verdict(part=look.part, kind=kind, reason=reason, at=look.now, last_beat=last, next_beat=following)


def _decide(look: Look, rules: Rules) -> tuple[str, str, Beat | None, Beat | None]:
    if look.held_s > rules.hold_s:
        who = f" by {look.holder}" if look.holder else ""
        return WATERMARK_HELD, f"sealing has been held back for {look.held_s:.0f} s{who}", None, None
    newest = look.beats[-1] if look.beats else None
    if newest is None:
        return UNKNOWN, "no beat was ever written: start a writer of beats, or nothing can be proven", None, None
    if look.now - newest.at > rules.source_silent_after_s:
        return UNKNOWN, f"the source is silent: its newest beat is {look.now - newest.at:.0f} s old", newest, None
    due = look.now - rules.slo_s - rules.clock_error_s
    if look.transported is not None:
        stuck = _overdue(look.beats, look.transported, due)
        if stuck:
            last, first = stuck
            return STREAM_STUCK, _standstill("the transport", first, look.now), last, first
    stuck = _overdue(look.beats, look.arrived, due)
    if stuck:
        last, first = stuck
        place = "the sink, though they are in the transport" if look.transported is not None else "the sink"
        return TRIGGER_STUCK, _standstill(place, first, look.now), last, first
    return _decide_open(look, due)


def _decide_open(look: Look, due: float) -> tuple[str, str, Beat | None, Beat | None]:
    """The path is open, or no beat has had time to prove otherwise."""
    if not any(beat.number in look.arrived for beat in look.beats):
        return UNKNOWN, "no beat has arrived yet, and none is overdue: too early to tell", None, None
    holes = [at for at, beat in enumerate(look.beats) if beat.number not in look.arrived and beat.at < due]
    if holes:
        before = look.beats[holes[0] - 1] if holes[0] else None
        last = holes[-1]
        after = look.beats[last + 1] if last + 1 < len(look.beats) else None
        names = f"{look.beats[holes[0]].number} to {look.beats[last].number}"
        return SKIPPED_INTERVAL, f"beats {names} never arrived, later ones did: a stretch was skipped", before, after
    if look.differing:
        return LOSS, f"{look.differing} version(s) differ although the path is open; see the findings", None, None
    if look.changed:
        return FLOWING, f"all {look.changed} version(s) that were due are at rest in the sink", None, None
    return QUIET, "nothing changed: the path is open and nothing was due", None, None


def _overdue(beats: list[Beat], seen: frozenset[int], due: float) -> tuple[Beat | None, Beat] | None:
    """(last beat seen, first beat after it) if the newest beats are missing and the first of them is overdue."""
    last = max((at for at, beat in enumerate(beats) if beat.number in seen), default=-1)
    if last + 1 >= len(beats) or beats[last + 1].at >= due:
        return None
    return (beats[last] if last >= 0 else None), beats[last + 1]


def _standstill(place: str, first: Beat, now: float) -> str:
    return f"beats stopped arriving in {place}: number {first.number}, written {now - first.at:.0f} s ago, is overdue"
