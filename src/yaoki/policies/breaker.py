"""Stop calling a service that fails, so that it can recover and its callers do not wait for nothing.

    flights_breaker = breaker(failure_rate=0.5, window=30.0, minimum=20, open_for=10.0)

The state machine and its rules are in `circuit.py`. This is what counts:

    success     the call returned, or the service answered in good health (not found, declined, sold out)
    failure     everything else that speaks against the service, its own attempt timeout and throttling included
    nothing     cancelled; refused on this side (bulkhead, rate limit, deadline); our own mistake (a bad address); the
                expiry of the *caller's* shorter deadline, unless the attempt had taken longer than `slow_after` by then

Give one breaker object to every pipeline that calls the same service: its state belongs to the service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from math import inf

from yaoki import events, runtime
from yaoki.errors import BreakerOpenError, ConfigError, RefusedError
from yaoki.policies.circuit import Change, Circuit, Permit, Probe, Refusal, State
from yaoki.policies.classify import UNKNOWN, classify
from yaoki.policies.policy import Finding, Policy, Site, seconds
from yaoki.policies.scope import Scope, gave_up
from yaoki.policies.window import CountWindow, TimeWindow
from yaoki.runtime import Random

On = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]


class Breaker(Policy):
    """See `breaker`. `circuit` is its decider, and `name` what events call it when no service does."""

    kind = "breaker"
    keeps_deadline = True

    def __init__(self, circuit: Circuit, *, on: On | None = None, name: str = "") -> None:
        self.circuit = circuit
        self.on = on
        self.name = name

    def shell(self, site: Site) -> str:  # noqa: ARG002
        # A success in the slice of the window that is being filled is counted right here; see `TimeWindow.ok`.
        fast = """
            if $permit == $circuit.epoch and now < $window.slice_end:
                $ok[$window.index] += 1
            elif ($change := $circuit.succeeded($permit, now, 0.0, rt.rng)) is not None:
                $watch.tell($change)
        """
        exact = """
            $end = clock()
            if ($change := $circuit.succeeded($permit, $end, $end - now, rt.rng)) is not None:
                $watch.tell($change)
        """
        counted = isinstance(self.circuit.window, TimeWindow) and self.circuit.slow_s == inf
        return """
            $permit = $watch.admit(now) if $circuit.gate else $circuit.epoch
            try:
                CALL
            except Exception as $error:
                $watch.failed($permit, $error, clock(), now, rt.rng)
                raise
            except BaseException:
                $watch.dropped($permit, clock(), now, scope, rt.rng)
                raise
        """ + (fast if counted else exact)

    def bind(self, site: Site) -> dict[str, object]:
        self.name = self.name or site.service
        window = self.circuit.window
        return {"circuit": self.circuit, "watch": _Watch(self, site), "window": window, "ok": getattr(window, "ok", None)}

    def describe(self) -> str:
        circuit, window = self.circuit, self.circuit.window
        length = f"window={window.length_s:g}" if isinstance(window, TimeWindow) else f"last={getattr(window, 'length', '?')}"
        slow = f", slow_after={circuit.slow_s:g}" if circuit.slow_s < inf else ""
        return f"breaker(failure_rate={circuit.failure_rate:g}, {length}, minimum={circuit.minimum}{slow}, open_for={circuit.open_for_s:g})"

    # ── seen and set by people, health checks and stores ─────────────────────────────────────────────────────────────

    @property
    def state(self) -> State:
        """closed, open, half_open, forced_open, disabled or metrics_only."""
        return self.circuit.state

    def trip(self, reason: str = "by hand") -> None:
        """Refuse every call until `reset`."""
        self._force("forced_open", reason)

    def reset(self, reason: str = "by hand") -> None:
        """Close it, with a clean window; from now on it decides for itself."""
        self._force("closed", reason)

    def disable(self, reason: str = "by hand") -> None:
        """Let everything through and count nothing, until `reset`."""
        self._force("disabled", reason)

    def metrics_only(self, reason: str = "by hand") -> None:
        """Count, and tell (`BreakerChanged`) when it would have opened, but refuse nothing, until `reset`."""
        self._force("metrics_only", reason)

    def _force(self, state: State, reason: str) -> None:
        tell(self.name, self.circuit.force(state, reason, runtime.monotonic()))

    def counts(self, error: Exception) -> bool | None:
        """What `error` says about the service: True, it is failing; False, it works; None, nothing."""
        if isinstance(error, RefusedError):
            return None
        if self.on is not None:
            return isinstance(error, self.on) if isinstance(self.on, type | tuple) else bool(self.on(error))
        failure = classify(error)
        if failure is UNKNOWN:
            return True
        if failure.healthy:
            return False
        ours = failure.known and failure.kind == "permanent" and failure.happened is False
        return None if ours else True

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:
        if not any(policy.kind in ("timeout", "deadline") for policy in (*inner, *outer)):
            yield Finding("breaker", "without a timeout a hanging service is never seen to fail.", "Put timeout() inside it.")
        elif site.is_async and not any(policy.kind == "timeout" for policy in inner) and self.circuit.slow_s == inf:
            yield Finding("breaker", "the only limit is the deadline of the whole call, whose expiry does not count against the service.",
                          "Put timeout() inside it.")


class _Watch:
    """The rare lines of the shell: what to do when a call ends badly, and whom to tell."""

    __slots__ = ("_breaker", "_circuit", "_service")

    def __init__(self, breaker: Breaker, site: Site) -> None:
        self._breaker = breaker
        self._circuit = breaker.circuit
        self._service = site.service or breaker.name or site.name

    def admit(self, now: float) -> Permit:
        try:
            permit = self._circuit.admit(now)
        except Refusal as refusal:
            raise self._refused(refusal) from None  # how the decider says no is not the caller's business
        if isinstance(permit, Probe) and permit.change is not None:
            self.tell(permit.change)
        return permit

    def _refused(self, refusal: Refusal) -> BreakerOpenError:
        after_s = refusal.retry_after_s
        if events.wanted():
            events.emit(events.CallRejected(service=self._service, policy="breaker", retry_after_s=after_s))
        until = f"; the next try is in {after_s:.2f} s" if after_s else ""
        return BreakerOpenError(
            f"{self._service or 'The service'} was not called: its circuit breaker is {refusal.state.replace('_', '-')} "
            f"({refusal.reason}{until}).", do="Nothing was sent. Try again later, or elsewhere.",
            service=self._service, state=refusal.state, retry_after=after_s or None)

    def failed(self, permit: Permit, error: Exception, now: float, began: float, rng: Random) -> None:
        verdict = self._breaker.counts(error)
        if verdict is not None and now - began < self._circuit.slow_s and gave_up(error, now):
            verdict = None  # an impatient caller must not open the circuit for the others, unless it was patient enough to judge
        if verdict is None:
            self._circuit.dropped(permit)
        elif verdict:
            change = self._circuit.failed(permit, now, rng)
            if change is not None:
                self.tell(change)
        else:
            self.tell(self._circuit.succeeded(permit, now, now - began, rng))

    def dropped(self, permit: Permit, now: float, began: float, scope: Scope, rng: Random) -> None:
        if now >= scope[0] and now - began >= self._circuit.slow_s:
            # Not a user's cancellation but a deadline around us, after a time that is slow by any caller's measure.
            self.tell(self._circuit.failed(permit, now, rng))
        else:
            self._circuit.dropped(permit)

    def tell(self, change: Change | None) -> None:
        tell(self._service, change)


def tell(service: str, change: Change | None) -> None:
    """Tell those who listen."""
    if change is not None and events.wanted():
        events.emit(events.BreakerChanged(service=service, before=change.before, after=change.after, reason=change.reason,
                                          open_for_s=change.open_for_s))


def breaker(*, failure_rate: float = 0.5, window: float | timedelta = 30.0, last: int | None = None, minimum: int = 20,
            slow_after: float | timedelta | None = None, slow_rate: float = 0.8, open_for: float | timedelta = 10.0,
            open_cap: float | timedelta = 300.0, probes: int = 1, probe_lease: float | timedelta | None = None,
            on: On | None = None, name: str = "") -> Breaker:
    """Refuse calls while too many of them fail.

    Args:
        failure_rate: share of failures in the window that opens it, in (0, 1].
        window: seconds that are looked at. `last`: look at this many calls instead.
        minimum: calls in the window before a rate means anything.
        slow_after: a call that succeeds after this many seconds is slow; `slow_rate`: share of slow and failed calls that
            opens it. Left out: slowness is not looked at.
        open_for, open_cap: seconds that it stays open, drawn between half and all of it; doubles with each failed probe.
        probes: calls that are let through half-open; all must end well.
        probe_lease: seconds after which an unanswered probe's place is given to another; `open_for` if left out.
        on: what counts as a failure: an exception type, a tuple, or a function of the error. Left out: see the module.
        name: for events when it is not on a `Service`.

    Raises:
        ConfigError: a setting is out of range.
    Raises (when called):
        BreakerOpenError: not called; `retry_after` is seconds until a probe may be let through, None if nobody knows.
    """
    for what, rate in (("failure_rate", failure_rate), ("slow_rate", slow_rate)):
        if not 0 < rate <= 1:
            raise ConfigError(f"breaker() got {what}={rate!r}; it takes a share above 0 and at most 1.", do="0.5 opens it when half of the calls fail.")
    for what, count in (("minimum", minimum), ("probes", probes), ("last", 1 if last is None else last)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"breaker() got {what}={count!r}; it takes a whole number of at least 1.", do=f"Correct {what}.")
    if last is not None and last < minimum:
        raise ConfigError(f"breaker() got last={last} and minimum={minimum}: so many calls are never in the window.",
                          do="Lower minimum, or raise last.")
    open_for_s = seconds("open_for", open_for)
    circuit = Circuit(
        TimeWindow(seconds("window", window)) if last is None else CountWindow(last),
        minimum=minimum, failure_rate=failure_rate,
        slow_s=None if slow_after is None else seconds("slow_after", slow_after), slow_rate=slow_rate,
        open_for_s=open_for_s, open_cap_s=max(open_for_s, seconds("open_cap", open_cap)), probes=probes,
        probe_lease_s=open_for_s if probe_lease is None else seconds("probe_lease", probe_lease))
    return Breaker(circuit, on=on, name=name)
