"""What happened lately, as running totals: over a time, or over a number of calls. O(1) a call, fixed memory."""

from __future__ import annotations

from typing import Protocol

SLICES = 10  # of a time window: it slides in steps of a tenth (Polly, failsafe-go and tower have ten, too)

OK, SLOW, FAILED = 0, 1, 2


class Window(Protocol):
    """Counts calls, failures and slow calls; forgets the old ones."""

    total: int
    failed: int
    slow: int

    def add(self, outcome: int, now: float) -> None:
        """Count a call that ended at `now` (monotonic seconds) as OK, SLOW or FAILED."""

    def clear(self, now: float) -> None:
        """Forget everything."""


class TimeWindow:
    """The last `length_s` seconds, in ten slices that are dropped whole.

    Slices are rotated lazily, when a call is counted: nothing runs while nothing is called.
    """

    __slots__ = ("_counts", "_index", "_slice_end", "_slice_s", "failed", "length_s", "slow", "total")

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self._slice_s = length_s / SLICES
        self.clear(0.0)

    def clear(self, now: float) -> None:
        self._counts = [[0] * SLICES, [0] * SLICES, [0] * SLICES]
        self._index = 0
        self._slice_end = now + self._slice_s
        self.total = self.failed = self.slow = 0

    def add(self, outcome: int, now: float) -> None:
        if now >= self._slice_end:
            self._rotate(now)
        self._counts[outcome][self._index] += 1
        self.total += 1
        if outcome:
            if outcome == FAILED:
                self.failed += 1
            else:
                self.slow += 1

    def _rotate(self, now: float) -> None:
        steps = int((now - self._slice_end) / self._slice_s) + 1
        if steps >= SLICES:
            self.clear(now)
            return
        self._slice_end += steps * self._slice_s
        ok, slow, failed = self._counts
        for _ in range(steps):
            self._index = index = (self._index + 1) % SLICES
            self.total -= ok[index] + slow[index] + failed[index]
            self.failed -= failed[index]
            self.slow -= slow[index]
            ok[index] = slow[index] = failed[index] = 0


class CountWindow:
    """The last `length` calls, however long ago."""

    __slots__ = ("_index", "_outcomes", "failed", "length", "slow", "total")

    def __init__(self, length: int) -> None:
        self.length = length
        self.clear(0.0)

    def clear(self, now: float) -> None:  # noqa: ARG002
        self._outcomes = bytearray(self.length)
        self._index = 0
        self.total = self.failed = self.slow = 0

    def add(self, outcome: int, now: float) -> None:  # noqa: ARG002
        if self.total == self.length:
            oldest = self._outcomes[self._index]
            self.failed -= oldest == FAILED
            self.slow -= oldest == SLOW
        else:
            self.total += 1
        self._outcomes[self._index] = outcome
        self._index = (self._index + 1) % self.length
        self.failed += outcome == FAILED
        self.slow += outcome == SLOW
