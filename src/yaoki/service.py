"""One downstream by name: its policy, its numbers, its fault point.

    flights = Service("flights", policy=pipeline(deadline(5.0), retry(4), breaker(), timeout(1.0)))

    reply = await flights.call(book, trip, idempotent=True)       # or, for a plain function, without await

    @flights                                                      # or as a decorator
    async def seats(date: str) -> int: ...

Every attempt goes *policy → fault point → transport*:

    meter   counts the call, its attempts and its latency           (outermost)
    policy  as given
    faults  asks, only while somebody has installed a `Decide`, whether this attempt shall fail on purpose
    fn      the transport                                            (innermost)
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast, overload
from weakref import WeakValueDictionary

import msgspec

from yaoki import effect, errors, events, runtime
from yaoki.errors import ConfigError
from yaoki.policies import fuse, scope
from yaoki.policies.pipeline import Pipeline
from yaoki.policies.policy import Policy, Site, is_coroutine_function

P = ParamSpec("P")
T = TypeVar("T")

LATENCIES_KEPT = 512  # enough for a steady 99th percentile, and four kilobytes


# ── the fault point ──────────────────────────────────────────────────────────────────────────────────────────────────


class Point(NamedTuple):
    """Where an attempt is, when it is asked whether it shall fail.

    Attributes:
        service: the downstream's name.
        operation: what is called: what the caller named it, else the function's name.
        effect: the saga step under way, or None.
        attempt: number of the attempt within the retry around it, from 1.
    """

    service: str
    operation: str
    effect: effect.Effect | None
    attempt: int


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What to do to one attempt, in this order. Everything left out is left alone.

    Attributes:
        name: id of the fault, for the `FaultInjected` event.
        delay_before_s: wait before anything is sent.
        refuse: makes the error to raise instead of sending. The effect does not happen.
        deliveries: how often the request is delivered; one reply of several is seen, the last that is not an error.
        delay_after_s: wait after the effect has happened, before its reply is seen.
        lose: makes the error to raise instead of the reply. The effect has happened.
        replace: changes the reply.
    """

    name: str
    delay_before_s: float = 0.0
    refuse: Callable[[], BaseException] | None = None
    deliveries: int = 1
    delay_after_s: float = 0.0
    lose: Callable[[], BaseException] | None = None
    replace: Callable[[Any], Any] | None = None


Decide = Callable[[Point], Fault | None]
"""Quick, plain, and called once for each attempt: what shall happen to it? None: nothing."""


class FaultPoints:
    """The switch of all fault points. While nothing is installed an attempt pays for one attribute read.

    `install` is for the whole process (chaos, the demo), `use` for this task or thread and what it starts (tests, the
    explorer). An attempt asks the innermost `use` first, then what is installed; the first fault wins.
    """

    def __init__(self) -> None:
        self.active = 0
        self._lock = threading.Lock()
        self._installed: tuple[Decide, ...] = ()
        self._scoped: ContextVar[tuple[Decide, ...]] = ContextVar("yaoki_faults", default=())

    def install(self, decide: Decide) -> Callable[[], None]:
        """Ask `decide` about every attempt of this process from now on. Returns a function that ends it; it may be called twice."""
        entry = (decide,)
        with self._lock:
            self._installed = (*entry, *self._installed)
            self.active += 1

        def remove() -> None:
            with self._lock:
                if any(each is decide for each in self._installed):
                    self._installed = tuple(each for each in self._installed if each is not decide)
                    self.active -= 1

        return remove

    @contextlib.contextmanager
    def use(self, decide: Decide) -> Iterator[None]:
        """Ask `decide` about the attempts of this task or thread, and of tasks started in the block."""
        with self._lock:
            self.active += 1
        token = self._scoped.set((decide, *self._scoped.get()))
        try:
            yield
        finally:
            self._scoped.reset(token)
            with self._lock:
                self.active -= 1

    def decide(self, point: Point) -> Fault | None:
        """The fault for this attempt, if any; tells everybody who listens."""
        for decide in (*self._scoped.get(), *self._installed):
            fault = decide(point)
            if fault is not None:
                if events.wanted():
                    events.emit(events.FaultInjected(service=point.service, fault=fault.name, where=point.operation))
                return fault
        return None


faults = FaultPoints()

# (service, operation) of the call under way: what it calls in turn at other services has names of its own.
_operation: ContextVar[tuple[str, str]] = ContextVar("yaoki_operation", default=("", ""))


class _FaultPoint(Policy):
    """The innermost part of a service's pipeline."""

    kind = "fault point"

    def __init__(self, service: str) -> None:
        self._service = service

    once = False  # a duplicate delivery calls twice

    def shell(self, site: Site) -> str:  # noqa: ARG002
        return """
            $fault = $decide(fn, scope) if $faults.active else None
            if $fault is not None:
                AWAIT $before($fault)
            CALL
            if $fault is not None:
                result = AWAIT $after($fault, result, fn, ARGS)
        """

    def bind(self, site: Site) -> dict[str, object]:
        def decide(fn: Any, here: scope.Scope) -> Fault | None:
            service, operation = _operation.get()
            if service != self._service or not operation:
                operation = site.name or fuse.named(fn)
            return faults.decide(Point(self._service, operation, effect.current.get(), max(1, here[1])))

        return {"faults": faults, "decide": decide, "before": _before if site.is_async else _before_sync,
                "after": _after if site.is_async else _after_sync}


async def _before(fault: Fault) -> None:
    if fault.delay_before_s > 0:
        await runtime.sleep(fault.delay_before_s)
    if fault.refuse is not None:
        raise fault.refuse()


async def _after(fault: Fault, result: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
    for _ in range(fault.deliveries - 1):
        with contextlib.suppress(Exception):
            result = await fn(*args, **kwargs)
    if fault.delay_after_s > 0:
        await runtime.sleep(fault.delay_after_s)
    if fault.lose is not None:
        raise fault.lose()
    return fault.replace(result) if fault.replace is not None else result


def _before_sync(fault: Fault) -> None:
    if fault.delay_before_s > 0:
        runtime.sleep_blocking(fault.delay_before_s)
    if fault.refuse is not None:
        raise fault.refuse()


def _after_sync(fault: Fault, result: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
    for _ in range(fault.deliveries - 1):
        with contextlib.suppress(Exception):
            result = fn(*args, **kwargs)
    if fault.delay_after_s > 0:
        runtime.sleep_blocking(fault.delay_after_s)
    if fault.lose is not None:
        raise fault.lose()
    return fault.replace(result) if fault.replace is not None else result


class _Check(Policy):
    """Between policy and fault point: turns a reply that says "no" into the error that the policy understands."""

    kind = "check"

    def __init__(self, check: Callable[[Any], object]) -> None:
        self._check = check

    def shell(self, site: Site) -> str:  # noqa: ARG002
        return """
            CALL
            $check(result)
        """

    def bind(self, site: Site) -> dict[str, object]:  # noqa: ARG002
        return {"check": self._check}


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

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


class _Meter(Policy):
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


# ── the service ──────────────────────────────────────────────────────────────────────────────────────────────────────

_services: WeakValueDictionary[str, Service] = WeakValueDictionary()


class Service:
    """One downstream by name. Thread-safe; usable from any event loop.

    Args:
        name: what events, metrics, breakers and the dashboard call it.
        policy: what to do around each call; a `pipeline(...)` or a single policy. None: numbers and fault point only.
        idempotent: is repeating any call to this service harmless? None: each call says so itself.
        downstream: names of the services that this one calls in turn, for the lint of retry amplification.

    Raises:
        ConfigError: no name, or a policy that is not one.
    """

    def __init__(self, name: str, *, policy: Policy | None = None, idempotent: bool | None = None,
                 downstream: tuple[str, ...] = ()) -> None:
        if not name or not isinstance(name, str):
            raise ConfigError(f"A service needs a name, and got {name!r}.", do="Write Service('flights', ...).")
        if policy is not None and not isinstance(policy, Policy):
            raise ConfigError(f"The policy of service {name!r} is {policy!r}, which is not one.",
                              do="Pass policy=pipeline(retry(3), ...) or a single policy.")
        self.name = name
        self.policy = Pipeline(*(policy.policies if policy is not None else ()))
        self.idempotent = idempotent
        self.downstream = tuple(downstream)
        self._meter = _Meter(name)
        self._policies = (self._meter, *self.policy.policies, _FaultPoint(name))
        self._callers: dict[tuple[bool, bool | None, object], Callable[..., Any]] = {}
        _services[name] = self

    def call(self, fn: Callable[P, T], /, *args: Any, idempotent: bool | None = None, operation: str = "",
             check: Callable[[Any], object] | None = None, **kwargs: Any) -> T:
        """Call `fn(*args, **kwargs)` as one call to this service; awaitable if `fn` is a coroutine function.

        Args:
            idempotent: is repeating this call harmless? Only then is it retried when nobody knows whether it happened.
            operation: what is called, for events and faults; the function's name if left out.
            check: looks at each attempt's reply, and raises if it is a failure (a status, say) that the policy shall see.
                Pass the same function each time: one way of calling is prepared for each.
        """
        is_async = is_coroutine_function(fn)
        call = self._caller(is_async=is_async, idempotent=idempotent, check=check)
        if not operation:
            return cast("T", call(fn, *args, **kwargs))
        if is_async:
            return cast("T", self._named(call, operation, fn, args, kwargs))
        token = _operation.set((self.name, operation))
        try:
            return cast("T", call(fn, *args, **kwargs))
        finally:
            _operation.reset(token)

    async def acall(self, fn: Callable[..., Any], /, *args: Any, idempotent: bool | None = None, operation: str = "",
                    check: Callable[[Any], object] | None = None, **kwargs: Any) -> Any:
        """Call and await `fn`, which may be any callable that returns an awaitable. Otherwise like `call`."""
        call = self._caller(is_async=True, idempotent=idempotent, check=check)
        return await (self._named(call, operation, fn, args, kwargs) if operation else call(fn, *args, **kwargs))

    async def _named(self, call: Callable[..., Any], operation: str, fn: Any, args: Any, kwargs: Any) -> Any:
        token = _operation.set((self.name, operation))
        try:
            return await call(fn, *args, **kwargs)
        finally:
            _operation.reset(token)

    @overload
    def __call__(self, fn: Callable[P, T], /) -> Callable[P, T]: ...
    @overload
    def __call__(self, /, *, idempotent: bool | None = None, operation: str = "") -> Callable[[Callable[P, T]], Callable[P, T]]: ...
    def __call__(self, fn: Any = None, /, *, idempotent: bool | None = None, operation: str = "") -> Any:
        """Decorate a function whose every call is a call to this service: `@flights` or `@flights(idempotent=True)`."""
        def decorate(fn: Any) -> Any:
            return fuse.decorate(self._policies, fn, self._site(idempotent=idempotent)._replace(name=operation))

        return decorate if fn is None else decorate(fn)

    def numbers(self) -> Numbers:
        """What this service has seen so far."""
        return self._meter.numbers()

    def explain(self) -> str:
        """The policy drawn, its worst case, and what is risky about it."""
        lines = [self.name, self.policy.explain(self._site())]
        path, made = self._amplification((self.name,))
        if len(path) > 1 and made > self.policy.calls_per_call() > 1:
            lines.append(f"! retry: {' > '.join(path)} together may make {made} calls of one. Let only the innermost retry, "
                         "or lower the attempts; the budgets bound it in the long run.")
        return "\n".join(lines)

    def _amplification(self, path: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        """The chain of services on which one call may become the most calls, as far as they are known here."""
        worst: tuple[tuple[str, ...], int] = (path, 1)
        for name in self.downstream:
            found = _services.get(name)
            if found is not None and name not in path:  # two services may call each other
                worst = max(worst, found._amplification((*path, name)), key=lambda each: each[1])  # noqa: SLF001 - a sibling
        return worst[0], worst[1] * self.policy.calls_per_call()

    def _site(self, *, idempotent: bool | None = None) -> Site:
        return Site(service=self.name, idempotent=self.idempotent if idempotent is None else idempotent)

    def _caller(self, *, is_async: bool, idempotent: bool | None, check: Callable[[Any], object] | None) -> Callable[..., Any]:
        key = (is_async, idempotent, check)
        made = self._callers.get(key)
        if made is None:
            site = self._site(idempotent=idempotent)._replace(is_async=is_async)
            *policies, fault_point = self._policies
            checks = () if check is None else (_Check(check),)
            made = self._callers[key] = fuse.caller((*policies, *checks, fault_point), site)
        return made

    def __repr__(self) -> str:
        return f"Service({self.name!r}, policy={self.policy.describe()})"


def services() -> list[Service]:
    """Every service of this process that is still in use, by name."""
    return [found for _, found in sorted(_services.items())]


def named(name: str) -> Service:
    """The service of this name.

    Raises:
        ConfigError: there is none; says which there are.
    """
    try:
        return _services[name]
    except KeyError:
        raise ConfigError(f"There is no service {name!r}; there are: {', '.join(sorted(_services)) or 'none'}.",
                          do="Import the module that defines it first, or correct the name.") from None
