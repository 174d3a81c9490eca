"""How many calls may be under way at once, found from round-trip times: TCP Vegas.

    queue = ⌈L · (1 − rtt_noload / rtt)⌉        calls that wait at the server, by Little's law
    queue ≤ log10 L          L += β             nothing waits: grow fast
    queue < α = 3·log10 L    L += log10 L
    queue > β = 6·log10 L    L −= log10 L       so does a drop (a refusal or a timeout)

The limit does not grow while it is not used (2 · in flight < L), and `rtt_noload` is measured again from time to time,
because a server that became slower for good would otherwise look queued for ever.

Source: Brakmo and Peterson, "TCP Vegas" (1995); Netflix concurrency-limits, VegasLimit.
"""

from __future__ import annotations

from math import ceil, log10

from yaoki.policies.adaptation import Summary, check_limits
from yaoki.runtime import Random


class Vegas:
    """Decide the limit from one window's summary after the other.

    Args:
        initial, minimum, maximum: calls under way at once.
        reprobe_every: windows between two fresh measures of the unloaded round trip, jittered by half.
    """

    name = "vegas"
    __slots__ = ("_to_probe", "initial", "limit", "maximum", "minimum", "probing", "reprobe_every", "rtt_noload_s")

    def __init__(self, *, initial: int = 20, minimum: int = 1, maximum: int = 1000, reprobe_every: int = 60) -> None:
        check_limits(initial, minimum, maximum)
        self.initial = initial
        self.minimum = minimum
        self.maximum = maximum
        self.reprobe_every = reprobe_every
        self.limit = float(initial)
        self.rtt_noload_s = 0.0
        self.probing = False
        self._to_probe = reprobe_every

    @property
    def allowed(self) -> int:
        """Calls that may be under way now. Lower while it probes, so that the probe sees no queue of our own making."""
        return max(self.minimum, int(self.limit / 4 if self.probing else self.limit))

    def update(self, seen: Summary, rng: Random) -> None:
        """Take in one window of finished calls."""
        if seen.rtt_s == 0.0:
            self.limit = max(float(self.minimum), self._lower())
            return
        if self.probing:
            self.rtt_noload_s = seen.rtt_min_s
            self.probing = False
            self._to_probe = ceil(self.reprobe_every * rng.uniform(0.5, 1.0))
            return
        self._to_probe -= 1
        self.probing = self._to_probe <= 0
        if self.rtt_noload_s == 0.0 or seen.rtt_min_s < self.rtt_noload_s:
            self.rtt_noload_s = seen.rtt_min_s
        self.limit = min(float(self.maximum), max(float(self.minimum), self._next(seen)))

    def _next(self, seen: Summary) -> float:
        limit = self.limit
        step = max(1.0, log10(limit))
        if seen.dropped:
            return self._lower()
        if seen.in_flight * 2 < limit:
            return limit
        queue = ceil(limit * (1.0 - self.rtt_noload_s / seen.rtt_s))
        if queue <= step:
            return limit + 6 * step
        if queue < 3 * step:
            return limit + step
        if queue > 6 * step:
            return limit - step
        return limit

    def _lower(self) -> float:
        return self.limit - max(1.0, log10(self.limit))
