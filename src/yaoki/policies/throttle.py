"""throttle: send to a service in proportion to what it accepts.

    pipeline(..., throttle(), bulkhead(50), timeout(1.0))      # where a breaker would stand

The decision is `throttling.py`. What the service did not take counts against it: refused for load, not reached, no answer
in time. What it answered, were it an error, it took. What was never sent, and what was cancelled or given up at the caller's own
deadline, counts as not asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import timedelta

from yaoki import events, runtime
from yaoki.errors import RefusedError, ThrottledError
from yaoki.policies.classify import classify
from yaoki.policies.policy import Finding, Policy, Site, seconds
from yaoki.policies.scope import gave_up
from yaoki.policies.throttling import Throttle
from yaoki.runtime import Random


class ThrottlePolicy(Policy):
    """Rejects a share of calls on this side. Thread-safe.

    Raises (from a call):
        ThrottledError: not sent. `chance` is the share rejected at that moment.
    """

    kind = "throttle"
    keeps_deadline = True

    def __init__(self, *, k: float = 2.0, window: float | timedelta = 60.0, most: float = 0.9) -> None:
        self.decider = Throttle(k=k, window_s=seconds("window", window), most=most)
        self._lock = threading.Lock()

    def shell(self, site: Site) -> str:  # noqa: ARG002
        # A service that takes what it is sent costs a comparison before the call, and three counts after it.
        return """
            if now >= $counts.slot_ends or $counts.requests > $k * $counts.accepts:
                $admit(now, rt.rng)
            try:
                CALL
            except Exception as $error:
                $failed($error)
                raise
            else:
                with $lock:
                    $counts.requests += 1
                    $counts.requested_in[$counts.slot] += 1
                    $counts.accepts += 1
                    $counts.accepted_in[$counts.slot] += 1
        """

    def bind(self, site: Site) -> dict[str, object]:
        decider, lock = self.decider, self._lock

        def admit(now: float, rng: Random) -> None:
            try:
                with lock:
                    decider.admit(now, rng)
            except ThrottledError:
                if events.wanted():
                    events.emit(events.CallRejected(service=site.service or site.name, policy="throttle"))
                raise

        def failed(error: Exception) -> None:
            if isinstance(error, RefusedError) or gave_up(error, runtime.monotonic()):
                return  # never sent, or given up by its caller
            with lock:
                if took(error):
                    decider.accepted()
                else:
                    decider.refused()

        return {"admit": admit, "failed": failed, "lock": lock, "counts": decider, "k": decider.k}

    def chance(self, now: float) -> float:
        """The share of calls that would be rejected now, in [0, `most`]."""
        with self._lock:
            return self.decider.chance(now)

    def describe(self) -> str:
        return f"throttle(k={self.decider.k:g}, window={self.decider.window_s:g}, most={self.decider.most:g})"

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:  # noqa: ARG002
        if any(policy.kind == "retry" for policy in inner):
            yield Finding("throttle", "it stands outside the retry and sees calls, not attempts.", "Put throttle inside retry.")
        if any(policy.kind == "breaker" for policy in (*outer, *inner)):
            yield Finding("throttle", "a breaker guards the same call: when it opens, the throttle sees nothing.", "Keep one of the two.")


def took(error: Exception) -> bool:
    """Did the service take the call and answer it, if with an error? Not: it was overloaded, away or silent."""
    failure = classify(error)
    return failure.healthy or (failure.kind == "permanent" and failure.known)


def throttle(*, k: float = 2.0, window: float | timedelta = 60.0, most: float = 0.9) -> ThrottlePolicy:
    """Send about `k` times what the service accepts (client-side throttling of Google SRE).

    Args:
        k: 1 or more; 2 notices recovery at once, 1.1 spares the service.
        window: seconds or timedelta looked back.
        most: largest share rejected, in (0, 1).
    """
    return ThrottlePolicy(k=k, window=window, most=most)
