"""Registers: small things that a journal keeps beside its runs, each under a scope and a name, the last value only.

What only the newest of matters does not belong into a history: how far a step says it is, what a schedule has fired, the key
of the tokens. Two ways to write:

    write_register   whoever writes last, unless somebody with a higher fence has written already
    swap_register    compare and set: two who decide at once cannot both have decided

    memory.py  sqlite.py  postgres.py     one mixin a journal
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Register(msgspec.Struct, frozen=True):
    """A value. at: when it was written, seconds since 1970 by the journal's clock. fence: of its writer; 0 where there is none."""

    data: bytes
    at: float
    fence: int = 0


def of_run(run_id: str) -> str:
    """The scope of a run's registers: none of the journal's own, whatever the run is called."""
    return f"run:{run_id}"


class Registers(Protocol):
    """The part of a journal's port that is about registers. All of it is durable when awaited."""

    async def registers(self, scope: str) -> dict[str, Register]:
        """All registers of a scope, by name, in order of their names."""
        ...

    async def write_register(self, scope: str, name: str, data: bytes, *, fence: int = 0) -> bool:
        """Set it, unless a higher fence has. False: it has, and nothing was changed."""
        ...

    async def swap_register(self, scope: str, name: str, old: bytes | None, new: bytes | None) -> bool:
        """Set it to `new` if it is `old`. None: there is none. False: it is something else, or, after a lost answer, `new` already."""
        ...

    async def drop_registers(self, scope: str) -> None: ...

    async def sweep_registers(self) -> None:
        """Remove those of runs that have ended, or are gone."""
