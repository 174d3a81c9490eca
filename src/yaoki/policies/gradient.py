"""How many calls may be under way at once, found from how round-trip times change: Gradient2, with a guard on drift.

    long     = slow average of the round trip, over about 600 windows       what is normal here
    short    = round trip of this window
    gradient = clamp(1.5 · long / short, 0.5, 1)                            below 1: slower than normal by half
    L        = 0.8 · L + 0.2 · (gradient · L + 4)                           4: room for a small queue

As published the limit drifts. Under steady pressure the queue of four grows the limit, the round trip grows with it, the
slow average follows, and every step looks normal: in `tests/unit/policies/test_adaptive.py` it climbs from 10 useful
calls to the maximum. So `long` may not exceed `drift` times the round trip of the unloaded service, which is measured
once a minute by letting a quarter of the limit through for one window. A service that is not loaded never notices.

Source: Netflix concurrency-limits, Gradient2Limit; the probe is Envoy's minRTT measure, made gentler.
"""

from __future__ import annotations

from math import ceil

from yaoki.errors import ConfigError
from yaoki.policies.adaptation import Summary, check_limits
from yaoki.runtime import Random


class Gradient2:
    """Decide the limit from one window's summary after the other.

    Args:
        initial, minimum, maximum: calls under way at once.
        tolerance: how much slower than normal still counts as normal, 1 or more.
        smoothing: share of each new limit in the next one, in (0, 1].
        queue: calls that may wait at the server without being seen as too many.
        long_windows: windows over which the slow average looks back.
        drift: how many times slower than the unloaded service normal may become; `inf` for no guard.
        reprobe_every: windows between two measures of the unloaded round trip, jittered by half.
    """

    name = "gradient2"
    __slots__ = ("_factor", "_to_probe", "_warm", "drift", "floor_s", "initial", "limit", "long_s", "maximum", "minimum",
                 "probing", "queue", "reprobe_every", "smoothing", "tolerance")

    def __init__(self, *, initial: int = 20, minimum: int = 1, maximum: int = 200, tolerance: float = 1.5,
                 smoothing: float = 0.2, queue: int = 4, long_windows: int = 600, drift: float = 2.0,
                 reprobe_every: int = 60) -> None:
        check_limits(initial, minimum, maximum)
        if tolerance < 1 or drift < 1:
            raise ConfigError(f"tolerance={tolerance!r} and drift={drift!r} are multiples of a time",
                              do="give 1 or more for both")
        if not 0 < smoothing <= 1:
            raise ConfigError(f"smoothing={smoothing!r} is not a share in (0, 1]", do="give 0.2 for a calm limit")
        self.initial = initial
        self.minimum = minimum
        self.maximum = maximum
        self.tolerance = tolerance
        self.smoothing = smoothing
        self.queue = queue
        self.drift = drift
        self.reprobe_every = reprobe_every
        self.limit = float(initial)
        self.long_s = 0.0
        self.floor_s = 0.0
        self.probing = False
        self._factor = 2.0 / (long_windows + 1)
        self._warm = 0
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
            self.floor_s = seen.rtt_min_s
            self.probing = False
            self._to_probe = ceil(self.reprobe_every * rng.uniform(0.5, 1.0))
            return
        self._to_probe -= 1
        self.probing = self._to_probe <= 0 and self.drift != float("inf")
        self.floor_s = min(self.floor_s or seen.rtt_min_s, seen.rtt_min_s)
        self._follow(seen.rtt_s)
        if seen.dropped:
            # A refusal or a timeout is the server's own word that this is too much.
            self.limit = max(float(self.minimum), self._lower())
        elif seen.in_flight * 2 >= self.limit:
            gradient = min(1.0, max(0.5, self.tolerance * self.long_s / seen.rtt_s))
            aim = gradient * self.limit + self.queue
            smooth = self.limit * (1 - self.smoothing) + aim * self.smoothing
            self.limit = min(float(self.maximum), max(float(self.minimum), smooth))

    def _follow(self, short_s: float) -> None:
        """Move the slow average; it begins as a plain mean of its first ten windows."""
        self._warm += 1
        factor = 1.0 / self._warm if self._warm <= 10 else self._factor
        self.long_s += (short_s - self.long_s) * factor
        if self.long_s > 2 * short_s:
            self.long_s *= 0.95  # after a time of overload, come back to normal faster than the average would
        self.long_s = min(self.long_s, self.drift * self.floor_s)

    def _lower(self) -> float:
        return self.limit * 0.9
