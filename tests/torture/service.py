"""The service that the tortured sagas call, and what is said to it. Every effect is a line in a file: `run/step do|undo fence`."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from yaoki import DeclinedError, Effect, runtime


class Trip(msgspec.Struct):
    """`fails`: the step that says no, or "". `slow`: seconds that a step takes. `insured`: has it the step that not all have?"""

    fails: str = ""
    slow: float = 0.0
    insured: bool = False


class Done(msgspec.Struct):
    """A step's result: under which fence it was made, so that the checker sees the owners in a run's history."""

    fence: int
    pid: int


def effects_in(folder: Path) -> list[tuple[str, str, int]]:
    """(key, do or undo, fence) of every effect, in the order of each process."""
    lines = [line.split() for path in sorted(folder.glob("effects-*.log")) for line in path.read_text().splitlines()]
    return [(line[0], line[1], int(line[2])) for line in lines if len(line) == 3]


class Service:
    """Appends to a file of its own in each process: a line is in the page cache before the step goes on, so kill -9 keeps it."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / f"effects-{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    async def call(self, effect: Effect, trip: Trip) -> Done:
        if trip.slow:
            share = 0.25 if "/" in effect.step else 1.0  # parts are many
            await runtime.sleep(trip.slow * share * runtime.rng().random() * 2)
        if (trip.fails == effect.step or (effect.step == "taxi/yellow" and not trip.insured)) and not effect.undo:
            raise DeclinedError("sold out")
        if runtime.rng().random() < 0.05:
            raise ConnectionError("the service is having a moment")
        os.write(self._fd, f"{effect.key} {'undo' if effect.undo else 'do'} {effect.fence}\n".encode())
        return Done(effect.fence, os.getpid())
