"""What a service has seen: calls, attempts, outcomes and latencies, counted without a lock on the way that succeeds."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import NamedTuple

from yaoki import errors, events
from yaoki.policies.policy import Policy, Site

LATENCIES_KEPT = 512  # enough for a steady 99th percentile, and four kilobytes

# A call that the pipeline itself refused, by the error it refused with.
_REJECTED: tuple[tuple[type[BaseException], str], ...] = (
    (errors.BreakerOpenError, "rejected_breaker"), (errors.BulkheadFullError, "rejected_bulkhead"),
    (errors.RateLimitedError, "rejected_rate"), (errors.ThrottledError, "rejected_throttle"),
    (errors.DeadlineError, "deadline"),
)


class Numbers(NamedTuple):
    """What a service has seen since it was made. Latencies are seconds, of the last calls that succeeded.

    `outcomes`: calls by outcome, the words of `events.CallFinished`.
    """

    calls: int
    attempts: int
    in_flight: int
    outcomes: dict[str, int]
    p50_s: float
    p95_s: float
    p99_s: float


class Tally:
    """A counter that many threads may add to without a lock: `add()` is one atomic step of `itertools.count`."""

    __slots__ = ("_count", "_lock", "_looked", "add")

    def __init__(self) -> None:
        self._count = itertools.count()
        self.add = self._count.__next__
        self._looked = 0
        self._lock = threading.Lock()

    def value(self) -> int:
        """How often `add` was called. Looking counts too, so what was looked is taken off."""
        with self._lock:
            value = next(self._count) - self._looked
            self._looked += 1
            return value


class Meter(Policy):
    """The outermost part of a service's pipeline: counts, and tells of each call that ended while somebody listens."""

    kind = "meter"

    def __init__(self, service: str) -> None:
        self._service = service
        self._lock = threading.Lock()
        self.started = Tally()
        self.ok = Tally()
        self.retries = 0
        self.outcomes: dict[str, int] = {}
        self.latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)

    def shell(self, site: Site) -> str:  # noqa: ARG002
        return """
            $began = now
            $start()
            try:
                CALL
            except BaseException as $error:
                $meter.failed($error, attempts, clock() - $began)
                raise
            $took = clock() - $began
            $latencies.append($took)
            if attempts == 1:
                $ok()
            else:
                $meter.retried(attempts)
            if wanted():
                $meter.tell_succeeded(attempts, $took)
        """

    def bind(self, site: Site) -> dict[str, object]:  # noqa: ARG002
        return {"meter": self, "start": self.started.add, "ok": self.ok.add, "latencies": self.latencies_s}

    def retried(self, attempts: int) -> None:
        with self._lock:
            self.retries += attempts - 1
            self.outcomes["ok_after_retry"] = self.outcomes.get("ok_after_retry", 0) + 1

    def tell_succeeded(self, attempts: int, duration_s: float) -> None:
        events.emit(events.CallFinished(service=self._service, outcome="ok" if attempts == 1 else "ok_after_retry",
                                        duration_s=duration_s, attempts=attempts))

    def failed(self, error: BaseException, attempts: int, duration_s: float) -> None:
        outcome = _outcome(error, attempts)
        with self._lock:
            self.retries += attempts - 1
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if events.wanted():
            events.emit(events.CallFinished(service=self._service, outcome=outcome, duration_s=duration_s,
                                            attempts=attempts, error=type(error).__name__))

    def numbers(self) -> Numbers:
        with self._lock:
            retries, outcomes = self.retries, dict(self.outcomes)
        # Those that end while we look are counted as still in flight, never as ended before they began.
        outcomes = {"ok": self.ok.value(), **outcomes}
        started = self.started.value()
        recent = sorted(self.latencies_s)
        p50, p95, p99 = (recent[int(share * (len(recent) - 1))] if recent else 0.0 for share in (0.5, 0.95, 0.99))
        return Numbers(started, started + retries, started - sum(outcomes.values()), outcomes, p50, p95, p99)


def _outcome(error: BaseException, attempts: int) -> str:
    if not isinstance(error, Exception):
        return "cancelled"
    for kind, outcome in _REJECTED:
        if isinstance(error, kind):
            return outcome
    return "failed" if attempts == 1 else "failed_after_retry"
