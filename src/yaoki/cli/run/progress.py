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
BAR = 26


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

    def line(self, now: float) -> str:
        """The line, with colours."""
        rate = self.rate(now)
        in_flight = self.started - self.done
        counts = [click.style(f"{state} {grouped(number)}", fg=COLORS.get(state))
                  for state, number in self.ended.items() if number]
        counts.append(f"in flight {in_flight}")
        parts = [self._share(), f"{grouped(rate)}/s", " · ".join(counts), self._left(rate)]
        return "  ".join(part for part in parts if part)

    def _share(self) -> str:
        if not self.total:
            return grouped(self.done)
        filled = self.done / self.total * BAR
        whole = int(filled)
        bar = "━" * whole + ("╸" if filled - whole >= 0.5 else "")
        rest = click.style("─" * (BAR - len(bar)), dim=True)
        return f"{click.style(bar, fg='green')}{rest}  {grouped(self.done)}/{grouped(self.total)}"

    def _left(self, rate: float) -> str:
        if not self.total or rate <= 0 or self.done >= self.total:
            return ""
        left_s = (self.total - self.done) / rate
        return f"{left_s:.0f} s left" if left_s < 60 else f"{show_duration(left_s)} left"
