"""Undoes what is left of a step's parts: those that are done, and those of which nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from yaoki.saga.parts.attempts import PartAttempts
from yaoki.saga.parts.crew import Crew, Job

if TYPE_CHECKING:
    from yaoki.saga.driver import Driver
    from yaoki.saga.records import Record

Undoing = Callable[[str], PartAttempts | None]
"""The attempts of the undo of a part, by its name within the step; None: it needs none."""


class Undone:
    """What came of undoing some parts. blocked: what needs a person, or None. handed_over: the program is stopping."""

    __slots__ = ("blocked", "handed_over")

    def __init__(self, crew: Crew) -> None:
        self.blocked: Record | None = crew.blocked[0] if crew.blocked else None
        self.handed_over = crew.handed_over


async def undo_parts(driver: Driver, step: str, names: list[str], undoing: Undoing, *, size: int) -> Undone:
    """Undo these parts, `size` at once, in the order given."""
    jobs = [Job(f"{step}/{name}", attempts.run) for name in names if (attempts := undoing(name)) is not None]
    crew = Crew(driver, jobs, size, lambda: False)
    await crew.work()
    if jobs and driver.is_stopping():
        crew.handed_over = True
    return Undone(crew)
