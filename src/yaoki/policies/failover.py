"""failover: several endpoints for one service; every call goes to a good one, and to another when that fails.

    flights = failover(["https://a.flights", "https://b.flights", "https://c.flights"])

    @pipeline(deadline(2.0), flights, timeout(0.5))
    async def seats(date: str) -> int:
        reply = await client.get(f"{endpoint()}/seats", params={"date": date})   # the one chosen for this attempt

    failover([Endpoint("10.0.1.7", zone="a"), Endpoint("10.0.2.9", zone="b")], zone="a", arg="host")   # as host=

All endpoints are in use all the time, so none is cold on the day it is needed. How one is chosen, and when one is left
out, is decided in `endpoints.py`. An attempt that failed may go on to another endpoint at once, if repeating it is
harmless and the budget, shared with retries and hedges, has a token for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

from yaoki import events, runtime
from yaoki.errors import ConfigError, RefusedError, UsageError
from yaoki.policies import scope
from yaoki.policies.budget import Budget, for_service
from yaoki.policies.classify import Failure, classify, mark_in_doubt
from yaoki.policies.endpoints import Endpoint, Endpoints, Lease
from yaoki.policies.policy import Finding, Policy, Site

_current: ContextVar[Any] = ContextVar("yaoki_endpoint")


def endpoint() -> Any:
    """The endpoint chosen for the attempt under way.

    Raises:
        UsageError: no `failover` is around the caller.
    """
    try:
        return _current.get()
    except LookupError:
        raise UsageError("endpoint() was asked outside a failover.", do="Put failover([...]) into the pipeline around this function.") from None


class Failover(Policy):
    """Chooses an endpoint for each attempt. Thread-safe.

    Raises (from a call):
        what the last endpoint tried raised; the others' errors are in its notes.
    """

    kind = "failover"
    once = False

    def __init__(self, endpoints: Iterable[Hashable | Endpoint[Any]], *, attempts: int = 2, arg: str = "", budget: Budget | None = None,
                 idempotent: bool | None = None, **settings: Any) -> None:
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise ConfigError(f"failover() got attempts={attempts!r}; it takes a whole number of endpoints to try, at least 1.",
                              do="Leave it at 2; a retry outside makes more, with pauses.")
        self.endpoints: Endpoints[Any] = Endpoints([_as_endpoint(each) for each in endpoints], **settings)
        self.attempts = attempts
        self.arg = arg
        self.idempotent = idempotent
        self._budget = budget
        self._lock = threading.Lock()

    def replace(self, endpoints: Iterable[Hashable | Endpoint[Any]]) -> None:
        """Use these endpoints from now on. What is known of those that stay is kept.

        Raises:
            ConfigError: there are none, or one is named twice.
        """
        wanted = [_as_endpoint(each) for each in endpoints]
        with self._lock:
            known = {each.target: each for each in self.endpoints.endpoints}
            self.endpoints.replace([known.get(each.target, each) for each in wanted])

    def wrap(self, inner: Callable[..., Any], site: Site) -> Callable[..., Any]:
        tries = _Tries(self, site)
        return _async_shell(tries, inner) if site.is_async else _sync_shell(tries, inner)

    def describe(self) -> str:
        count = len(self.endpoints.endpoints)
        zone = f", zone={self.endpoints.zone!r}" if self.endpoints.zone else ""
        return f"failover({count} endpoint{'s' if count != 1 else ''}, attempts={self.attempts}{zone})"

    def calls_per_call(self) -> int:
        return min(self.attempts, len(self.endpoints.endpoints))

    def longest_s(self, inner_s: float) -> float:
        return inner_s * self.calls_per_call()

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:  # noqa: ARG002
        if len(self.endpoints.endpoints) == 1:
            yield Finding("failover", "there is one endpoint, so nothing to fail over to.", "Name at least two, better three.")
        if any(policy.kind == "timeout" for policy in outer):
            yield Finding("failover", "inside the attempt timeout, a silent endpoint uses up the time of the next one.",
                          "Put timeout inside failover.")
        if any(policy.kind == "breaker" for policy in inner):
            yield Finding("failover", "a breaker further in is shared by all endpoints: one sick endpoint may open it for all.",
                          "Put the breaker outside failover; ejection does its work for each endpoint.")


def _as_endpoint(given: Hashable | Endpoint[Any]) -> Endpoint[Any]:
    return given if isinstance(given, Endpoint) else Endpoint(given)


class _Tried(list[Any]):
    """The endpoints that failed one call, in turn. `in_doubt`: may one of them have done it all the same?"""

    in_doubt = False


class _Tries:
    """What the shells ask at one site."""

    def __init__(self, policy: Failover, site: Site) -> None:
        self.policy = policy
        self.service = site.service or site.name
        self.idempotent = policy.idempotent if site.idempotent is None else site.idempotent
        self.budget = policy._budget or (for_service(site.service) if site.service else None)  # noqa: SLF001 - one file
        self.deposits = not any(outer.kind in ("retry", "hedge") for outer in site.outer)  # one of them has put the token in
        self._lock = policy._lock  # noqa: SLF001

    def choose(self, tried: _Tried) -> Lease[Any]:
        rt = runtime.current()
        try:
            with self._lock:
                return self.policy.endpoints.choose(rt.monotonic(), rt.rng, but=tried)
        except RefusedError as error:
            _sign(error, tried)
            raise

    def arguments(self, lease: Lease[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        return {**kwargs, self.policy.arg: lease.endpoint.target} if self.policy.arg else kwargs

    def succeeded(self, lease: Lease[Any]) -> None:
        with self._lock:
            back = self.policy.endpoints.succeeded(lease, runtime.monotonic())
        if back and events.wanted():
            events.emit(events.EndpointReturned(service=self.service, endpoint=str(lease.endpoint.target)))
        if self.budget is not None and self.budget.tokens < self.budget.cap and self.deposits:
            self.budget.deposit()

    def dropped(self, lease: Lease[Any]) -> None:
        with self._lock:
            self.policy.endpoints.dropped(lease)

    def failed(self, lease: Lease[Any], error: Exception, tried: _Tried) -> bool:
        """Learn from a failure. True when another endpoint is to be tried."""
        goes_on = self._learn(lease, error, tried)
        if goes_on:
            tried.in_doubt = tried.in_doubt or not classify.nothing_happened(error)
        else:
            _sign(error, tried)
        return goes_on

    def _learn(self, lease: Lease[Any], error: Exception, tried: _Tried) -> bool:
        failure = classify(error)
        if isinstance(error, RefusedError):
            self.dropped(lease)
            return False  # refused on this side, not by the endpoint
        if failure.healthy or (failure.kind == "permanent" and failure.known):
            self.succeeded(lease)
            return False
        now = runtime.monotonic()
        with self._lock:
            if scope.gave_up(error, now) and not self.policy.endpoints.is_late(lease, now):
                self.policy.endpoints.dropped(lease)
                return False  # an impatient caller's, which says nothing about the endpoint, and has no time for another
            out = self.policy.endpoints.failed(lease, now)
        tried.append(lease.endpoint.target)
        if out and events.wanted():
            events.emit(events.EndpointEjected(service=self.service, endpoint=str(lease.endpoint.target), error=type(error).__name__,
                                               for_s=lease.endpoint.probe_at - now, times=lease.endpoint.ejections))
        return self._goes_on(failure, tried, now)

    def _goes_on(self, failure: Failure, tried: Sequence[Any], now: float) -> bool:
        if len(tried) >= self.policy.calls_per_call() or not failure.worth_a_retry(idempotent=self.idempotent):
            return False
        if scope.ambient()[0] <= now:
            return False
        # Any one endpoint refusing for load is no reason to burden the others without limit: the budget is that limit.
        return self.budget is None or self.budget.withdraw()


def _async_shell(tries: _Tries, inner: Callable[..., Any]) -> Callable[..., Any]:
    async def failing_over(*args: Any, **kwargs: Any) -> Any:
        tried = _Tried()
        while True:
            lease = tries.choose(tried)
            token = _current.set(lease.endpoint.target)
            try:
                result = await inner(*args, **tries.arguments(lease, kwargs))
            except Exception as error:
                if not tries.failed(lease, error, tried):
                    raise
            except BaseException:
                tries.dropped(lease)
                raise
            else:
                tries.succeeded(lease)
                return result
            finally:
                _current.reset(token)

    return failing_over


def _sync_shell(tries: _Tries, inner: Callable[..., Any]) -> Callable[..., Any]:
    def failing_over(*args: Any, **kwargs: Any) -> Any:
        tried = _Tried()
        while True:
            lease = tries.choose(tried)
            token = _current.set(lease.endpoint.target)
            try:
                result = inner(*args, **tries.arguments(lease, kwargs))
            except Exception as error:
                if not tries.failed(lease, error, tried):
                    raise
            except BaseException:
                tries.dropped(lease)
                raise
            else:
                tries.succeeded(lease)
                return result
            finally:
                _current.reset(token)

    return failing_over


def _sign(error: Exception, tried: _Tried) -> None:
    """The call ends with this error: tell what came before it."""
    if tried.in_doubt:
        mark_in_doubt(error)
    if len(tried) > 1:
        error.add_note(f"yaoki: failed at each endpoint tried: {', '.join(str(each) for each in tried)}")


def failover(endpoints: Iterable[Hashable | Endpoint[Any]], *, attempts: int = 2, arg: str = "", budget: Budget | None = None,
             idempotent: bool | None = None, **settings: Any) -> Failover:
    """Send each attempt to a good one of several endpoints.

    Args:
        endpoints: what `endpoint()` gives the function, or `Endpoint(target, zone=, weight=)`.
        attempts: endpoints tried for one call at most.
        arg: give the endpoint to the function as this keyword argument, too.
        budget: what pays for a second endpoint; the destination's own on a `Service`, none elsewhere.
        idempotent: may the operation happen twice? Else only what certainly did not happen is sent elsewhere.
        settings: `zone`, `crossing`, `failures`, `worse_by`, `eject_s`, `eject_cap_s`, `most_ejected`, `recover_s`, `decay_s`
            of `Endpoints`.
    """
    return Failover(endpoints, attempts=attempts, arg=arg, budget=budget, idempotent=idempotent, **settings)
