"""Call again, when that can help and can do no harm.

    an attempt fails ──▶ worth a retry? ──▶ may it be repeated? ──▶ attempts, time and budget left? ──▶ wait ──▶ again
                             │ no                │ no                        │ no
                             ▼                   ▼                           ▼
                      the real error, with the history of the attempts in its notes

- What is worth a retry is told by protocol (`classify`), or by you with `on=`; a call that this process itself refused
  (open breaker, full bulkhead, no time left) is not, unless `on=` names it.
- An attempt that may have happened is repeated only if the call is idempotent: `idempotent=True` here, on the `Service` or
  on the call; the HTTP integrations know it from the method or the idempotency key. An error of a kind that no table knows
  is taken at your word when `on=` names it.
- A service's Retry-After is honoured; if it asks for more than what remains of the deadline, the call fails at once.
- Of retries inside each other the nearest to the call does it: three layers of three attempts would be 27 calls. Those
  further out see the mark that it leaves on the error; and while one of them is at its second attempt or later (`scope.py`),
  those inside make one attempt.
- The budget bounds the extra calls of the whole process (`budget.py`).
- Cancellation is never retried.

Source: RFC 9110 (Retry-After), gRFC A6 (push-back), AWS Builders' Library, "Timeouts, retries, and backoff with jitter".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Literal

from yaoki import events, runtime
from yaoki.errors import ConfigError, RefusedError
from yaoki.policies.backoff import Backoff, exponential
from yaoki.policies.budget import Budget, for_service
from yaoki.policies.classify import (
    EVER,
    MARK,
    NOTE,
    Failure,
    attempts_made,
    classify,
    forget_before,
    has_mark,
    is_doubted,
    mark_attempts,
    marks,
)
from yaoki.policies.policy import Finding, Policy, Site
from yaoki.policies.scope import USEFUL_S, Scope
from yaoki.runtime import Random, Runtime

On = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]

DEFAULT_BACKOFF = exponential()
KINDS = (type, tuple)
read = classify.__call__  # the bound method, because calling an object costs twice as much
NOTES_KEPT = 20   # of a long retry's history the first ones tell enough


class Attempts:
    """What happened to one call so far. Exists only once an attempt has failed.

    Attributes:
        delay_s: the wait before the next attempt.
        since: the number of the last mark that was left on an error before the call began; see `classify.Marks`.
    """

    __slots__ = ("began", "delay_s", "history", "in_doubt", "made", "since")

    def __init__(self, now: float, since: int = EVER) -> None:
        self.since = since
        self.made = 0
        self.delay_s = 0.0
        self.history: tuple[str, ...] = ()
        self.in_doubt = False
        self.began = now


Verdict = Literal["", "permanent", "attempts", "nested", "not_idempotent", "deadline", "retry_after", "budget"]
"""Why no further attempt is made; "" when one is. The last five are reasons of `events.RetrySuppressed`."""


class RetryDecider:
    """Decide after a failure whether there is another attempt, and after what delay. Pure but for the shared budget.

    Args:
        attempts: total, the first included.
        backoff: the delays.
        on: what is worth a retry; None: what `classify` says.
        idempotent: is repeating the call harmless? None: nobody said.
        nested: may it retry inside another retry?
    """

    __slots__ = ("attempts", "backoff", "idempotent", "nested", "on")

    def __init__(self, attempts: int, backoff: Backoff, *, on: On | None, idempotent: bool | None, nested: bool) -> None:
        self.attempts, self.backoff, self.on, self.idempotent, self.nested = attempts, backoff, on, idempotent, nested

    def wanted(self, error: Exception, failure: Failure) -> bool:
        """Is this failure of a kind that is worth another attempt?"""
        on = self.on
        if on is None:
            return failure[0] != "permanent" and not isinstance(error, RefusedError)
        return isinstance(error, on) if isinstance(on, KINDS) else bool(on(error))

    def harmless(self, failure: Failure) -> bool:
        """Can repeating a call that nobody called idempotent do no harm?"""
        if failure.happened is False or failure.kind == "throttled":
            return True
        # Only `on=` can have let an unknown error come here: whoever named it has said that it may be repeated.
        return not failure.known and self.idempotent is None

    def after(self, past: Attempts, error: Exception, failure: Failure, now: float, scope: Scope, budget: Budget | None,  # noqa: PLR0917
              rng: Random) -> Verdict:
        """Decide after attempt number `past.made` failed; sets `past.delay_s` if there is another.

        Positional, because CPython makes a call with keywords a good deal slower, and every failure pays for it.
        """
        if not self.wanted(error, failure):
            return "permanent"
        if past.made >= self.attempts:
            return "attempts"
        # Hardly any error has a mark or a cause, and finding that out here is cheaper than a call.
        marked = (hasattr(error, MARK) or error.__cause__ is not None) and has_mark(error, past.since)
        if not self.nested and (scope[1] or marked):
            return "nested"
        if not (self.idempotent or self.harmless(failure)):
            return "not_idempotent"
        return self.wait(past, failure.retry_after_s, now, scope, budget, rng)

    def wait(self, past: Attempts, retry_after_s: float | None, now: float, scope: Scope, budget: Budget | None,  # noqa: PLR0917
             rng: Random) -> Verdict:
        """The delay before the next attempt, if time and budget allow one."""
        delay_s = self.backoff.delay(past.made, past.delay_s, rng)
        left_s: float = scope[0] - now - USEFUL_S
        if retry_after_s is not None and retry_after_s > delay_s:
            if retry_after_s > left_s or retry_after_s == inf:
                return "retry_after"
            delay_s = retry_after_s
        elif delay_s >= left_s:
            # Sleeping first and failing then would only fail later.
            return "deadline"
        if budget is not None and not budget.withdraw():
            return "budget"
        past.delay_s = delay_s
        return ""


_TOLD = {
    "nested": "a retry inside or around this one makes the attempts",
    "not_idempotent": "it may have happened, and nobody said that repeating it is harmless; pass idempotent=True if it is",
    "deadline": "the next attempt would come after the deadline",
    "retry_after": "the service asked for a longer wait than what remains",
    "budget": "the retry budget is spent, so that retries do not become the load that keeps the service down",
}


class Retry(Policy):
    """See `retry`."""

    kind = "retry"
    once = False
    keeps_deadline = True

    def __init__(self, attempts: int = 3, backoff: Backoff | None = None, *, on: On | None = None,
                 on_result: Callable[[Any], bool] | None = None, budget: Budget | float | Literal[False] | None = None,
                 idempotent: bool | None = None, nested: bool = False) -> None:
        if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
            raise ConfigError(f"retry() got attempts={attempts!r}; it takes a whole number of at least 1, the first attempt included.",
                              do="retry(3) makes at most three calls.")
        if backoff is not None and not isinstance(backoff, Backoff):
            raise ConfigError(f"retry() got backoff={backoff!r}, which is not a schedule of delays.",
                              do="Pass backoff.exponential(0.05), backoff.fixed(1.0) or another of yaoki.backoff.")
        self.attempts, self.backoff, self.on = attempts, backoff or DEFAULT_BACKOFF, _checked_on(on)
        self.on_result, self.idempotent, self.nested = on_result, idempotent, nested
        self._ratio = budget if isinstance(budget, float | int) and not isinstance(budget, bool) else None
        self._budget = budget if isinstance(budget, Budget) else Budget(self._ratio) if self._ratio else None
        self._no_budget = budget is False

    attempts_made = staticmethod(attempts_made)

    def budget(self, site: Site) -> Budget | None:
        """The bucket that pays for retries at `site`: the one given, else the destination's, if it has a name."""
        if self._no_budget or (self._budget is not None and self._ratio is None):
            return self._budget
        if site.service:
            return for_service(site.service, self._ratio) if self._ratio else for_service(site.service)
        return self._budget

    def shell(self, site: Site) -> str:
        if self.attempts == 1:
            return "CALL"
        enough = ""
        if self.on_result is not None:
            enough = "if not $guard.bad(result) or ($past := $guard.unwanted(result, $past, $since, $outer, rt)) is None: "
        shell = f"""
            $outer = scope
            $since = $marks.made
            $past = None
            while True:
                try:
                    CALL
                except Exception as $error:
                    if ($past := $guard.failed($error, $past, $since, $outer, rt)) is None:
                        raise
                else:
                    {enough}break
                attempts = $past.made + 1
                if $past.delay_s > 0:
                    try:
                        AWAIT $guard.sleep($past.delay_s)
                    except BaseException:
                        $guard.gave_up()
                        raise
                now = clock()
                scope = ($outer[0], attempts)
        """
        return shell if self.budget(site) is None else shell + """
            if $budget.tokens < $cap:
                $budget.deposit()
        """

    def bind(self, site: Site) -> dict[str, object]:
        budget = self.budget(site)
        return {"guard": _Guard(self, site, budget), "marks": marks, "budget": budget, "cap": budget.cap if budget else 0.0}

    def describe(self) -> str:
        budget = ", budget=False" if self._no_budget else f", budget={self._ratio or self._budget}" if self._budget else ""
        return f"retry({self.attempts}, {self.backoff!r}{budget}{', idempotent=True' if self.idempotent else ''})"

    def calls_per_call(self) -> int:
        return self.attempts

    def longest_s(self, inner_s: float) -> float:
        if inner_s == inf:
            return inf
        return inner_s * self.attempts + sum(self.backoff.longest_s(n) for n in range(1, self.attempts))

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:
        if self.attempts > 1 and self.budget(site) is None:
            yield Finding("retry", "without a budget every client multiplies its load while the service is down.",
                          "Give it budget=0.1, or use it on a Service.")
        if any(policy.kind == "breaker" for policy in outer):
            yield Finding("retry", "inside the breaker, all attempts of a call count as one, and an open breaker cannot stop them.",
                          "Put the retry outside the breaker.")
        if any(policy.kind == "timeout" for policy in outer):
            yield Finding("retry", "inside the attempt timeout, the timeout cuts off all attempts together.",
                          "Put timeout() inside the retry; deadline() is what bounds them together.")
        if any(policy.kind == "retry" for policy in outer) and not self.nested:
            yield Finding("retry", "inside another retry it makes a single attempt.", "Remove one of them.")
        longest = self.longest_s(_longest(inner))
        limit = next((policy.longest_s(inf) for policy in outer if policy.kind == "deadline"), inf)
        if limit < longest < inf:
            yield Finding("retry", f"all attempts and waits may take {longest:g} s, and the deadline ends them after {limit:g} s.",
                          "Lower the attempts, the attempt timeout or the back-off's cap, or raise the deadline.")


def _longest(inner: Sequence[Policy]) -> float:
    longest = inf
    for policy in reversed(inner):
        longest = policy.longest_s(longest)
    return longest


def _checked_on(on: On | None) -> On | None:
    kinds = on if isinstance(on, tuple) else (on,) if isinstance(on, type) else ()
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ConfigError(f"retry() got on={kind!r}; it takes exception types below Exception: a cancellation is never retried.",
                              do="Name the errors that another attempt can cure, such as on=ConnectionError.")
    if on is not None and not kinds and not callable(on):
        raise ConfigError(f"retry() got on={on!r}; it takes an exception type, a tuple of them, or a function of the error.",
                          do="Leave it out to retry what the protocol says is worth it.")
    return on


class _Guard:
    """What the shell calls when an attempt failed: asks the decider, tells the listeners, writes the history."""

    __slots__ = ("_budget", "_decider", "_service", "bad", "sleep")

    def __init__(self, policy: Retry, site: Site, budget: Budget | None) -> None:
        idempotent = policy.idempotent if site.idempotent is None else site.idempotent
        self._decider = RetryDecider(policy.attempts, policy.backoff, on=policy.on, idempotent=idempotent, nested=policy.nested)
        self._service = site.service or site.name
        self._budget = budget
        self.bad = policy.on_result
        self.sleep = runtime.sleep if site.is_async else runtime.sleep_blocking

    def failed(self, error: Exception, past: Attempts | None, since: int, scope: Scope, rt: Runtime) -> Attempts | None:
        """Another attempt (after `delay_s`), or None: raise the error, which then carries its history."""
        now = rt.monotonic()
        if past is None:
            past = Attempts(now, since)
        failure = read(error)
        past.made += 1
        verdict = self._decider.after(past, error, failure, now, scope, self._budget, rt.rng)
        name = type(error).__name__
        if past.made <= NOTES_KEPT:
            past.history += (name,)
        if events.wanted():
            self._tell(past, name, failure, verdict)
        if not verdict:
            if failure.happened is not False or is_doubted(error, past.since):
                past.in_doubt = True
            return past
        self._sign(error, past, verdict, now)
        return None

    def unwanted(self, result: Any, past: Attempts | None, since: int, scope: Scope, rt: Runtime) -> Attempts | None:
        """The same for a result that `on_result` does not want. The last one is returned as it is."""
        now = rt.monotonic()
        if past is None:
            past = Attempts(now, since)
        past.made += 1
        if past.made >= self._decider.attempts or (scope[1] and not self._decider.nested):
            return None
        if self._decider.wait(past, None, now, scope, self._budget, rt.rng):
            return None
        past.in_doubt = True
        past.history += (f"result {type(result).__name__}",)
        return past

    def gave_up(self) -> None:
        """The call was cancelled before the next attempt, which was paid for and never sent."""
        if self._budget is not None:
            self._budget.give_back()

    def _tell(self, past: Attempts, error: str, failure: Failure, verdict: Verdict) -> None:
        service = self._service
        events.emit(events.AttemptFailed(service=service, attempt=past.made, error=error, classification=failure.kind))
        if not verdict:
            events.emit(events.RetryScheduled(service=service, attempt=past.made + 1, delay_s=past.delay_s, error=error))
        elif verdict in _TOLD:
            events.emit(events.RetrySuppressed(service=service, attempt=past.made + 1, reason=verdict, error=error))

    @staticmethod
    def _sign(error: Exception, past: Attempts, verdict: Verdict, now: float) -> None:
        if past.made == 1 and verdict not in _TOLD:
            return
        forget_before(error, past.since)
        in_doubt = past.in_doubt or is_doubted(error)
        mark_attempts(error, max(past.made, attempts_made(error)), in_doubt=in_doubt)
        note = f"{NOTE}{past.made} attempt{'s' if past.made > 1 else ''}"
        if past.made > 1:
            note += f" ({', '.join(past.history)}), {now - past.began:.2f} s from the first failure to the last"
        if verdict in _TOLD:
            note += f"; not tried again: {_TOLD[verdict]}"
        error.add_note(note)


def retry(attempts: int = 3, backoff: Backoff | None = None, *, on: On | None = None,
          on_result: Callable[[Any], bool] | None = None, budget: Budget | float | Literal[False] | None = None,
          idempotent: bool | None = None, nested: bool = False) -> Retry:
    """Make up to `attempts` calls, the first included.

    Args:
        attempts: at least 1.
        backoff: the waits between them; `backoff.exponential()` if left out (50 ms doubling to 2 s, full jitter).
        on: what is worth a retry: an exception type, a tuple, or a function of the error. Left out: what `classify` says.
        on_result: a function of the result; True: not wanted, try again. The last result is returned whatever it is.
        budget: a ratio (0.1: at most a tenth of the calls are repetitions) or a `budget(...)` to share. Left out: the
            destination's own bucket on a `Service`, none elsewhere. False: none.
        idempotent: is repeating the call harmless? A `Service` or the call itself may say so instead, and goes first.
        nested: retry even inside another retry.

    Raises:
        ConfigError: a setting is out of range.

    Cancellation during an attempt or a wait ends the call at once. The error of the last attempt is raised as it is, with
    the history in its notes; `attempts_made(error)` counts.
    """
    return Retry(attempts, backoff, on=on, on_result=on_result, budget=budget, idempotent=idempotent, nested=nested)


__all__ = ["Attempts", "Retry", "RetryDecider", "attempts_made", "retry"]
