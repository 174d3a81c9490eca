"""Decide when a call may go under a rate: the generic cell rate algorithm (GCRA), one float for each limit.

    T = 1 / rate                       seconds between calls at the rate
    TAT                                theoretical arrival time: when the calls let through so far are paid off
    may_go_at = max(TAT, now) + cost·T - burst·T

A call whose `may_go_at` has come goes; another waits until then (its place is reserved at once, so places are given in
order of arrival and nobody is woken to compete) or is refused. At most `burst + rate·t` calls go in any stretch of t
seconds; in a window of one second that is up to twice the rate when burst equals it. Say so to whoever sets the limit.

Source: ITU-T I.371 (the virtual scheduling form); Brandur Leach, "Rate limiting, cells, and GCRA" (2015).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, TypeVar

from yaoki.errors import ConfigError, RateLimitedError

K = TypeVar("K")

ROUNDING_S = 1e-6  # sums of a thousand intervals on a clock that counts from boot are off by less


class Place(NamedTuple):
    """A reserved place in the schedule. `at`: when the call may go, on the caller's monotonic clock."""

    at: float
    before: float
    """TAT as it was found: what giving the place back restores."""
    after: float
    """TAT once this place is counted."""


class Rate:
    """The constants of one limit, shared by all of its keys.

    Args:
        rate_per_s: calls per second in the long run, above 0.
        burst: calls that may go at once after a rest, 1 or more.
        max_wait_s: how long a call may wait for its place, 0 or more. With 0 it is refused instead.
    """

    __slots__ = ("burst", "burst_s", "interval_s", "max_wait_s", "rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, max_wait_s: float = 0.0) -> None:
        if not 0 < rate_per_s < float("inf"):
            raise ConfigError(f"rate={rate_per_s!r} calls per second is not above 0", do="give a positive number")
        if not burst >= 1:
            raise ConfigError(f"burst={burst!r} is below 1, so no call could ever go", do="give 1 or more")
        if not max_wait_s >= 0:
            raise ConfigError(f"max_wait={max_wait_s!r} seconds is negative", do="give 0 to refuse, or a time to wait")
        self.rate_per_s = rate_per_s
        self.burst = burst
        self.interval_s = 1.0 / rate_per_s
        self.burst_s = burst / rate_per_s
        self.max_wait_s = max_wait_s

    @property
    def memory_s(self) -> float:
        """Seconds after its last call at which a key is as good as new, and may be forgotten."""
        return self.burst_s + self.max_wait_s

    def place(self, tat: float, now: float, cost: float, max_wait_s: float) -> Place:
        """The next place after `tat`, or RateLimitedError when that is too far off."""
        if cost > self.burst:
            raise ConfigError(f"a call of cost {cost:g} can never go under a burst of {self.burst:g}",
                              do="raise the burst, or split the call")
        after = max(now, tat) + cost * self.interval_s
        at = after - self.burst_s
        wait_s = at - now
        if wait_s <= ROUNDING_S:
            return Place(now, tat, after)
        if wait_s > max_wait_s + ROUNDING_S:
            raise refused(self, wait_s)
        return Place(at, tat, after)


class Gcra:
    """One limit: reserve a place, and give it back when the call is not made after all.

    Invariant: the calls that go, at their `at`, are a schedule that GCRA itself would have allowed, whatever is given
    back and when. A place given back is the next one taken if its time has not come; if it was the last, it is as though
    it had never been reserved.
    """

    __slots__ = ("_returned", "rate", "tat")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.tat = float("-inf")
        self._returned: list[Place] = []  # a heap by `at`; at most max_wait_s · rate_per_s of them

    def reserve(self, now: float, *, cost: float = 1.0, max_wait_s: float | None = None) -> Place:
        """A place for one call, to go at `place.at`. Raises RateLimitedError (with `retry_after`) when that is too far."""
        if max_wait_s is None:
            max_wait_s = self.rate.max_wait_s
        if self._returned and cost == 1.0:
            hole = self._take_returned(now)
            if hole is not None:
                if hole.at - now <= max_wait_s:
                    return hole
                heappush(self._returned, hole)
        place = self.rate.place(self.tat, now, cost, max_wait_s)
        self.tat = place.after
        return place

    def give_back(self, place: Place, now: float) -> None:
        """The call at `place` was not made (cancelled while it waited)."""
        if place.after == self.tat:
            self.tat = place.before
            # Places given back earlier may be the last ones now.
            while self._returned:
                last = max(self._returned, key=lambda each: each.after)
                if last.after != self.tat:
                    break
                self._returned.remove(last)
                heapify(self._returned)
                self.tat = last.before
        elif place.at > now and place.after - place.before <= self.rate.interval_s * (1 + 1e-9):
            heappush(self._returned, place)

    def _take_returned(self, now: float) -> Place | None:
        """The earliest place given back whose time has not passed."""
        while self._returned:
            hole = heappop(self._returned)
            if hole.at >= now:
                return hole
        return None

    def free(self, now: float) -> float:
        """How many calls could go at this instant, 0 or more."""
        return max(0.0, self.rate.burst - max(0.0, self.tat - now) / self.rate.interval_s)


class KeyedGcra(Generic[K]):
    """One limit for each key (a tenant, an address), one float a key; keys at rest are forgotten.

    A key untouched for `rate.memory_s` has its whole burst again, exactly like one never seen, so forgetting it changes
    no decision. Keys live in two generations: what was touched since the last turn, and what was touched before it; a
    turn comes after `memory_s`, and the older generation is given up a few keys a call, never all in one pause.

    Args:
        rate: the limit of each key.
        max_keys: more keys than this at once end the older generation early: its keys get a fresh burst. That is the
            bound on memory, and the price of it is that a flood of made-up keys loosens the limit, not the process.
    """

    __slots__ = ("_new", "_old", "_spent", "_turned_at", "max_keys", "rate")

    def __init__(self, rate: Rate, *, max_keys: int = 1_000_000) -> None:
        if max_keys < 1:
            raise ConfigError(f"max_keys={max_keys!r} is below 1", do="give how many keys may be remembered at once")
        self.rate = rate
        self.max_keys = max_keys
        self._new: dict[K, float] = {}
        self._old: dict[K, float] = {}
        self._spent: list[dict[K, float]] = []  # generations that are being given up; none of them is empty
        self._turned_at = float("-inf")

    def __len__(self) -> int:
        """Keys held, those that wait to be given up included."""
        return len(self._new) + len(self._old) + sum(map(len, self._spent))

    def reserve(self, key: K, now: float, *, cost: float = 1.0, max_wait_s: float | None = None) -> Place:
        """As `Gcra.reserve`, for one key; `max_wait_s` can only shorten the rate's own."""
        if now - self._turned_at >= self.rate.memory_s or len(self._new) > self.max_keys // 3:
            self._turn(now)
        if self._spent:
            self._give_up_two()
        tat = self._new.get(key)
        if tat is None:
            tat = self._old.pop(key, float("-inf"))
        most_s = self.rate.max_wait_s
        wait_s = most_s if max_wait_s is None or max_wait_s > most_s else max_wait_s
        try:
            place = self.rate.place(tat, now, cost, wait_s)
        except RateLimitedError:
            self._new[key] = tat  # it is in use: moving it on keeps it from being forgotten too early
            raise
        self._new[key] = place.after
        return place

    def give_back(self, key: K, place: Place, now: float) -> None:
        """As `Gcra.give_back`; a place with others behind it stays spent, because a key is one float and keeps no list."""
        for generation in (self._new, self._old):
            if generation.get(key) == place.after:
                if place.before > now - self.rate.memory_s:
                    generation[key] = place.before
                else:
                    del generation[key]
                return

    def _turn(self, now: float) -> None:
        if self._old:
            self._spent.append(self._old)
        self._old, self._new = self._new, {}
        self._turned_at = now

    def _give_up_two(self) -> None:
        """Two for each call that may bring one: those to be given up are never more than a generation."""
        for _ in range(2):
            if self._spent:
                self._spent[-1].popitem()
                if not self._spent[-1]:
                    self._spent.pop()


def refused(rate: Rate, wait_s: float) -> RateLimitedError:
    """The error of a call that would have to wait `wait_s` seconds, longer than it may."""
    return RateLimitedError(
        f"the rate limit of {rate.rate_per_s:g} calls/s (burst {rate.burst:g}) is spent; the next place is in {wait_s:.3g} s",
        do=f"try again in {wait_s:.3g} s, or let the call wait with max_wait=", retry_after=wait_s)
