"""What happened lately, as running totals: over a time, or over a number of calls. O(1) a call, fixed memory."""

from __future__ import annotations

from typing import Protocol

SLICES = 10  # of a time window: it slides in steps of a tenth (Polly, failsafe-go and tower have ten, too)

OK, SLOW, FAILED = 0, 1, 2


class Window(Protocol):
    """Counts calls, failures and slow calls; forgets the old ones."""

    failed: int
    slow: int

    @property
    def total(self) -> int:
        """Calls in the window."""

    def add(self, outcome: int, now: float) -> None:
        """Count a call that ended at `now` (monotonic seconds) as OK, SLOW or FAILED."""

    def clear(self, now: float) -> None:
        """Forget everything."""


class TimeWindow:
    """The last `length_s` seconds, in ten slices that are dropped whole.

    Slices are rotated lazily, when a call is counted: nothing runs while nothing is called. `ok` counts the successes of
    each slice, and may be added to from outside (`ok[index] += 1` while `now < slice_end`) without the owner's lock:
    CPython with its global lock never interrupts such a line, and without that lock two threads that hit the same instant
    lose one success of a statistic. Failures, which decide, always go through `add`.
    """

    __slots__ = ("_bad", "_ok_before", "_slice_s", "failed", "index", "length_s", "ok", "slice_end", "slow")

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self._slice_s = length_s / SLICES
        self.ok = [0] * SLICES
        self.clear(0.0)

    def clear(self, now: float) -> None:
        self.ok[:] = [0] * SLICES  # the same list for ever: the fused functions hold it
        self._ok_before = 0        # in the other slices, which do not change any more
        self._bad: list[tuple[int, int]] = [(0, 0)] * SLICES  # (failed, slow) of each slice
        self.slow = self.failed = 0
        self.index = 0
        self.slice_end = now + self._slice_s

    @property
    def total(self) -> int:
        return self._ok_before + self.ok[self.index] + self.slow + self.failed

    def add(self, outcome: int, now: float) -> None:
        if now >= self.slice_end:
            self._rotate(now)
        if outcome == OK:
            self.ok[self.index] += 1
            return
        failed, slow = self._bad[self.index]
        if outcome == FAILED:
            self._bad[self.index] = (failed + 1, slow)
            self.failed += 1
        else:
            self._bad[self.index] = (failed, slow + 1)
            self.slow += 1

    def _rotate(self, now: float) -> None:
        steps = int((now - self.slice_end) / self._slice_s) + 1
        if steps >= SLICES:
            self.clear(now)
            return
        self.slice_end += steps * self._slice_s
        for _ in range(steps):
            self.index = index = (self.index + 1) % SLICES
            failed, slow = self._bad[index]
            self.failed -= failed
            self.slow -= slow
            self.ok[index], self._bad[index] = 0, (0, 0)
        self._ok_before = sum(self.ok)


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
