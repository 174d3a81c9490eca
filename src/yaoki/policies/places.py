"""The bulkhead's decider: a fixed number of places, and a bounded queue in front of them.

    enter ──place free, nobody waits──▶ in ──leave──▶ the place goes to the first in the queue, or is free again
      └────────────────queue──────────▶ waiting ──granted──▶ in
                                           └──gave up: cancelled, or waited too long──▶ out

The free places are the elements of a list, because deleting its last and appending one are atomic: entering and leaving
take no lock while nobody waits. Nobody is missed: who joins the queue looks once more for a free place *afterwards*, and who leaves puts
the place back *before* looking at the queue, so at least one of the two sees the other (Dekker's argument).

First come, first served within a priority; smaller numbers go first.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable


class Ticket:
    """A place in the queue. `wake` is called, from any thread, when a place has been granted."""

    __slots__ = ("granted", "priority", "wake")

    def __init__(self, priority: int, wake: Callable[[], object]) -> None:
        self.priority = priority
        self.wake = wake
        self.granted = False


class Places:
    """Thread-safe.

    Args:
        limit: calls at the same time, at least 1.
        queue: how many may wait, at least 0.
    """

    __slots__ = ("_lock", "free", "limit", "queue", "waiting")

    def __init__(self, limit: int, queue: int) -> None:
        self.limit = limit
        self.queue = queue
        self.waiting: list[Ticket] = []  # the next to be served last, so that it is popped cheaply
        self.free = [None] * limit  # never replaced: the fused functions hold it
        self._lock = threading.Lock()

    @property
    def in_use(self) -> int:
        return self.limit - len(self.free)

    def enter(self) -> bool:
        """Take a free place, if there is one and nobody is waiting for it."""
        if self.waiting:
            return False
        try:
            del self.free[-1]
        except IndexError:
            return False
        return True

    def leave(self) -> None:
        """Give a place back."""
        self.free.append(None)
        if self.waiting:
            self.hand_over()

    def join(self, priority: int, wake: Callable[[], object]) -> Ticket | None:
        """Wait for a place; None if the queue is full. Every ticket ends in `granted` and `leave`, or in `give_up`."""
        ticket = Ticket(priority, wake)
        with self._lock:
            if len(self.waiting) >= self.queue:
                return None
            # Sorted by falling number, so the next to be served stands last; among equals the newest stands first.
            self.waiting.insert(bisect_left(self.waiting, -priority, key=lambda each: -each.priority), ticket)
        self.hand_over()
        return ticket

    def hand_over(self) -> None:
        """Give free places to those who wait for them."""
        while granted := self._grant():
            for ticket in granted:  # outside the lock: it may be anybody's code
                try:
                    ticket.wake()
                except RuntimeError:  # its event loop was closed while it waited: the place is the next one's
                    ticket.granted = False
                    self.free.append(None)

    def _grant(self) -> list[Ticket]:
        granted: list[Ticket] = []
        with self._lock:
            while self.waiting:
                try:
                    del self.free[-1]
                except IndexError:
                    break
                ticket = self.waiting.pop()
                ticket.granted = True
                granted.append(ticket)
        return granted

    def give_up(self, ticket: Ticket) -> bool:
        """Stop waiting. False: too late, the place has been granted, and is the caller's to use or leave."""
        with self._lock:
            if ticket.granted:
                return False
            if ticket in self.waiting:
                self.waiting.remove(ticket)
            return True
