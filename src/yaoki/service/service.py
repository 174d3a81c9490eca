"""One downstream: what is done around each call to it, in one pipeline, prepared once for each way of calling."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast, overload
from weakref import WeakValueDictionary

from yaoki.errors import ConfigError
from yaoki.policies import fuse
from yaoki.policies.pipeline import Pipeline
from yaoki.policies.policy import Policy, Site, is_coroutine_function
from yaoki.service.meter import Meter, Numbers
from yaoki.service.points import FaultPointPolicy, operation_under_way

P = ParamSpec("P")
T = TypeVar("T")

_services: WeakValueDictionary[str, Service] = WeakValueDictionary()


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
        self._meter = Meter(name)
        self._policies = (self._meter, *self.policy.policies, FaultPointPolicy(name))
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
        token = operation_under_way.set((self.name, operation))
        try:
            return cast("T", call(fn, *args, **kwargs))
        finally:
            operation_under_way.reset(token)

    async def acall(self, fn: Callable[..., Awaitable[T]], /, *args: Any, idempotent: bool | None = None, operation: str = "",
                    check: Callable[[Any], object] | None = None, **kwargs: Any) -> T:
        """Call and await `fn`, which may be any callable that returns an awaitable. Otherwise like `call`."""
        call = self._caller(is_async=True, idempotent=idempotent, check=check)
        return cast("T", await (self._named(call, operation, fn, args, kwargs) if operation else call(fn, *args, **kwargs)))

    async def _named(self, call: Callable[..., Any], operation: str, fn: Any, args: Any, kwargs: Any) -> Any:
        token = operation_under_way.set((self.name, operation))
        try:
            return await call(fn, *args, **kwargs)
        finally:
            operation_under_way.reset(token)

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
