"""What is done about the instants of a schedule that have come. A decider: a plan and the time in, the next plan out.

    instant comes ──free──────────────────────▶ pending ──started──▶ runs
          │ └─the last one still runs─▶ overlap:
          │        skip    left out             buffer   kept, one at most, until that one has ended
          │        allow   pending all the same  cancel  kept, and that one is asked to undo itself
          └─older than `catch_up_s`: missed, left out

A plan is agreed on by compare and set before anything is started, and a run's id is the schedule and the instant; so whoever
carries it out, however often, an instant is one run.
"""

from __future__ import annotations

import hashlib

import msgspec

from yaoki.errors import ConfigError
from yaoki.saga.journal.port import NORMAL
from yaoki.saga.placing import Placing
from yaoki.saga.schedule.cron import Cron, Every, When, iso

OVERLAPS = ("skip", "buffer", "allow", "cancel")

# Instants that are decided at once, so that a year of minutes does not stop everything else.
MOST = 1000


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A schedule as defined, and as all workers know it.

    Attributes:
        name, saga: letters, digits, `-` and `_`.
        cron, zone: when; or every_s, offset_s.
        input: what each run starts with, JSON; empty: it is computed from the instant.
        overlap: what happens when the last run has not ended: skip, buffer, allow, cancel.
        catch_up_s: how long after its instant a run is started yet, when nobody was there in time.
        jitter_s: each start is put off by up to so much, the same on every worker.
        queue, priority, tenant, attributes: of each run; an empty queue: the saga's.
    """

    name: str
    saga: str
    cron: str = ""
    zone: str = "UTC"
    every_s: float = 0.0
    offset_s: float = 0.0
    input: str = ""
    overlap: str = "skip"
    catch_up_s: float = 3600.0
    jitter_s: float = 0.0
    queue: str = ""
    priority: int = NORMAL
    tenant: str = ""
    attributes: dict[str, str] = {}

    def when(self) -> When:
        """Raises ConfigError."""
        return Cron(self.cron, self.zone) if self.cron else Every(self.every_s, self.offset_s)

    def check(self) -> None:
        """Raises ConfigError."""
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"a schedule's name is letters, digits, '-' and '_', not {self.name!r}", do="rename it")
        if bool(self.cron) == bool(self.every_s):
            raise ConfigError(f"schedule {self.name!r} has both or none of cron= and every=", do="give one of them")
        if self.overlap not in OVERLAPS:
            raise ConfigError(f"overlap={self.overlap!r} is none of {', '.join(OVERLAPS)}", do="'skip' is the default")
        if not self.catch_up_s >= 0 or not self.jitter_s >= 0:
            raise ConfigError(f"schedule {self.name!r}: catch_up and jitter are seconds, not below 0", do="catch_up=3600 is an hour")
        self.placing("").check()
        self.when()

    def placing(self, of_saga: str) -> Placing:
        """Where each run waits for its turn. of_saga: the queue of the saga, or ""."""
        return Placing(self.queue or of_saga or "default", self.priority, self.tenant)

    def due(self, instant: float) -> float:
        """When the run of this instant is to be started: later by its own share of the jitter."""
        if not self.jitter_s:
            return instant
        digest = hashlib.blake2b(f"{self.name}@{instant}".encode(), digest_size=8).digest()
        return instant + self.jitter_s * int.from_bytes(digest) / 2**64

    def firing(self, instant: float) -> Firing:
        return Firing(f"{self.name}@{iso(instant)}", instant)


class Firing(msgspec.Struct, frozen=True):
    """One run to start. id: its id. at: the instant that it is for."""

    id: str
    at: float


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a schedule is.

    Attributes:
        since: all instants up to here are decided.
        paused: why nothing is fired, or "".
        pending: decided, and to be started now.
        held: to be started when the last run has ended.
        runs: started, and not known to have ended.
        cancelling: are they to be cancelled?
        fired, left_out: how many so far.
    """

    since: float
    paused: str = ""
    pending: tuple[Firing, ...] = ()
    held: Firing | None = None
    runs: tuple[str, ...] = ()
    cancelling: bool = False
    fired: int = 0
    left_out: int = 0


def decide(spec: Spec, when: When, plan: Plan, now: float) -> Plan:
    """The plan after all instants up to now. `plan.runs`: those that run yet."""
    if plan.paused:
        return msgspec.structs.replace(plan, since=max(plan.since, now))
    late = False
    for _ in range(MOST):
        instant = when.next_after(plan.since)
        if spec.due(instant) > now:
            return _release(plan)
        late = now - spec.due(instant) > spec.catch_up_s
        plan = msgspec.structs.replace(plan, since=instant)
        plan = msgspec.structs.replace(plan, left_out=plan.left_out + 1) if late else _fire(spec, plan, spec.firing(instant))
    if late:  # nobody was there for a long time, and what was missed need not be counted to the end
        plan = msgspec.structs.replace(plan, since=max(plan.since, now - spec.catch_up_s - spec.jitter_s))
    return _release(plan)


def _fire(spec: Spec, plan: Plan, firing: Firing) -> Plan:
    busy = bool(plan.runs or plan.pending)
    if not busy or spec.overlap == "allow":
        return msgspec.structs.replace(plan, pending=(*plan.pending, firing))
    if spec.overlap == "skip" or (spec.overlap == "buffer" and plan.held is not None):
        return msgspec.structs.replace(plan, left_out=plan.left_out + 1)
    replaced = plan.held is not None
    return msgspec.structs.replace(plan, held=firing, cancelling=spec.overlap == "cancel", left_out=plan.left_out + replaced)


def _release(plan: Plan) -> Plan:
    if plan.held is None or plan.runs or plan.pending:
        return plan
    return msgspec.structs.replace(plan, pending=(plan.held,), held=None, cancelling=False)


def wakes_at(spec: Spec, when: When, plan: Plan) -> float:
    """When the next instant is due."""
    return spec.due(when.next_after(plan.since))


def started(plan: Plan, ids: tuple[str, ...]) -> Plan:
    """After these pending firings have been started."""
    done = set(ids)
    left = tuple(each for each in plan.pending if each.id not in done)
    return msgspec.structs.replace(plan, pending=left, runs=(*plan.runs, *(each for each in ids if each not in plan.runs)),
                                   fired=plan.fired + len(plan.pending) - len(left))


def ended(plan: Plan, running: frozenset[str]) -> Plan:
    """After a look at the runs: those that still run."""
    return _release(msgspec.structs.replace(plan, runs=tuple(run for run in plan.runs if run in running)))


def triggered(plan: Plan, *firings: Firing) -> Plan:
    """Start these besides, whatever runs: a person says so."""
    known = {each.id for each in plan.pending}
    return msgspec.structs.replace(plan, pending=(*plan.pending, *(each for each in firings if each.id not in known)))


def between(spec: Spec, when: When, begin: float, end: float, *, most: int = MOST) -> list[Firing]:
    """The firings of the instants after `begin` and up to `end`. Raises ConfigError for more than `most`."""
    found: list[Firing] = []
    instant = begin
    while (instant := when.next_after(instant)) <= end:
        if len(found) == most:
            raise ConfigError(f"more than {most} instants lie between these", do="fill them in smaller parts")
        found.append(spec.firing(instant))
    return found


__all__ = ["OVERLAPS", "Cron", "Every", "Firing", "Plan", "Spec", "between", "decide", "ended", "started", "triggered", "wakes_at"]
