"""What an exploration found: counts, the matrix of steps and faults, and a few stories. JSON is the truth; text is for people."""

from __future__ import annotations

import platform
from collections import Counter
from typing import Any

from yaoki.explore.outcome import Execution
from yaoki.explore.plan import Settings
from yaoki.explore.story import Story

# What an outcome looks like in a cell of the matrix.
MARKS = {"ok": "✓", "completed": "✓", "undone": "↶", "cancelled": "↶", "error": "e", "blocked": "■", "stuck": "∞", "violation": "✗", "unfired": "?"}
LEGEND = "✓ as without faults   ↶ undone   e the caller got an error   ■ blocked   ✗ an invariant is broken   · pruned: same state as another   blank: cannot strike here"


NOTHING_THERE = "can do nothing there"
"""The rule of `Report.pruned` for faults that are no faults where they were planned: a message that nothing can overtake."""


class Report:
    """The result of one exploration.

    Attributes:
        executions: how many universes were run, each with other faults.
        found: how many broke an invariant; `signatures`: how often each set of invariants.
        stories: the counterexamples, shrunk.
        matrix: site → fault → mark, of single faults.
        pruned: rule → plans that were left out because another covers them.
        never: *sometimes* assertions that no execution reached.
        schedules: how many orders of requests were executed; `schedules_done`: all that can matter without faults;
            `faults_scheduled`: single faults under which all that can matter were executed, too.
        orders: seeded orders in which every single fault was tried again.
        clock: who decides by time, so that the reductions tell states at different times apart; "": nobody.
        stopped: why it ended before everything was executed, or "".
        part: which part of the work it is ("2/12"), or "" for all of it.
    """

    def __init__(self, name: str, *, depth: int, settings: Settings) -> None:
        self.name = name
        self.depth = depth
        self.settings = settings
        self.executions = 0
        self.by_depth: Counter[int] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.signatures: Counter[tuple[str, ...]] = Counter()
        self.stories: list[Story] = []
        self.matrix: dict[str, dict[str, str]] = {}
        self.pruned: Counter[str] = Counter()
        self.points = 0
        self.kinds: set[str] = set()
        self.fired = 0
        self.unfired: list[str] = []
        self.seconds = 0.0
        self.stopped = ""
        self.part = ""
        self.exhausted = False
        self.depths_done = 0
        self.deterministic = True
        self.baseline = ""
        self.clock = ""
        self.reached: set[str] = set()
        self.never: list[str] = []
        self.swarm = 0
        self.schedules = 0
        self.schedules_done = False
        self.faults_scheduled = 0
        self.orders = 0
        self.resume_at = 0  # plans dealt with, in the order of the search: where another exploration can go on
        self._told: set[tuple[Any, ...]] = set()

    # ── taking in ──

    def take_baseline(self, base: Execution, again: Execution) -> None:
        """The execution without faults, and its repetition, which must be the same."""
        self.points = len(base.points)
        self.baseline = base.answer or base.stuck
        self._count(base)
        if again.digest() != base.digest():
            self.deterministic = False
            self.stopped = f"the same execution twice differs: {_first_difference(base, again)}"

    def take(self, run: Execution) -> None:
        self._count(run)
        if run.unfired:
            self.unfired.extend(run.unfired[: max(0, 20 - len(self.unfired))])
        for planned in run.plan:
            self.kinds.add(planned.fault)
        self.fired += len(run.plan) - len(run.unfired)
        if len(run.plan) == 1:
            planned = run.plan[0]
            row = self.matrix.setdefault(planned.site, {})
            row[planned.fault] = _worse(row.get(planned.fault, ""), _mark(run))

    def _count(self, run: Execution) -> None:
        self.executions += 1
        self.by_depth[len(run.plan)] += 1
        self.outcomes["unfired" if run.unfired else run.outcome] += 1
        self.reached |= run.reached
        if run.violations:
            self.signatures[run.signature] += 1

    def is_new(self, run: Execution) -> bool:
        """Is this a way to break that has not been told yet?

        The same invariants at the same sites are one way, with a power cut or without; more faults for what fewer can
        break tell nothing new.
        """
        told = (run.signature, tuple((planned.site, planned.fault.startswith("crash.")) for planned in run.plan))
        if told in self._told or any(signature == run.signature and len(where) < len(run.plan) for signature, where in self._told):
            return False
        self._told.add(told)
        return True

    def add_story(self, run: Execution) -> None:
        story = Story.of(run)
        if all(story.token != other.token for other in self.stories):
            self.stories.append(story)

    def finish(self) -> None:
        """Say which *sometimes* were never true: only what an execution named can be missed."""
        asked = {name.removeprefix("?") for name in self.reached}
        self.never = sorted(name for name in asked if name not in self.reached)

    def merge(self, other: Report) -> None:
        """Add what another job found."""
        self.executions += other.executions
        for mine, theirs in ((self.by_depth, other.by_depth), (self.outcomes, other.outcomes), (self.signatures, other.signatures),
                             (self.pruned, other.pruned)):
            mine.update(theirs)  # type: ignore[arg-type]
        for site, row in other.matrix.items():
            mine_row = self.matrix.setdefault(site, {})
            for fault, mark in row.items():
                mine_row[fault] = _worse(mine_row.get(fault, ""), mark)
        for story in other.stories:
            if all((story.token, story.signature) != (each.token, each.signature) for each in self.stories):
                self.stories.append(story)
        self.kinds |= other.kinds
        self.fired += other.fired
        self.unfired.extend(other.unfired)
        self.reached |= other.reached
        self.stopped = self.stopped or other.stopped
        self.clock = self.clock or other.clock
        self.schedules += other.schedules
        self.schedules_done = self.schedules_done and other.schedules_done
        self.faults_scheduled += other.faults_scheduled
        self.orders += other.orders
        self.exhausted = self.exhausted and other.exhausted
        self.deterministic = self.deterministic and other.deterministic
        self.depths_done = min(self.depths_done, other.depths_done) if other.depths_done else self.depths_done

    # ── giving out ──

    @property
    def found(self) -> int:
        return sum(self.signatures.values())

    @property
    def ok(self) -> bool:
        """Nothing is broken, every planned fault fired, it is deterministic, and every *sometimes* came true."""
        return not self.found and not self.unfired and self.deterministic and not self.never

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data, the same for the same code and settings, apart from `seconds`."""
        return {
            "version": 1, "scenario": self.name, "ok": self.ok, "depth": self.depth, "depths_done": self.depths_done,
            "exhausted": self.exhausted, "stopped": self.stopped, "part": self.part, "deterministic": self.deterministic,
            "executions": self.executions, "by_depth": {str(key): self.by_depth[key] for key in sorted(self.by_depth)},
            "points": self.points, "kinds": sorted(self.kinds), "faults_fired": self.fired, "unfired": self.unfired,
            "outcomes": dict(sorted(self.outcomes.items())), "baseline": self.baseline, "clock": self.clock,
            "violations": self.found, "broken": {" + ".join(key): count for key, count in sorted(self.signatures.items())},
            "stories": [story.to_dict() for story in self.stories], "matrix": self.matrix, "pruned": dict(sorted(self.pruned.items())),
            "sometimes": sorted(name for name in self.reached if not name.startswith("?")), "never": self.never,
            "swarm": self.swarm, "schedules": self.schedules, "schedules_done": self.schedules_done,
            "faults_scheduled": self.faults_scheduled, "orders": self.orders, "resume_at": self.resume_at, "seed": self.settings.seed, "order": self.settings.order, "seconds": round(self.seconds, 3),
            "python": platform.python_version(),
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Report:
        """What `to_dict` wrote down, for merging."""
        report = Report(data["scenario"], depth=data["depth"], settings=Settings(data["seed"], data["order"]))
        for name in ("executions", "points", "unfired", "stopped", "part", "exhausted", "depths_done", "deterministic", "baseline", "clock", "swarm", "schedules", "schedules_done",
                     "faults_scheduled", "orders", "resume_at", "seconds"):
            setattr(report, name, data[name])
        report.by_depth = Counter({int(key): count for key, count in data["by_depth"].items()})
        report.outcomes = Counter(data["outcomes"])
        report.signatures = Counter({tuple(key.split(" + ")): count for key, count in data["broken"].items()})
        report.pruned = Counter(data["pruned"])
        report.kinds = set(data["kinds"])
        report.fired = data["faults_fired"]
        report.matrix = data["matrix"]
        report.reached = set(data["sometimes"]) | {f"?{name}" for name in data["never"]}
        report.stories = [Story.from_dict(story) for story in data["stories"]]
        return report

    def text(self, *, matrix: bool = True) -> str:
        """For a terminal: the stories first, then what was explored."""
        parts = [story.text() for story in self.stories]
        if self.never:
            parts.append("never reached, though some execution should: " + ", ".join(self.never))
        if self.unfired:
            parts.append("planned faults that never fired (the code has changed, or is not deterministic):\n  " + "\n  ".join(self.unfired[:5]))
        if matrix and self.matrix:
            parts.append(self.matrix_text())
        parts.append(self.summary())
        return "\n\n".join(parts)

    def summary(self) -> str:
        """One paragraph."""
        seconds = round(self.seconds, 3)  # as `to_dict` keeps it, so that a report read back says the same
        rate = f", {self.executions / seconds:,.0f}/s" if seconds > 0.01 else ""
        depths = ", ".join(f"{self.by_depth[key]:,} with {key} fault{'s' if key != 1 else ''}" for key in sorted(self.by_depth))
        size = f"{self.points} point{'s' if self.points != 1 else ''} without faults, {len(self.kinds)} kind{'s' if len(self.kinds) != 1 else ''} of fault"
        lines = [f"{self.name}: {self.executions:,} execution{'s' if self.executions != 1 else ''} in {seconds:.2f} s{rate} ({depths}), {size}"]
        if self.pruned:
            lines.append("left out because another execution covers it: " + ", ".join(f"{count:,} ({rule})" for rule, count in sorted(self.pruned.items()) if count))
        if self.schedules:
            lines.append(f"{self.schedules:,} orders in which requests can arrive" + (": all that can matter" if self.schedules_done else ", of more")
                         + (f", also under {self.faults_scheduled:,} single faults" if self.faults_scheduled else ""))
        if self.orders:
            lines.append(f"{self.orders:,} seeded orders of what is due together, with every single fault in each")
        if self.clock:
            lines.append(f"time decides here ({self.clock}), so states at different times are different states: little can be left out")
        if self.stopped:
            lines.append(f"stopped {self.stopped}; every set of up to {max(0, self.depths_done)} faults was covered")
        elif self.exhausted and self.part:
            lines.append(f"part {self.part} of the sets of up to {self.depth} faults of these kinds was covered")
        elif self.exhausted:
            lines.append(f"every set of up to {self.depth} fault{'s' if self.depth != 1 else ''} of these kinds was covered")
        if not self.points:
            lines.append("NOTHING CAN FAIL HERE: it makes no call, writes no record and sends no message that this universe knows of")
        if self.baseline.startswith("raises "):
            lines.append(f"without any fault it {self.baseline}: everything else was compared with that")
        if self.found:
            broken = ", ".join(f"{' + '.join(names)} ({count})" for names, count in self.signatures.most_common())
            lines.append(f"BROKEN in {self.found:,} executions: {broken}")
        else:
            lines.append("no invariant was broken" if self.ok else "not a clean result: see above")
        return "\n".join(lines)

    def matrix_text(self) -> str:
        """Site by fault, of single faults."""
        faults = sorted({fault for row in self.matrix.values() for fault in row})
        wide = max(len(site) for site in self.matrix)
        lines = [f"  {number:>2}  {fault}" for number, fault in enumerate(faults, 1)]
        head = " " * wide + "  " + " ".join(f"{number:>2}" for number in range(1, len(faults) + 1))
        body = [f"{site:{wide}}  " + " ".join(f"{row.get(fault, ' '):>2}" for fault in faults) for site, row in self.matrix.items()]
        return "\n".join([head, *body, "", *lines, "", LEGEND])


def _mark(run: Execution) -> str:
    if run.unfired:
        return MARKS["unfired"]
    return MARKS["violation"] if run.violations else MARKS.get(run.outcome, "?")


_ORDER = "✓↶e■∞?✗"


def _worse(one: str, other: str) -> str:
    return max(one, other, key=lambda mark: _ORDER.find(mark) if mark else -1)


def _first_difference(one: Execution, other: Execution) -> str:
    for index, (mine, theirs) in enumerate(zip(one.points, other.points, strict=False)):
        if mine != theirs:
            return f"call {index + 1} is {mine.site} at {mine.time_s:g} s, then {theirs.site} at {theirs.time_s:g} s"
    if len(one.points) != len(other.points):
        return f"{len(one.points)} calls, then {len(other.points)}"
    return f"{one.answer}, then {other.answer}"

