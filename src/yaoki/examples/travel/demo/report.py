"""What came of the demo: a table for people, one JSON object for programs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from yaoki.examples.travel.demo.play import Outcome
from yaoki.examples.travel.faults import MESSAGE_FAULTS

FINDINGS_SHOWN = 10
BROKER = "broker"
MEANINGS = {
    "completed": "fully booked: room, seat, points, money and ticket, once each",
    "undone": "nothing of them is left",
    "blocked": "need a person",
    "lost": "neither, or not what is claimed",
    "duplicated_effects": "effects made twice, even if taken back",
    "orphaned_effects": "effects of trips that are not completed",
    "charged_twice": "trips paid twice or too much",
    "overbooked": "rooms, seats or points beyond what there is",
    "unbalanced": "services whose own figures disagree",
}


def to_dict(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON-able data."""
    report, progress, plan = outcome.report, outcome.progress, outcome.plan
    return {
        "trips": report.trips, "completed": report.completed, "undone": report.undone, **report.wrong(),
        **_kills(outcome), "service_kills": progress.service_kills.total(),
        "faults_injected": progress.faults.total(), "faults": dict(sorted(progress.faults.items())),
        **({"message_faults": _of_messages(progress.faults).total()} if plan.choreographed else {}),
        "undos_without_do": progress.tombstones,
        "front_page": {name: progress.front_page[name] for name in ("whole", "degraded", "failed")},
        "seconds": round(progress.seconds, 2), "cpu_seconds": round(progress.cpu_s, 2), "seed": plan.seed, "share_of_faults": plan.faults,
        "ok": report.clean, "findings": report.findings[:FINDINGS_SHOWN],
    }


def _of_messages(faults: Counter[str]) -> Counter[str]:
    return Counter({kind: count for kind, count in faults.items() if kind in MESSAGE_FAULTS.values()})


def _fault_lines(outcome: Outcome) -> list[str]:
    every = outcome.progress.faults
    of_messages = _of_messages(every)
    lines = [_counted("faults of requests" if of_messages else "faults  ", every - of_messages)]
    return [*lines, _counted("faults of messages", of_messages)] if of_messages else lines


def _counted(what: str, faults: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
    return f"{faults.total():>8} {what} {kinds or 'none'}"


def _kills(outcome: Outcome) -> dict[str, int]:
    """Who was killed: the orchestrator; or, where nobody is in charge, participants and their broker."""
    kills = outcome.progress.kills
    if not outcome.plan.choreographed:
        return {"orchestrator_kills": kills["orchestrator"]}
    return {"participant_kills": kills.total() - kills[BROKER], "broker_kills": kills[BROKER]}


def _killed(outcome: Outcome) -> str:
    kills = outcome.progress.kills
    if not outcome.plan.choreographed:
        return f"{kills['orchestrator']} orchestrator{'s' if kills['orchestrator'] != 1 else ''}"
    each = ", ".join(f"{name} {count}" for name, count in sorted(kills.items()) if name != BROKER)
    brokers = f", and their broker {kills[BROKER]} times," if kills[BROKER] else ""
    return f"{kills.total() - kills[BROKER]} participants ({each or 'none'}){brokers}"


def table(outcome: Outcome) -> str:
    """The outcome for people."""
    found, progress = to_dict(outcome), outcome.progress
    lines = [
        "", f"{found['trips']:>8} trips    in {found['seconds']:.1f} s, seed {found['seed']}",
        *_fault_lines(outcome),
        f"{found['service_kills']:>8} services and {_killed(outcome)} killed with -9, and started again",
        f"{progress.tombstones:>8} undos came without their do, and left a tombstone for it",
        (f"{progress.front_page.total():>8} looks at the front page: {progress.front_page['degraded']} without recommendations, "
        f"{progress.front_page['failed']} failed"),
        "", "What the services' own databases say:", ""]
    lines += [f"{found[name]:>8} {name.replace('_', ' '):<19} {meaning}" for name, meaning in MEANINGS.items()]
    lines += ["", *(f"  ! {finding}" for finding in found["findings"])]
    more = len(outcome.report.findings) - FINDINGS_SHOWN
    if more > 0:
        lines.append(f"  ! and {more} more")
    lines.append("Every trip ended, and nothing is left over." if outcome.report.clean else "NOT CLEAN: see above.")
    return "\n".join(lines)
