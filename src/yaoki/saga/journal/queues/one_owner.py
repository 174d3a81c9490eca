"""Queues of a journal that has one owner: who has a place is what the owner holds, so it is kept in memory.

Its runs are all here, so the limits over all workers and those of one worker are the same ones, and the smaller counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

import msgspec

from yaoki import runtime
from yaoki.saga.journal.operations import Pause
from yaoki.saga.queue import Due, Queue, Usage, admit, deal, taken_up

Lane = tuple[str, str, int, str]
"""saga, queue, priority, tenant: runs that take turns with those of other tenants."""


class Kept(msgspec.Struct):
    """A queue as the journal keeps it. declared: what the code said last, as JSON."""

    queue: Queue
    tat: float = 0.0
    declared: str = ""
    by_hand: bool = False


def said(queue: Queue) -> str:
    return msgspec.json.encode(queue.limits()).decode()


class Turns:
    """What an owner knows of its queues.

    Attributes:
        queues: those that were declared, by name. placed: the queue of each run under way, by the journal's number.
        look_at: when a queue that is held back by its rate may give more.
    """

    def __init__(self) -> None:
        self.queues: dict[str, Kept] = {}
        self.placed: dict[int, str] = {}
        self.pauses: list[Pause] = []
        self.look_at = inf

    def is_paused(self, lane: Lane) -> bool:
        return any((each.kind, each.name) in {("saga", lane[0]), ("queue", lane[1])} for each in self.pauses)

    def deal(self, due: Sequence[Due], wanted: int, now: float) -> dict[int, int]:
        """How many to take from each lane."""
        self.look_at = inf
        left: dict[str, float] = {}
        for name in {each.queue for each in due} & self.queues.keys():
            kept, placed = self.queues[name], self.count(name)
            admission = admit(kept.queue, Usage(placed, placed, kept.tat), now, wanted)
            self.look_at = min(self.look_at, admission.again_at)
            left[name] = admission.count
        return deal(due, left, wanted, runtime.rng())

    def take(self, numbers: Iterable[int], queue: str, now: float) -> None:
        """These runs have their places now."""
        taken = list(numbers)
        self.placed.update(dict.fromkeys(taken, queue))
        if queue in self.queues:
            kept = self.queues[queue]
            kept.tat = taken_up(kept.queue, kept.tat, now, len(taken))

    def count(self, queue: str) -> int:
        return list(self.placed.values()).count(queue)  # a copy: the owner's thread may change it meanwhile
