"""What the three kinds of steps made of parts have in common."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki import runtime
from yaoki.saga import codec
from yaoki.saga.parts.state import Part, Parts
from yaoki.saga.parts.undoing import Undoing, undo_parts
from yaoki.saga.records import Failure, Kind, Record
from yaoki.saga.verdict import Verdict

if TYPE_CHECKING:
    from yaoki.saga.attempt import Attempts
    from yaoki.saga.define import Step
    from yaoki.saga.driver import Driver

_FAILURE = msgspec.json.Decoder(Failure)
_BUG = Verdict(bug=True, repeat=False, in_doubt=False)


def part_of(step: Step[..., Any], part: str, decoder: codec.Decoder, *, whole: str = "") -> Step[..., Any]:
    """The step under the name of one of its parts: an attempt of it is an attempt of the part. whole: the step's name, if not its own."""
    made = copy.copy(step)
    made.name = f"{whole or step.name}/{part}"
    made.result = decoder
    made.way = made.wait = None
    return made


class InParts:
    """One step made of parts, while it is made or undone in a run.

    Attributes:
        parts: what has become of its parts so far; it grows as they are written.
        forward: can the run only go forward?
    """

    def __init__(self, attempts: Attempts, driver: Driver, step: Step[..., Any]) -> None:
        self.attempts = attempts
        self.driver = driver
        self.step = step
        self.parts: Parts = driver.machine.parts_of(step.name)
        self.forward = attempts.forward

    def gives_up(self) -> bool:
        return self.driver.gives_up_on(self.step.name, forward=self.forward)

    # ── the record that ends it ──────────────────────────────────────────────────────────────────────────────────────

    def done(self, data: bytes) -> Record:
        step = self.step
        self.driver.results[step.name] = step.result.decode(data)
        return Record(Kind.DONE, step.name, data, runtime.unix_time())

    def failed(self, error: str, message: str) -> Record:
        """It failed. What its parts have left is undone with the run; where a run can only go forward, a person decides."""
        failure = Failure(error, message[:500], in_doubt=self.parts.left > 0)
        return Record(Kind.BLOCKED if self.forward else Kind.FAILED, self.step.name, msgspec.json.encode(failure), runtime.unix_time())

    def given_up(self) -> Record:
        failure = Failure("GivenUp", "the run is being undone", in_doubt=self.parts.left > 0)
        return Record(Kind.FAILED, self.step.name, msgspec.json.encode(failure), runtime.unix_time())

    def bug(self, error: Exception) -> Record:
        return self.attempts.ended(error, _BUG)

    def blocked(self, record: Record) -> Record:
        """A part needs a person, and so does the step."""
        failure = _FAILURE.decode(record.data)
        part = record.step.partition("/")[2]
        told = msgspec.structs.replace(failure, message=f"{part}: {failure.message}")
        return Record(Kind.BLOCKED, self.step.name, msgspec.json.encode(told), record.at)

    # ── undoing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def settle(self, undoing: Undoing, *, size: int) -> Record | bool | None:
        """Undo the parts that failed in doubt: a failed part leaves nothing. True, or what ends the step for now."""
        names = [name for name in self.parts.to_undo() if self.parts.states[name] is Part.DOUBTFUL]
        return await self.undo_these(names, undoing, size=size)

    async def undo_all(self, undoing: Undoing, *, size: int) -> Record | None:
        """Undo all that is left. The record that ends the step's undo, or None: the program is stopping."""
        undone = await self.undo_these(self.parts.to_undo(), undoing, size=size)
        if isinstance(undone, bool):
            return Record(Kind.UNDONE, self.step.name, b"", runtime.unix_time())
        return undone

    async def undo_these(self, names: list[str], undoing: Undoing, *, size: int) -> Record | bool | None:
        if not names:
            return True
        try:
            made = await undo_parts(self.driver, self.step.name, names, undoing, size=size)
        except msgspec.ValidationError as error:  # what a part was begun with, or gave, is not what its undo takes
            failure = Failure(type(error).__name__, str(error)[:500], undo=True)
            return Record(Kind.BLOCKED, self.step.name, msgspec.json.encode(failure), runtime.unix_time())
        if made.blocked is not None:
            return self.blocked(made.blocked)
        return None if made.handed_over else True
