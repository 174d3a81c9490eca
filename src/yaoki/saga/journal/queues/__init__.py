"""Queues with limits, in a journal: their definitions, who has a place in them, and what may be taken from them now.

What may be taken is decided by `saga/queue.py`, the same for all journals; here is where the figures are kept.

    memory.py  sqlite.py  postgres.py     one mixin a journal
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from yaoki.saga.queue import Queue


class QueueState(msgspec.Struct, frozen=True):
    """A queue as it is now, for people.

    Attributes:
        queue: its name and limits; by_hand: were they set by a person since the code last changed them?
        placed: runs under way; waiting: runs that could begin, up to a thousand.
        paused: is it?
    """

    queue: Queue
    placed: int
    waiting: int
    paused: bool = False
    by_hand: bool = False


class Queues(Protocol):
    """The part of a journal's port that is about queues."""

    @property
    def look_at(self) -> float:
        """By the journal's clock: when a queue that is held back by its rate may give more; inf: none is."""
        ...

    async def declare(self, queues: Sequence[Queue]) -> None:
        """Say what the code says about these queues. Limits that a person has set stay until the code says something new."""

    async def set_queue(self, queue: Queue, *, who: str = "", why: str = "") -> None:
        """Set a queue's limits by hand, until the code says something new. It is logged."""

    async def limited(self) -> set[str]:
        """The names of queues with limits. An owner that asks knows of all pauses and limits from now on."""
        ...

    async def queue_states(self) -> list[QueueState]:
        """Every queue that was declared, is paused, or has runs waiting; by name."""
        ...
