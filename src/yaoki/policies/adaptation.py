"""What every way of finding a concurrency limit shares: windows of round-trip times, and the count of calls under way.

A limit that moved after each single call would follow noise. Calls are gathered into windows (a second or more, ten calls
or more) and each window's summary moves the limit once.

Round trips are measured without the event loop's own lag. A process that is busy itself resumes its calls late, so every
round trip looks long, and a limit that believed it would shrink because of us, not because of the service.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from yaoki.errors import BulkheadFullError, ConfigError
from yaoki.runtime import Random


class Summary(NamedTuple):
    """One window of finished calls."""

    rtt_s: float
    """Mean round trip of those that were answered; 0 when none was."""
    rtt_min_s: float
    in_flight: int
    """The most calls under way at once in the window."""
    dropped: bool
    """Was any refused by the service, or timed out?"""


class Algorithm(Protocol):
    """Decides the limit. Pure: a summary and a source of randomness in, `allowed` out."""

    name: str
    limit: float
    probing: bool

    @property
    def allowed(self) -> int: ...

    def update(self, seen: Summary, rng: Random) -> None: ...


Permit = float
"""One call under way: when it was let through, on the caller's monotonic clock."""


class AdaptiveDecider:
    """Count the calls under way, refuse beyond the limit, and feed the algorithm.

    Invariant: `in_flight` is the number of permits that have ended in none of succeeded, failed, dropped.

    Args:
        algorithm: moves the limit.
        window_s: a window lasts at least this long, seconds.
        minimum: and has at least this many answered calls.
        rtt_floor_s: round trips below this come from a cache or a refusal, and say nothing about the service.
    """

    __slots__ = ("_answered", "_dropped", "_ends_at", "_max_in_flight", "_probe_from", "_rtt_min_s", "_rtt_sum_s",
                 "algorithm", "allowed", "in_flight", "minimum", "moved", "rtt_floor_s",
                 "window_s")

    def __init__(self, algorithm: Algorithm, *, window_s: float = 1.0, minimum: int = 10, rtt_floor_s: float = 1e-4) -> None:
        if window_s <= 0 or minimum < 1:
            raise ConfigError(f"window={window_s!r} s of {minimum!r} calls can never be full",
                              do="give a time above 0 and at least one call")
        self.algorithm = algorithm
        self.window_s = window_s
        self.minimum = minimum
        self.rtt_floor_s = rtt_floor_s
        self.in_flight = 0
        self.allowed = algorithm.allowed
        self.moved = (algorithm.limit, algorithm.limit, 0.0)
        """The limit before and after the last window, and that window's mean round trip."""
        self._ends_at = float("-inf")  # the first window begins with the first call that ends
        self._probe_from = float("-inf")
        self._answered = 0
        self._dropped = False
        self._max_in_flight = 0
        self._rtt_sum_s = 0.0
        self._rtt_min_s = float("inf")

    def admit(self, now: float) -> Permit:
        """A permit, or BulkheadFullError when as many calls as the limit allows are under way."""
        if self.in_flight >= self.allowed:
            raise BulkheadFullError(
                f"{self.in_flight} calls are under way, as many as the service bears now ({self.algorithm.name} limit)",
                do="try elsewhere or later; the limit grows as soon as answers come faster", limit=self.allowed)
        self.in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self.in_flight)
        return now

    def succeeded(self, permit: Permit, now: float, rng: Random, *, lag_s: float = 0.0) -> None:
        """The service answered, be it with an error. `lag_s` is how much of the time was our own event loop's."""
        self.in_flight -= 1
        rtt_s = now - permit - lag_s
        if rtt_s >= self.rtt_floor_s and permit >= self._probe_from:
            self._answered += 1
            self._rtt_sum_s += rtt_s
            self._rtt_min_s = min(self._rtt_min_s, rtt_s)
        if now >= self._ends_at:
            self._turn(now, rng)

    def failed(self, permit: Permit, now: float, rng: Random) -> None:
        """The service refused for overload, or did not answer in time."""
        self.in_flight -= 1
        if permit >= self._probe_from:
            self._dropped = True
        self._turn(now, rng)

    def dropped(self, permit: Permit) -> None:
        """The call was cancelled or never sent: it says nothing about the service."""
        del permit
        self.in_flight -= 1

    def _turn(self, now: float, rng: Random) -> None:
        """End the window if it is full."""
        if self._ends_at == float("-inf"):
            self._ends_at = now + self.window_s
        if now < self._ends_at or not (self._dropped or self._answered >= self.minimum):
            return
        mean_s = self._rtt_sum_s / self._answered if self._answered else 0.0
        was_probing = self.algorithm.probing
        before = self.algorithm.limit
        self.algorithm.update(Summary(mean_s, self._rtt_min_s, self._max_in_flight, self._dropped), rng)
        if self.algorithm.probing and not was_probing:
            # Calls sent before the limit was lowered still carry our own queue: leave them out of the measure.
            self._probe_from = now + mean_s
        self.allowed = self.algorithm.allowed
        self.moved = (before, self.algorithm.limit, mean_s)
        self._clear()
        self._ends_at = now + self.window_s

    def _clear(self) -> None:
        self._answered = 0
        self._dropped = False
        self._max_in_flight = self.in_flight
        self._rtt_sum_s = 0.0
        self._rtt_min_s = float("inf")


class LoopLag:
    """How late the event loop runs, from a heartbeat: `beat` when the timer fires, `lag_s` when a call ends.

    What delays the end of a call is the loop's delay at that moment, not the sum of all delays while the call was under
    way: a pause during which no answer came costs the call nothing.
    """

    __slots__ = ("_beat_at", "_due_at", "_late_s", "every_s")

    def __init__(self, every_s: float = 0.02) -> None:
        self.every_s = every_s
        self._due_at = float("inf")
        self._beat_at = float("-inf")
        self._late_s = 0.0

    def arm(self, now: float) -> float:
        """When the next beat is due."""
        self._due_at = now + self.every_s
        return self._due_at

    def beat(self, now: float) -> None:
        """The timer fired."""
        self._late_s = max(0.0, now - self._due_at)
        self._beat_at = now
        self._due_at = float("inf")

    def lag_s(self, now: float) -> float:
        """Seconds by which the loop is late at this moment."""
        overdue_s = now - self._due_at
        if overdue_s > 0:
            return overdue_s
        return self._late_s if now - self._beat_at <= self.every_s else 0.0


def check_limits(initial: int, minimum: int, maximum: int) -> None:
    """Raise ConfigError unless 1 ≤ minimum ≤ initial ≤ maximum."""
    if not 1 <= minimum <= initial <= maximum:
        raise ConfigError(f"limits are not in order: minimum={minimum!r}, initial={initial!r}, maximum={maximum!r}",
                          do="give 1 <= minimum <= initial <= maximum")
