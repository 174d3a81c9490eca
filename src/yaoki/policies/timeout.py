"""A limit on one attempt. (`deadline` limits the whole call, all attempts together.)

    async   the attempt is cancelled, and `AttemptTimeoutError` is raised: it may have happened all the same
    sync    a plain function cannot be interrupted: the limit is handed on as `remaining()`, for the client's own timeout
            argument (the HTTP integrations do it). `thread=True` runs it in a thread and stops waiting; see below.

An attempt gets the smaller of its own limit and what remains of the caller's deadline; the error says which it was
(`by`: "timeout" or "deadline"), because an impatient caller must not open the breaker for the others.

`thread=True`: the function runs in a pool of threads with the caller's context variables. When the time is up the caller
goes on, and the thread goes on as well: until its function returns it is a thread of the pool that nobody else can use, and
the interpreter waits for it at its exit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from yaoki.errors import AttemptTimeoutError, DeadlineError
from yaoki.policies import sync
from yaoki.policies.aio import HANDLE, Record, Timers
from yaoki.policies.policy import Finding, Policy, Site, seconds
from yaoki.policies.scope import USEFUL_S

ASYNC = f"""
    $limit = now + $seconds
    if $limit < scope[0]:
        scope = ($limit, scope[1])
        $timer = $timers.enter($limit)
    elif scope[0] - now < {USEFUL_S}:
        raise $say.late(scope[0] - now)
    else:
        $timer = $timers.enter_early(scope[0] - now)
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

SYNC = f"""
    $limit = now + $seconds
    if $limit < scope[0]:
        scope = ($limit, scope[1])
    elif scope[0] - now < {USEFUL_S}:
        raise $say.late(scope[0] - now)
    CALL
"""


class Timeout(Policy):
    """See `timeout`."""

    kind = "timeout"
    keeps_deadline = True

    def __init__(self, length: float | timedelta, *, thread: bool = False) -> None:
        self.timeout_s = seconds("timeout", length)
        self.thread = thread
        self._timers = Timers(self.timeout_s)

    def shell(self, site: Site) -> str | None:
        if site.is_async:
            return ASYNC
        return None if self.thread else SYNC

    def bind(self, site: Site) -> dict[str, object]:
        return {"seconds": self.timeout_s, "timers": self._timers, "say": Say(site, self.timeout_s, by=self.kind)}

    def wrap(self, inner: Callable[..., Any], site: Site) -> Callable[..., Any]:
        say = Say(site, self.timeout_s, by=self.kind)
        return sync.in_thread(inner, self.timeout_s, say.given_up, say.late)

    def describe(self) -> str:
        return f"timeout({self.timeout_s:g}{', thread=True' if self.thread else ''})"

    def longest_s(self, inner_s: float) -> float:
        return min(self.timeout_s, inner_s)

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:  # noqa: ARG002
        limit = next((policy for policy in outer if policy.kind == "deadline"), None)
        if limit is not None and limit.longest_s(float("inf")) <= self.timeout_s:
            yield Finding("timeout", f"{self.timeout_s:g} s for one attempt is not less than the deadline of the whole call.",
                          "Lower the timeout, or raise the deadline.")


class Say:
    """Makes the errors of a limit on time: of `timeout` and of `deadline`, as `by` says."""

    __slots__ = ("_by", "_limit_s", "_what")

    def __init__(self, site: Site, limit_s: float, *, by: str) -> None:
        self._what = site.service or site.name
        self._limit_s = limit_s
        self._by = by

    def expired(self, record: Record) -> AttemptTimeoutError:
        """A call was cut off by this timer. One of its own means: at the caller's deadline."""
        return self.given_up(self._limit_s, self._by if record[HANDLE] is None else "deadline")

    def given_up(self, limit_s: float, by: str) -> AttemptTimeoutError:
        """No answer came in `limit_s` seconds."""
        limit = f"in {limit_s:g} s" if by == "timeout" else "before the deadline"
        return AttemptTimeoutError(f"{self._what or 'The call'} did not answer {limit}.", timeout=limit_s, by=by,
                                   do="It may have happened: repeat it with the same idempotency key, or undo it.")

    def late(self, remaining_s: float = 0.0) -> DeadlineError:
        """Nothing was sent, because so little time is left."""
        left_s = max(0.0, remaining_s)
        return DeadlineError(f"{self._what or 'The function'} was not called: {left_s:.3f} s are left of the deadline.",
                             remaining=left_s, do="Give the whole operation more time, or find what used it up.")


def timeout(length: float | timedelta, *, thread: bool = False) -> Timeout:
    """Limit one attempt to `length` (seconds or timedelta, above 0).

    Args:
        thread: run plain functions in a thread and stop waiting when the time is up; the thread goes on.

    Raises (when called):
        AttemptTimeoutError: no answer in time (`timeout`, `by`); also a `TimeoutError`.
        DeadlineError: the ambient deadline had passed before the attempt began.
    """
    return Timeout(length, thread=thread)
