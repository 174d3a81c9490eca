"""A counterexample as a person reads it: the faults, what happened where and when, what is broken, and the likely cause."""

from __future__ import annotations

from typing import Any

import msgspec

from yaoki.explore import cause
from yaoki.explore.loop import START_S
from yaoki.explore.outcome import Execution
from yaoki.explore.plan import Plan, parse, plain

UNHEARD = "takes effect, unheard"


class Line(msgspec.Struct, frozen=True):
    """One thing that happened.

    Attributes:
        at_s: virtual seconds since the start. lane: the process or service, "" for the whole.
        to: of a call: the service that it goes to. fault: what struck it, or "".
    """

    at_s: float
    lane: str
    words: str
    to: str = ""
    fault: str = ""


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
        services = {point.site: point.service for point in run.points}
        lines = tuple(_line(at, lane, words, services) for at, lane, words in run.timeline)
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
        return list(dict.fromkeys(name for line in self.lines for name in (line.lane, line.to) if name))

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
        """One line an event, indented by its lane; of a story that does not end, the beginning and the end."""
        lanes = list(dict.fromkeys(line.lane for line in self.lines if line.lane))
        wide = max([len(lane) for lane in lanes] or [1])
        lines, left = shortened(self.lines)
        told = [f"  {line.at_s:>10.3f} s  {line.lane:<{wide}} │{'  ' * (lanes.index(line.lane) if line.lane else 0)} {line.words}" for line in lines]
        if left:
            told.insert(len(told) // 2, f"  {'…':>12}  {left:,} lines more of the same")
        return told


MOST_LINES = 120
"""Of a timeline that is shown. Nobody reads the middle of an execution that goes on for ever."""


def shortened(lines: tuple[Line, ...], most: int = MOST_LINES) -> tuple[tuple[Line, ...], int]:
    """The first and last lines, and how many were left out between them."""
    if len(lines) <= most:
        return lines, 0
    return (*lines[:most // 2], *lines[-(most // 2):]), len(lines) - 2 * (most // 2)


def _line(at: float, lane: str, words: str, services: dict[str, str]) -> Line:
    site, _, fault = words.removeprefix("→ ").partition("  ⚡ ") if words.startswith("→ ") else ("", "", "")
    return Line(round(at - START_S, 6), lane, words, services.get(site, ""), fault)
