"""The fault point in every call: asks, only while somebody has installed a `Decide`, whether this attempt shall fail on purpose."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import msgspec

from yaoki import effect, events, runtime
from yaoki.policies import fuse, scope
from yaoki.policies.policy import Policy, Site


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
operation_under_way: ContextVar[tuple[str, str]] = ContextVar("yaoki_operation", default=("", ""))


class FaultPointPolicy(Policy):
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
            service, operation = operation_under_way.get()
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
