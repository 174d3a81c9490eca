"""Decide whether to send a call to a service that refuses some: the client-side throttle of Google SRE.

    p(reject) = max(0, (requests − K · accepts) / (requests + 1))        over the last minute

While the service accepts everything nothing is rejected. A service that accepts A calls a second is sent about K·A of
those asked for: with K = 2 twice what it bears, so that it is full and its recovery is noticed. Unlike a breaker the
throttle does not turn a partial outage into a total one, and it does not flap.

A service that fails a share of its calls *whatever their number* is another matter: above 1 − 1/K (half, with K = 2) what
is sent dwindles to `1 − most`, as with a breaker. And recovery takes its time: what is sent grows e-fold in
`window_s / K` seconds.

Source: Beyer et al., Site Reliability Engineering, ch. 21, "Client-side throttling"; M. Brooker, "Will circuit breakers
solve my problems?" (2022).
"""

from __future__ import annotations

from yaoki.errors import ConfigError, ThrottledError
from yaoki.runtime import Random


class Throttle:
    """Count requests and accepts in a ring of buckets, and reject in proportion.

    Args:
        k: how many times what the service accepts is still sent, 1 or more. Lower protects it more and recovers slower.
        window_s: seconds looked back.
        most: the largest share rejected, below 1, so that a service that is back is noticed however dead it was.
        buckets: slices of the window; the oldest is forgotten as a whole.
    """

    __slots__ = ("_accepted", "_accepts", "_bucket_s", "_head", "_requested", "_requests", "buckets", "k", "most", "window_s")

    def __init__(self, *, k: float = 2.0, window_s: float = 60.0, most: float = 0.9, buckets: int = 40) -> None:
        if k < 1:
            raise ConfigError(f"k={k!r} is below 1: calls the service would accept would be rejected", do="give 2, or 1.1")
        if window_s <= 0 or buckets < 2:
            raise ConfigError(f"window={window_s!r} s in {buckets!r} buckets cannot slide", do="give a time above 0 and 2 or more")
        if not 0 < most < 1:
            raise ConfigError(f"most={most!r} is not a share in (0, 1)", do="give 0.9: at 1 a recovery is never noticed")
        self.k = k
        self.window_s = window_s
        self.most = most
        self.buckets = buckets
        self._bucket_s = window_s / buckets
        self._head = 0  # number of the bucket in use, counted from the clock's zero
        self._requested = [0] * buckets
        self._accepted = [0] * buckets
        self._requests = 0
        self._accepts = 0

    def chance(self, now: float) -> float:
        """The chance in [0, most] that a call made now is rejected."""
        self._turn(now)
        return min(self.most, max(0.0, (self._requests - self.k * self._accepts) / (self._requests + 1)))

    def admit(self, now: float, rng: Random) -> int:
        """A permit (the number of its bucket), or ThrottledError. What is rejected counts as requested."""
        self._turn(now)
        excess = self._requests - self.k * self._accepts
        self._requests += 1
        self._requested[self._head % self.buckets] += 1
        if excess > 0:
            chance = min(self.most, excess / self._requests)
            if rng.random() < chance:
                raise ThrottledError(
                    f"not sent: the service accepted {self._accepts} of the last {self._requests - 1} calls "
                    f"asked for in {self.window_s:g} s", do="try again later, or take the fallback", chance=chance)
        return self._head

    def accepted(self, permit: int, now: float) -> None:
        """The service took the call, whatever it answered."""
        del permit  # counted in the present, as the request of a slow answer may have left the window already
        self._turn(now)
        self._accepts += 1
        self._accepted[self._head % self.buckets] += 1

    def dropped(self, permit: int, now: float) -> None:
        """The call was cancelled or never sent: it was not asked for."""
        self._turn(now)
        if self._head - permit < self.buckets and self._requested[permit % self.buckets]:
            self._requested[permit % self.buckets] -= 1
            self._requests -= 1

    def _turn(self, now: float) -> None:
        """Forget the buckets that have left the window."""
        head = int(now / self._bucket_s)
        if head <= self._head:
            return
        for number in range(self._head + 1, min(head, self._head + self.buckets) + 1):
            slot = number % self.buckets
            self._requests -= self._requested[slot]
            self._accepts -= self._accepted[slot]
            self._requested[slot] = self._accepted[slot] = 0
        self._head = head
