"""Limit how many calls to a service are under way at once, so that one slow service cannot take every thread and connection.

    bulkhead(50)                            # the 51st call is refused at once
    bulkhead(50, queue=100, max_wait=0.5)   # a hundred more may wait, for half a second at most

Who waits has at most `max_wait` seconds, or what remains of the deadline if that is less. A cancelled wait leaves nothing
behind. The rules of the queue are in `places.py`.

A thread that waits really blocks, also under a virtual clock: time does not pass for a blocked thread.

Source: M. Nygard, Release It!, 2nd ed., ch. 5 ("Bulkheads"); resilience4j's max-wait; Hystrix's semaphore isolation.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from yaoki import events
from yaoki.errors import BulkheadFullError, ConfigError, DeadlineError
from yaoki.policies.places import Places, Ticket
from yaoki.policies.policy import Finding, Policy, Site, seconds
from yaoki.policies.scope import USEFUL_S
from yaoki.policies.timeout import Say

Priority = Callable[..., int]


class Bulkhead(Policy):
    """See `bulkhead`. `places` is its decider."""

    kind = "bulkhead"
    keeps_deadline = True

    def __init__(self, limit: int, *, queue: int = 0, max_wait: float | timedelta = 1.0, priority: Priority | None = None) -> None:
        for name, value, least in (("limit", limit, 1), ("queue", queue, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"bulkhead() got {name}={value!r}; it takes a whole number of at least {least}.", do=f"Correct {name}.")
        self.places = Places(limit, queue)
        self.max_wait_s = seconds("max_wait", max_wait)
        self.priority = priority

    @property
    def in_use(self) -> int:
        """Calls under way."""
        return self.places.in_use

    @property
    def queued(self) -> int:
        """Calls waiting."""
        return len(self.places.waiting)

    def shell(self, site: Site) -> str:
        priority = "$queue.priority(ARGS)" if self.priority and site.shape != "block" else "0"
        # `Places.enter` and `leave`, spelled out: they are two atomic operations, and half the cost would be the calls.
        return f"""
            $full = True
            if not $waiting:
                try:
                    del $free[-1]
                    $full = False
                except IndexError:
                    pass
            if $full:
                AWAIT $queue.wait({priority}, scope[0] - clock())
                now = clock()
            try:
                CALL
            finally:
                $free.append(None)
                if $waiting:
                    $queue.hand_over()
        """

    def bind(self, site: Site) -> dict[str, object]:
        queue = _AsyncQueue(self, site) if site.is_async else _Queue(self, site)
        return {"free": self.places.free, "waiting": self.places.waiting, "queue": queue}

    def describe(self) -> str:
        queue = f", queue={self.places.queue}, max_wait={self.max_wait_s:g}" if self.places.queue else ""
        return f"bulkhead({self.places.limit}{queue})"

    def longest_s(self, inner_s: float) -> float:
        return inner_s + (self.max_wait_s if self.places.queue else 0.0)

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:  # noqa: ARG002
        if any(policy.kind == "timeout" for policy in outer):
            yield Finding("bulkhead", "inside the attempt timeout, waiting for a place counts as the service's time, and as its failure.",
                          "Put timeout() inside the bulkhead.")
        if any(policy.kind in ("retry", "hedge") for policy in inner):
            yield Finding("bulkhead", "outside the retry it holds a place while a call only waits for its next attempt.",
                          "Put the bulkhead inside the retry.")


class _Queue:
    """How threads wait for a full bulkhead."""

    __slots__ = ("_max_wait_s", "_places", "_what", "hand_over", "priority")

    def __init__(self, bulkhead: Bulkhead, site: Site) -> None:
        self._places = bulkhead.places
        self._max_wait_s = bulkhead.max_wait_s
        self._what = site.service or site.name
        self.priority = bulkhead.priority
        self.hand_over = bulkhead.places.hand_over

    def wait(self, priority: int, remaining_s: float) -> Any:
        """Until a place is ours."""
        granted = threading.Event()
        ticket = self._join(priority, granted.set)
        try:
            granted.wait(self._patience_s(remaining_s))
        except BaseException:  # Ctrl-C
            self._withdraw(ticket)
            raise
        self._settle(ticket, remaining_s)

    def _join(self, priority: int, wake: Callable[[], object]) -> Ticket:
        ticket = self._places.join(priority, wake)
        if ticket is None:
            raise self._full("its queue is full, too")
        return ticket

    def _withdraw(self, ticket: Ticket) -> None:
        """Stop waiting, whether or not a place has been granted meanwhile."""
        if not self._places.give_up(ticket):
            self._places.leave()

    def _settle(self, ticket: Ticket, remaining_s: float) -> None:
        """The wait is over: a place is ours, or nobody gave us one."""
        if not ticket.granted and self._places.give_up(ticket):
            raise self._waited(remaining_s)

    def _patience_s(self, remaining_s: float) -> float:
        """How long to wait: at the deadline itself a timer further out would cut us off, and not know that nothing was sent."""
        return max(0.0, min(self._max_wait_s, remaining_s - USEFUL_S))

    def _waited(self, remaining_s: float) -> BulkheadFullError | DeadlineError:
        if self._patience_s(remaining_s) < self._max_wait_s:
            return Say(Site(service=self._what), 0.0, by="deadline").late()
        return self._full(f"no place became free in {self._max_wait_s:g} s")

    def _full(self, why: str) -> BulkheadFullError:
        places = self._places
        if events.wanted():
            events.emit(events.CallRejected(service=self._what, policy="bulkhead"))
        why = f", and {why}" if places.queue else ""
        return BulkheadFullError(
            f"{self._what or 'The service'} was not called: all {places.limit} places of its bulkhead are taken{why}.",
            do="Nothing was sent. Try again later; if it happens when the service is healthy, raise the limit.",
            service=self._what, limit=places.limit, queued=len(places.waiting))


class _AsyncQueue(_Queue):
    """How tasks wait."""

    __slots__ = ()

    async def wait(self, priority: int, remaining_s: float) -> None:
        """Until a place is ours. Cancellation leaves the queue, or gives back a place granted meanwhile."""
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[None] = loop.create_future()
        # The place may be handed over by another thread, or by a task of another loop.
        ticket = self._join(priority, partial(loop.call_soon_threadsafe, _finish, granted))
        timer = loop.call_later(self._patience_s(remaining_s), _finish, granted)
        try:
            await granted
        except BaseException:
            self._withdraw(ticket)
            raise
        finally:
            timer.cancel()
        self._settle(ticket, remaining_s)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def bulkhead(limit: int, *, queue: int = 0, max_wait: float | timedelta = 1.0, priority: Priority | None = None) -> Bulkhead:
    """Let at most `limit` calls be under way at once.

    Args:
        limit: at least 1.
        queue: how many more may wait for a place.
        max_wait: seconds that they wait at most; never longer than the deadline.
        priority: a function of the call's arguments; smaller numbers are served first.

    Raises:
        ConfigError: a setting is out of range.
    Raises (when called):
        BulkheadFullError: not called; places and queue are full, or none became free in time.
        DeadlineError: not called; the deadline passed while waiting.
    """
    return Bulkhead(limit, queue=queue, max_wait=max_wait, priority=priority)
