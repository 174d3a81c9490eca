"""A counterexample as a person reads it: the faults, what happened where and when, what is broken, and the likely cause."""

from __future__ import annotations

from typing import Any

import msgspec

from yaoki.explore import cause
from yaoki.explore.loop import START_S
from yaoki.explore.outcome import Execution
from yaoki.explore.plan import Plan, parse, plain


class Line(msgspec.Struct, frozen=True):
    """One thing that happened. at_s: virtual seconds since the start; lane: the process or service, "" for the whole."""

    at_s: float
    lane: str
    words: str


class Story(msgspec.Struct, frozen=True):
    """One counterexample, shrunk. `token` replays it."""

    token: str
    plan: Plan
    violations: tuple[tuple[str, str], ...]
    cause: str
    answer: str
    lines: tuple[Line, ...]

    @staticmethod
    def of(run: Execution) -> Story:
        """Of an execution that was run with `story=True`."""
        lines = tuple(Line(round(at - START_S, 6), lane, words) for at, lane, words in run.timeline)
        return Story(run.token, run.plan, tuple((each.invariant, each.why) for each in run.violations), cause.likely(run),
                     run.answer or run.stuck, lines)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Story:
        """What `to_dict` wrote down."""
        plan, _ = parse(data["replay"])
        broken = tuple((each["invariant"], each["why"]) for each in data["broken"])
        return Story(data["replay"], plan, broken, data["likely_cause"], data["answer"], msgspec.convert(data["timeline"], tuple[Line, ...]))

    @property
    def signature(self) -> tuple[str, ...]:
        return tuple(sorted({invariant for invariant, _ in self.violations}))

    @property
    def lanes(self) -> list[str]:
        """Processes and services in the order in which they appear."""
        found: dict[str, None] = {line.lane: None for line in self.lines if line.lane}
        return list(found)

    def to_dict(self) -> dict[str, Any]:
        return {"replay": self.token, "faults": plain(self.plan), "broken": [{"invariant": name, "why": why} for name, why in self.violations],
                "likely_cause": self.cause, "answer": self.answer, "timeline": msgspec.to_builtins(self.lines)}

    def text(self) -> str:
        """For a terminal, at most about 120 columns."""
        said = [f"✗ {name}: {why}" for name, why in self.violations]
        said += [f"  likely cause: {self.cause}"] if self.cause else []
        said += [f"  fault {number}: {planned.told()}" for number, planned in enumerate(self.plan, 1)] or ["  without any fault"]
        return "\n".join([*said, "", *self.timeline(), "", f"  replay: --replay '{self.token}'"])

    def timeline(self) -> list[str]:
        """One line an event; a lane is a column of its own as far as they fit."""
        lanes = self.lanes
        wide = max([len(lane) for lane in lanes] or [1])
        return [f"  {line.at_s:>10.3f} s  {line.lane:<{wide}} │{'  ' * (lanes.index(line.lane) if line.lane else 0)} {line.words}" for line in self.lines]
