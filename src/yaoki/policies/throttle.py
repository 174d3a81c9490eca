"""throttle: send to a service in proportion to what it accepts.

    pipeline(..., throttle(), bulkhead(50), timeout(1.0))      # where a breaker would stand

The decision is `throttling.py`. What the service did not take counts against it: refused for load, not reached, no answer
in time. What it answered, were it an error, it took. What was never sent, and what was cancelled, counts as not asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import timedelta

from yaoki import events
from yaoki.errors import RefusedError, ThrottledError
from yaoki.policies.classify import classify
from yaoki.policies.policy import Finding, Policy, Site, seconds
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
        return """
            $permit = $admit(now, rt.rng)
            try:
                CALL
            except Exception as $error:
                $failed($permit, clock(), $error)
                raise
            except BaseException:
                $dropped($permit, clock())
                raise
            else:
                $accepted($permit, clock())
        """

    def bind(self, site: Site) -> dict[str, object]:
        decider, lock = self.decider, self._lock

        def admit(now: float, rng: Random) -> int:
            try:
                with lock:
                    return decider.admit(now, rng)
            except ThrottledError:
                if events.wanted():
                    events.emit(events.CallRejected(service=site.service, policy="throttle"))
                raise

        def accepted(permit: int, now: float) -> None:
            with lock:
                decider.accepted(permit, now)

        def dropped(permit: int, now: float) -> None:
            with lock:
                decider.dropped(permit, now)

        def failed(permit: int, now: float, error: Exception) -> None:
            if isinstance(error, RefusedError):
                dropped(permit, now)
            elif took(error):
                accepted(permit, now)

        return {"admit": admit, "accepted": accepted, "dropped": dropped, "failed": failed}

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
