"""Decide whether to send a call to a service that refuses some: the client-side throttle of Google SRE.

    p(reject) = max(0, (requests − K · accepts) / (requests + 1))        over the last minute

While the service accepts everything nothing is rejected. A service that accepts A calls a second is sent about K·A of
those asked for: with K = 2 twice what it bears, so that it is full and its recovery is noticed. Unlike a breaker the
throttle does not turn a partial outage into a total one, and it does not flap.

A call counts when it is over. Counted when it is begun, as the book has it, the first ten calls of a process that begin
together would look like ten that were not accepted, and most of them would be rejected.

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

    __slots__ = ("_bucket_s", "_head", "accepted_in", "accepts", "buckets", "k", "most", "requested_in", "requests", "slot",
                 "slot_ends", "window_s")

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
        self.slot = 0
        self.slot_ends = float("-inf")  # until then the counts may be read, and counted up, from outside
        self.requested_in = [0] * buckets
        self.accepted_in = [0] * buckets
        self.requests = 0
        self.accepts = 0

    def chance(self, now: float) -> float:
        """The chance in [0, most] that a call made now is rejected."""
        self._turn(now)
        return min(self.most, max(0.0, (self.requests - self.k * self.accepts) / (self.requests + 1)))

    def admit(self, now: float, rng: Random) -> None:
        """Let a call through, or raise ThrottledError. A rejected call counts as requested at once."""
        chance = self.chance(now)
        if chance > 0 and rng.random() < chance:
            self._count()
            raise ThrottledError(
                f"not sent: the service accepted {self.accepts} of the last {self.requests - 1} calls "
                f"asked for in {self.window_s:g} s", do="try again later, or take the fallback", chance=chance)

    def accepted(self) -> None:
        """The service took the call, whatever it answered."""
        self._count()
        self.accepts += 1
        self.accepted_in[self.slot] += 1

    def refused(self) -> None:
        """The service did not take the call. (One that was cancelled, or never sent, is not counted at all.)"""
        self._count()

    def _count(self) -> None:
        self.requests += 1
        self.requested_in[self.slot] += 1

    def _turn(self, now: float) -> None:
        """Forget the buckets that have left the window."""
        head = int(now / self._bucket_s)
        if head <= self._head:
            return  # (a clock that starts below zero, or a call that was overtaken)
        for number in range(self._head + 1, min(head, self._head + self.buckets) + 1):
            slot = number % self.buckets
            self.requests -= self.requested_in[slot]
            self.accepts -= self.accepted_in[slot]
            self.requested_in[slot] = self.accepted_in[slot] = 0
        self._head = head
        self.slot = head % self.buckets
        self.slot_ends = (head + 1) * self._bucket_s
