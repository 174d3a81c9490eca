"""Semantic locks: who has a key, and who waits for it, first come, first served.

    claim_lock ──▶ queue of the key ──first of those that have not ended──▶ holds it ──the run ends──▶ the next one is woken

A claim is a row. Nobody ever "releases" a lock: whoever is first among the runs that have not ended holds it, so the record
that ends a run is what frees its keys, and no crash can leave a key behind. `settle_locks` only sweeps up, and wakes whoever
is first now; should it be lost with its process, the next sweep of any owner does the same.

    memory.py  sqlite.py  postgres.py     one mixin a journal
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Claim(msgspec.Struct, frozen=True):
    """A claim on a key. at: since when. holds: has it got the key, or does it wait?"""

    key: str
    run: str
    at: float
    holds: bool


class Locks(Protocol):
    """The part of a journal's port that is about locks. All of it is durable when awaited."""

    async def claim_lock(self, run_id: str, key: str) -> str:
        """Stand in the key's queue, once; returns the id of the run that holds it now."""
        ...

    async def settle_locks(self, run_id: str = "") -> bool:
        """Remove the claims of ended runs (on keys that this run claims; "": on all), and wake who is first now. Was there any?"""
        ...

    async def claims(self, run_id: str = "", *, family: bool = False) -> list[Claim]:
        """All claims that count (on keys that this run claims, or any that it has started), by key, first come first."""
        ...
