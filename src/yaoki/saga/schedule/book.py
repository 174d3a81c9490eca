"""The book of schedules: a register for each, in which all workers and the command line agree by compare and set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from yaoki.errors import JournalError, UsageError
from yaoki.saga.schedule.plan import Plan, Spec
from yaoki.text import did_you_mean

if TYPE_CHECKING:
    from yaoki.saga.journal.registers import Registers

SCOPE = "schedules"

# How often a change is tried again because somebody else has changed the same schedule meanwhile. Few write at once.
TRIES = 50


class _Page(msgspec.Struct, frozen=True):
    """What the register holds."""

    spec: Spec
    plan: Plan


class Entry(msgspec.Struct, frozen=True):
    """A schedule, and where it is. page: the register's bytes; None: it is not there yet."""

    spec: Spec
    plan: Plan
    page: bytes | None = None


class Book:
    """The schedules of one journal."""

    def __init__(self, journal: Registers) -> None:
        self._journal = journal

    async def read(self) -> dict[str, Entry]:
        """All, by name."""
        return {name: _entry(found.data) for name, found in (await self._journal.registers(SCOPE)).items()}

    async def one(self, name: str) -> Entry:
        """Raises UsageError."""
        known = await self.read()
        if name not in known:
            raise UsageError(f"there is no schedule {name!r}{did_you_mean(name, known)}", do="`yk schedules list` names them")
        return known[name]

    async def define(self, spec: Spec, now: float) -> None:
        """Write down what the program says; a schedule that is new begins now, one that is known goes on where it is."""
        for _ in range(TRIES):
            known = (await self.read()).get(spec.name) or Entry(spec, Plan(now))
            if (known.page is not None and known.spec == spec) or await self.swap(known, known.plan, spec):
                return
        raise _busy(spec.name)

    async def change(self, name: str, how: Callable[[Entry], Plan]) -> None:
        """Change a plan, whoever else does. Raises UsageError, and what `how` raises."""
        for _ in range(TRIES):
            known = await self.one(name)
            plan = how(known)
            if plan == known.plan or await self.swap(known, plan):
                return
        raise _busy(name)

    async def swap(self, known: Entry, plan: Plan, spec: Spec | None = None) -> bool:
        """Replace an entry as it was read. False: somebody else was first."""
        page = msgspec.json.encode(_Page(spec or known.spec, plan))
        return await self._journal.swap_register(SCOPE, known.spec.name, known.page, page)

    async def remove(self, name: str) -> None:
        """Raises UsageError."""
        for _ in range(TRIES):
            known = await self.one(name)
            if await self._journal.swap_register(SCOPE, name, known.page, None):
                return
        raise _busy(name)


def _entry(data: bytes) -> Entry:
    page = msgspec.json.decode(data, type=_Page)
    return Entry(page.spec, page.plan, data)


def _busy(name: str) -> JournalError:
    return JournalError(f"schedule {name!r} is changed by others all the time", do="try again")
