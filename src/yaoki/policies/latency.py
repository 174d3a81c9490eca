"""A quantile of recent latencies, cheap to feed and good enough to decide when a call is slow.

The last `size` latencies are kept in a ring; the quantile is read off a sorted copy every few seconds. Feeding it is one
store; P² and histograms cost more per call and answer no better for a thousand samples.
"""

from __future__ import annotations

from math import ceil

from yaoki.errors import ConfigError


class LatencyQuantile:
    """The `quantile` of the last `size` latencies, or None while fewer than `minimum` are known.

    A call that was given up may be fed with the time it had taken so far. That is right as long as it is above the
    quantile, as a hedged call's is: only the order of the values matters, not how far above it is.

    Args:
        quantile: in (0, 1); 0.95 is slower than 19 calls in 20.
        least_s: never answer less, seconds.
        refresh_s: seconds between two looks at the ring.
    """

    __slots__ = ("_count", "_ring", "_stale_at", "_value_s", "least_s", "minimum", "quantile", "refresh_s")

    def __init__(self, quantile: float, *, size: int = 1000, minimum: int = 100, least_s: float = 0.001,
                 refresh_s: float = 3.0) -> None:
        if not 0 < quantile < 1:
            raise ConfigError(f"quantile={quantile!r} is not in (0, 1)", do="give 0.95 for calls slower than 19 in 20")
        if not 1 <= minimum <= size:
            raise ConfigError(f"minimum={minimum!r} latencies of {size!r} kept can never be known", do="give 1 <= minimum <= size")
        self.quantile = quantile
        self.minimum = minimum
        self.least_s = least_s
        self.refresh_s = refresh_s
        self._ring = [0.0] * size
        self._count = 0
        self._value_s: float | None = None
        self._stale_at = float("-inf")

    def feed(self, latency_s: float) -> None:
        """One call took this long."""
        self._ring[self._count % len(self._ring)] = latency_s
        self._count += 1

    def value_s(self, now: float) -> float | None:
        """The quantile in seconds, at most `refresh_s` old."""
        if now >= self._stale_at and self._count >= self.minimum:
            known = sorted(self._ring[:self._count])
            self._value_s = max(self.least_s, known[min(len(known) - 1, ceil(self.quantile * len(known)) - 1)])
            self._stale_at = now + self.refresh_s
        return self._value_s
