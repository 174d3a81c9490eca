"""The line that moves while runs run: how many, how fast, in which states, how long still. A decider: figures in, text out.

    ━━━━━━━━━━━━━━━╸──────────  612/1 000  104/s  completed 571 · undone 37 · blocked 4 · in flight 64  4 s left
"""

from __future__ import annotations

from collections import deque

import click

from yaoki.cli.frame.durations import show_duration
from yaoki.saga.records import RunState
from yaoki.text import grouped

# Seconds over which the rate is taken: short enough to follow, long enough not to flicker.
WINDOW_S = 5.0

COLORS = {RunState.COMPLETED: "green", RunState.UNDONE: "yellow", RunState.CANCELLED: "yellow", RunState.BLOCKED: "red"}
MOST_BAR, LEAST_BAR = 26, 8


class Progress:
    """Counts of runs by how they ended, over time."""

    def __init__(self, total: int | None, now: float) -> None:
        self.total = total
        self.started = 0
        self.already = 0  # had ended before this command began
        self.ended: dict[RunState, int] = {}
        self.began = now
        self._marks: deque[tuple[float, int]] = deque([(now, 0)])

    @property
    def done(self) -> int:
        return sum(self.ended.values())

    def end(self, state: RunState) -> None:
        self.ended[state] = self.ended.get(state, 0) + 1

    def rate(self, now: float) -> float:
        """Runs a second over the last seconds."""
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW_S:
            self._marks.popleft()
        at, done = self._marks[0]
        return (self.done - done) / (now - at) if now > at else 0.0

    def line(self, now: float, width: int = 120) -> str:
        """The line, with colours, in at most `width` columns: the bar gives way first, then the time left."""
        rate = self.rate(now)
        counts = [click.style(f"{state} {grouped(self.ended[state])}", fg=color) for state, color in COLORS.items()
                  if self.ended.get(state)]
        counts.append(f"in flight {self.started - self.done}")
        of = f"/{grouped(self.total)}" if self.total else ""
        parts = [grouped(self.done) + of, f"{grouped(rate)}/s", " · ".join(counts), self._left(rate)]
        room = width - sum(len(click.unstyle(part)) + 2 for part in parts if part)
        if self.total and room >= LEAST_BAR:
            parts.insert(0, bar(self.done / self.total, min(room, MOST_BAR)))
        elif room < 0:
            parts.pop()
        return "  ".join(part for part in parts if part)

    def _left(self, rate: float) -> str:
        if not self.total or rate <= 0 or self.done >= self.total:
            return ""
        left_s = (self.total - self.done) / rate
        return f"{left_s:.0f} s left" if left_s < 60 else f"{show_duration(left_s)} left"


def bar(share: float, size: int) -> str:
    """`━━━━━╸────`: `size` columns, of which `share` (0 to 1) are full."""
    halves = int(share * size * 2)
    full = "━" * (halves // 2) + "╸" * (halves % 2)
    return click.style(full, fg="green") + click.style("─" * (size - len(full)), dim=True)
