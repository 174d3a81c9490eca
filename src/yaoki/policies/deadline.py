"""A limit on the whole call: all attempts, waits and queues together.

    with deadline(5.0):                  # seconds; or as a policy in a pipeline, or around an async block
        ...                              # everything called in here has at most what remains of them

The deadline is one absolute instant on the monotonic clock in a ContextVar (`scope.py`). It is only ever shortened: a call
in a call cannot outlive its caller. Between processes it travels as what *remains*, never as a time of day, because no two
clocks agree; the time on the wire is taken off as a margin.

    async   the call is cancelled at the deadline; what was sent may have happened (`AttemptTimeoutError`, by="deadline")
    sync    nothing new is begun after it, and `remaining()` tells the client's own timeout argument

A call for which less than 5 ms remain is not begun: `DeadlineError`, and nothing was sent.

Source: gRPC's deadline propagation (`grpc-timeout`, gRPC over HTTP/2, section "Requests").
"""

from __future__ import annotations

from datetime import timedelta
from math import ceil, inf

from yaoki.policies.aio import Timers
from yaoki.policies.policy import Policy, Site, seconds
from yaoki.policies.scope import USEFUL_S, remaining
from yaoki.policies.timeout import Say

HEADER = "x-yaoki-timeout-ms"  # of HTTP, where no standard exists; the value is whole milliseconds
WIRE_MARGIN_S = 0.002     # taken off what is sent on: the answer needs its way back
LONGEST_WIRE_MS = 8 * 24 * 3600 * 1000

HEAD = f"""
    $limit = now + $seconds
    if $limit < scope[0]:
        scope = ($limit, scope[1])
    elif scope[0] - now < {USEFUL_S}:
        raise $say.late(scope[0] - now)
"""

ASYNC = HEAD + """
    $timer = $timers.enter($limit) if scope[0] is $limit else $timers.enter_early(scope[0] - now)
    try:
        CALL
    except CancelledError as $error:
        if $timers.leave($timer):
            raise $say.expired($timer) from $error
        raise
    except BaseException:
        $timers.leave($timer)
        raise
    $timers.leave($timer)
"""

SYNC = HEAD + """
    CALL
"""


class Deadline(Policy):
    """See `deadline`."""

    kind = "deadline"
    keeps_deadline = True

    def __init__(self, length: float | timedelta) -> None:
        self.deadline_s = seconds("deadline", length)
        self._timers = Timers(self.deadline_s)

    def shell(self, site: Site) -> str:
        return ASYNC if site.is_async and not _kept(site) else SYNC

    def bind(self, site: Site) -> dict[str, object]:
        return {"seconds": self.deadline_s, "timers": self._timers, "say": Say(site, self.deadline_s, by=self.kind)}

    def describe(self) -> str:
        return f"deadline({self.deadline_s:g})"

    def longest_s(self, inner_s: float) -> float:
        return min(self.deadline_s, inner_s)


def _kept(site: Site) -> bool:
    """Is the deadline kept without a timer of ours? Yes, if an attempt timeout further in, which ends at the deadline at the
    latest, is reached through policies that do not wait longer either.
    """
    for policy in site.inner:
        if policy.kind == "timeout":
            return True
        if not policy.keeps_deadline:
            return False
    return False


def deadline(length: float | timedelta) -> Deadline:
    """Limit the whole call to `length` (seconds or timedelta, above 0), or less if the caller has less left.

    Raises (when called):
        DeadlineError: less than 5 ms were left, and nothing was sent.
        AttemptTimeoutError: cut off under way (async); it may have happened.
    """
    return Deadline(length)


# ── on the wire ──────────────────────────────────────────────────────────────────────────────────────────────────────


def encode_ms(remaining_s: float) -> str | None:
    """What remains as whole milliseconds for an HTTP header, less the way back; None if there is no deadline."""
    if remaining_s == inf:
        return None
    return str(min(LONGEST_WIRE_MS, max(0, int((remaining_s - WIRE_MARGIN_S) * 1000))))


def decode_ms(text: str) -> float | None:
    """Seconds that remain, from `encode_ms`; None if it is not a number of milliseconds that makes sense."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        return None
    return min(int(text), LONGEST_WIRE_MS) / 1000


_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def encode_grpc(remaining_s: float) -> str | None:
    """What remains as `grpc-timeout`: at most 8 digits and a unit; None if there is no deadline."""
    if remaining_s == inf:
        return None
    for unit, scale in (("m", 1e-3), ("S", 1.0), ("M", 60.0), ("H", 3600.0)):
        amount = ceil(max(0.0, remaining_s) / scale)
        if amount < 100_000_000:
            return f"{amount}{unit}"
    return "99999999H"


def decode_grpc(text: str) -> float | None:
    """Seconds that remain, from `grpc-timeout`; None if it is not one."""
    amount, unit = text[:-1], text[-1:]
    if unit not in _GRPC_UNITS or not (amount.isascii() and amount.isdigit() and len(amount) <= 8):
        return None
    return int(amount) * _GRPC_UNITS[unit]


__all__ = ["Deadline", "deadline", "decode_grpc", "decode_ms", "encode_grpc", "encode_ms", "remaining"]
