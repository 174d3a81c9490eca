"""What every server integration does around a request, whatever the server: how long it has, how important it is, how to refuse it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Generic, TypeVar

import msgspec

from yaoki import events, runtime
from yaoki.errors import BulkheadFullError, ConfigError, DeadlineError, RefusedError
from yaoki.policies.adaptation import AdaptiveDecider, Algorithm, Permit
from yaoki.policies.deadline import HEADER, decode_grpc, decode_ms
from yaoki.policies.policy import seconds
from yaoki.policies.scope import USEFUL_S
from yaoki.policies.shedding import Reason, Shedder, Verdicts, Waiter

W = TypeVar("W")
Header = Callable[[str], str | None]
"""A request's header by its lower-case name, or None."""

ENVOY_HEADER = "x-envoy-expected-rq-timeout-ms"
LEVELS = 8            # urgencies of RFC 9218: 0 is the most urgent
DEFAULT_URGENCY = 3   # and what it is when nobody says


def left_s(header: Header, name: str = HEADER) -> float | None:
    """Seconds that the caller still waits: from our header, gRPC's or Envoy's, whichever is there; None if none is."""
    for found, decode in ((header(name), decode_ms), (header("grpc-timeout"), decode_grpc), (header(ENVOY_HEADER), decode_ms)):
        if found is not None and (seconds_left := decode(found)) is not None:
            return seconds_left
    return None


def urgency(header: Header) -> int:
    """The request's urgency, 0 to 7, from `Priority: u=1` (RFC 9218); 3 when it does not say, or not so that one understands."""
    for part in (header("priority") or "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "u" and len(value) == 1 and "0" <= value <= "7":
            return int(value)
    return DEFAULT_URGENCY


def too_late(left: float) -> DeadlineError:
    """The error of a request whose caller has given up, or will have before it can be answered."""
    return DeadlineError(f"the request was not carried out: {max(0.0, left):.3f} s were left of its deadline.", remaining=max(0.0, left),
                         do="Give the whole operation more time, or find what used it up.")


def problem(error: RefusedError) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body (RFC 9457) of a refusal.

    503 with Retry-After says that nothing was done and that it is about load; 504 that the caller's time was up.
    """
    late = isinstance(error, DeadlineError)
    status = 504 if late else 503
    after_s = float(error.fields.get("retry_after", 1.0))
    body = msgspec.json.encode({
        "type": f"urn:yaoki:{error.code.lower()}", "title": error.message, "status": status, "detail": error.do, "code": error.code,
        "retryable": not late, **({} if late else {"retry_after_s": after_s})})
    headers = [("content-type", "application/problem+json"), ("content-length", str(len(body)))]
    return status, headers if late else [*headers, ("retry-after", str(math.ceil(after_s)))], body


class Gate(Generic[W]):
    """A shedder with its limit, fixed or found by measuring. Not thread-safe: the integrations see to that.

    Args:
        limit: requests at once, or an algorithm (`Gradient2()`, `Vegas()`) that finds it.
        queue: most requests waiting.
        max_wait: seconds or timedelta none waits longer than.
        target: seconds or timedelta none waits longer than while the server is overloaded.
        name: the server's, for events.
        exempt: paths that are let through always, such as a health check's.
    """

    def __init__(self, limit: int | Algorithm, *, queue: int, max_wait: float | timedelta, target: float | timedelta, name: str,
                 exempt: Iterable[str]) -> None:
        self.shedder: Shedder[W] = Shedder(queue=queue, max_wait_s=seconds("max_wait", max_wait), target_s=seconds("target", target),
                                           levels=LEVELS)
        self.fixed = limit if isinstance(limit, int) else 0
        self.measured = None if isinstance(limit, int) else AdaptiveDecider(limit)
        self.name = name
        self.exempt = frozenset(exempt)
        if self.measured is None and self.fixed < 1:
            raise ConfigError(f"a server with limit={limit!r} takes no request at all.", do="Give a limit of at least 1.")

    @property
    def limit(self) -> int:
        """Requests at once, as of now."""
        return self.fixed if self.measured is None else self.measured.algorithm.allowed

    def arrive(self, ticket: W, now: float, *, deadline: float, priority: int) -> tuple[Waiter[W], Verdicts[W]]:
        return self.shedder.arrive(ticket, now, limit=self.limit, deadline=deadline, priority=priority)

    def begin(self, now: float) -> Permit | None:
        """A request begins to run: measure it. None when the limit is fixed, or has just been lowered below what runs."""
        if self.measured is None or self.measured.in_flight >= self.limit:
            return None
        return self.measured.admit(now)

    def ended(self, began: float, now: float, permit: Permit | None, *, answered: bool) -> Verdicts[W]:
        """A running request ended; `answered`: with an answer, so that its time says something about the load."""
        if self.measured is not None and permit is not None:
            if answered:
                self.measured.succeeded(permit, now, runtime.rng())
            else:
                self.measured.dropped(permit)
        return self.shedder.ended(now, limit=self.limit, service_s=now - began if answered else None)

    def refusal(self, waiter: Waiter[Any], reason: Reason, now: float) -> RefusedError:
        """The error of a refused request; tells whoever listens."""
        if events.wanted():
            events.emit(events.CallRejected(service=self.name, policy="shed", retry_after_s=self.shedder.max_wait_s))
        if reason == "deadline":
            return too_late(waiter.deadline - now)
        why = "the queue is full" if reason == "full" else "it would have waited too long"
        return BulkheadFullError(f"the server is overloaded: {why}.", do="Nothing was done. Try again later.", retry_after=1.0,
                                 limit=self.limit)


__all__ = ["HEADER", "USEFUL_S", "Gate", "left_s", "problem", "too_late", "urgency"]
