"""Decide which requests a server takes up, in which order, and which it refuses at once.

    request ──limit free──▶ run
        │ limit reached
        ▼
      queue ──a run ends──▶ the next: by priority; within one, oldest first, but newest first under overload
        │
        └── refused: queue full (the least important goes) · deadline passed or not to be met · waited too long

A first-in-first-out queue in front of an overloaded server is always full of requests whose callers have given up, so
the server works at full speed and helps nobody; dropping only what has expired does not cure it. Newest first does: what
is taken up has just arrived, and its caller still waits. Overload is what CoDel says it is: the queue has not been empty
for an interval; then waiting longer than `target_s` is refused as well.

Source: B. Maurer, "Fail at scale" (ACM Queue, 2015), adaptive LIFO with controlled delay; Nichols and Jacobson, "Controlling
queue delay" (ACM Queue, 2012).
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Literal, NamedTuple, TypeVar

from yaoki.errors import ConfigError

W = TypeVar("W")

Reason = Literal["full", "deadline", "waited"]


class Waiter(Generic[W]):
    """One request in the queue. `ticket` is whatever the shell wakes it with."""

    __slots__ = ("at", "deadline", "priority", "state", "ticket")

    def __init__(self, ticket: W, at: float, deadline: float, priority: int) -> None:
        self.ticket = ticket
        self.at = at
        self.deadline = deadline
        self.priority = priority
        self.state: Literal["waiting", "running", "gone"] = "waiting"


class Verdicts(NamedTuple, Generic[W]):
    """What a change of the queue means for those in it: whom to run, whom to refuse and why."""

    run: list[Waiter[W]]
    refuse: list[tuple[Waiter[W], Reason]]


class Shedder(Generic[W]):
    """Hold the queue. Invariant: `running` ≤ the limit given, and every waiter gets exactly one verdict or is taken out.

    Args:
        queue: most requests waiting, 0 or more.
        max_wait_s: none waits longer, seconds.
        target_s: in overload none waits longer than this, seconds.
        interval_s: the queue must have been non-empty this long for it to be overload, seconds.
        levels: number of priorities; 0 is the most important.
    """

    __slots__ = ("_empty_at", "_queues", "_service_s", "interval_s", "levels", "max_wait_s", "queue", "running", "target_s", "waiting")

    def __init__(self, *, queue: int = 1000, max_wait_s: float = 0.5, target_s: float = 0.05, interval_s: float = 0.1,
                 levels: int = 4) -> None:
        if queue < 0 or levels < 1:
            raise ConfigError(f"queue={queue!r} with {levels!r} priorities cannot be built", do="give queue >= 0 and levels >= 1")
        if not 0 < target_s <= max_wait_s or interval_s <= 0:
            raise ConfigError(f"target={target_s!r}, max_wait={max_wait_s!r}, interval={interval_s!r} are not in order",
                              do="give seconds with 0 < target <= max_wait and interval > 0")
        self.queue = queue
        self.max_wait_s = max_wait_s
        self.target_s = target_s
        self.interval_s = interval_s
        self.levels = levels
        self.running = 0
        self.waiting = 0
        self._queues: list[deque[Waiter[W]]] = [deque() for _ in range(levels)]
        self._empty_at = float("-inf")
        self._service_s = 0.0

    def overloaded(self, now: float) -> bool:
        """Has the queue not been empty for `interval_s`?"""
        return self.waiting > 0 and now - self._empty_at > self.interval_s

    def arrive(self, ticket: W, now: float, *, limit: int, deadline: float = float("inf"), priority: int = 1) -> tuple[Waiter[W], Verdicts[W]]:
        """A request arrived. Its own verdict is in what is returned, unless it has to wait."""
        waiter = Waiter(ticket, now, deadline, min(self.levels - 1, max(0, priority)))
        verdicts: Verdicts[W] = Verdicts([], [])
        if deadline - now < self._service_s:
            # Half of all requests take longer than that: with less time left the work would be for nobody.
            return waiter, self._refuse(waiter, "deadline", verdicts)
        if self.running < limit and not self.waiting:
            self.running += 1
            waiter.state = "running"
            self._empty_at = now
            verdicts.run.append(waiter)
            return waiter, verdicts
        if not self.waiting:
            self._empty_at = now
        if self.waiting >= self.queue:
            least = self._least()
            if least is None or least.priority <= waiter.priority:
                return waiter, self._refuse(waiter, "full", verdicts)
            self.leave(least)
            self._refuse(least, "full", verdicts)
        self._queues[waiter.priority].append(waiter)
        self.waiting += 1
        return waiter, self._fill(now, limit, verdicts)

    def ended(self, now: float, *, limit: int, service_s: float | None = None) -> Verdicts[W]:
        """A running request ended, after `service_s` seconds if that is worth learning from."""
        self.running -= 1
        if service_s is not None:
            # A median by small steps: up a little when longer, down a little when shorter.
            step = 0.05 * max(service_s, self._service_s)
            self._service_s = max(0.0, self._service_s + (step if service_s > self._service_s else -step))
        return self._fill(now, limit, Verdicts([], []))

    def leave(self, waiter: Waiter[W]) -> bool:
        """The waiter is gone (cancelled, disconnected). False when it runs already: then `ended` is what is due."""
        if waiter.state != "waiting":
            return False
        waiter.state = "gone"
        self._queues[waiter.priority].remove(waiter)
        self.waiting -= 1
        return True

    def tick(self, now: float, *, limit: int) -> Verdicts[W]:
        """Time passed: refuse those that waited too long. Due at `next_tick`."""
        return self._fill(now, limit, Verdicts([], []))

    def next_tick(self) -> float | None:
        """When the first of a queue is due to be refused, or None while none waits.

        One further back whose deadline passes is refused at its turn: by then its caller has gone, and no answer is missed.
        """
        dues = [min(each[0].at + self.max_wait_s, each[0].deadline) for each in self._queues if each]
        return min(dues) if dues else None

    def _fill(self, now: float, limit: int, verdicts: Verdicts[W]) -> Verdicts[W]:
        """Refuse what has waited too long, then run as many as the limit allows."""
        overloaded = self.overloaded(now)
        patience_s = self.target_s if overloaded else self.max_wait_s
        for queued in self._queues:
            # Arrival order is the order of waiting, so those who waited too long are in front.
            # (Written as `next_tick` does: with `now - at >= patience` rounding may disagree with it, and tick for ever.)
            while queued and (queued[0].at + patience_s <= now or queued[0].deadline <= now):
                late = queued.popleft()
                self.waiting -= 1
                self._refuse(late, "deadline" if late.deadline <= now else "waited", verdicts)
        while self.waiting and self.running < limit:
            queued = next(each for each in self._queues if each)
            waiter = queued.pop() if overloaded else queued.popleft()
            self.waiting -= 1
            if waiter.deadline - now < self._service_s:
                self._refuse(waiter, "deadline", verdicts)
                continue
            waiter.state = "running"
            self.running += 1
            verdicts.run.append(waiter)
        if not self.waiting:
            self._empty_at = now
        return verdicts

    def _least(self) -> Waiter[W] | None:
        """The one to give up first: of the least important, the oldest, whose caller is the likeliest to have gone."""
        for queued in reversed(self._queues):
            if queued:
                return queued[0]
        return None

    @staticmethod
    def _refuse(waiter: Waiter[W], reason: Reason, verdicts: Verdicts[W]) -> Verdicts[W]:
        waiter.state = "gone"
        verdicts.refuse.append((waiter, reason))
        return verdicts
