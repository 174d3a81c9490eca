"""One thing that `yk doctor` looked at."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import click


class Level(IntEnum):
    OK = 0
    NOTE = 1  # worth knowing
    WARN = 2  # will bite
    BAD = 3  # does not work


MARKS = {Level.OK: ("✓", "green"), Level.NOTE: ("·", "cyan"), Level.WARN: ("!", "yellow"), Level.BAD: ("✗", "red")}


class Check(NamedTuple):
    """What was looked at, what was found, and what to do about it."""

    name: str
    level: Level
    found: str
    do: str = ""

    def lines(self) -> list[str]:
        mark, color = MARKS[self.level]
        first = f"{click.style(mark, fg=color, bold=True)} {self.name:<12} {self.found}"
        return [first, *([click.style(f"{'':<15}{self.do}", dim=True)] if self.do else [])]
