"""fallback: another way to answer when the call fails, proven by taking it all the time.

    pipeline(fallback(seats_from_replica, bulkhead=bulkhead(20), compare=operator.eq), deadline(2.0), retry(3), ...)
    pipeline(fallback(value=[]), ...)                          # no recommendations rather than no page

A fallback that runs only in emergencies is the least tested code under the highest load. So it is *exercised*: a share of
healthy calls runs it as well, beside the caller, who does not wait; results are compared. One that fails, differs, or has
not succeeded within its window is an event long before it is needed (`exercise.py` decides when).

When the service fails, all of its load comes to the fallback at once. How much of that it may get is its bulkhead's to
say, and it must have one of its own: beyond it, callers get the service's real error, and the fallback lives.

To answer with the last good value instead, use `cache(..., stale_if_error=...)`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from datetime import timedelta
from typing import Any

from yaoki import events, runtime
from yaoki.errors import BulkheadFullError, ConfigError, UsageError
from yaoki.policies import fuse, scope, sync
from yaoki.policies.bulkhead import Bulkhead
from yaoki.policies.classify import classify, mark_in_doubt, marks
from yaoki.policies.exercise import Exercise
from yaoki.policies.policy import Finding, Policy, Site, seconds
from yaoki.policies.retry import On

_MISSING: Any = object()
Compare = Callable[[Any, Any], bool | str]


class Fallback(Policy):
    """Answers in place of a call that failed. Thread-safe.

    Raises (from a call):
        the service's real error, with a note, when the fallback failed as well or its bulkhead is full.
    """

    kind = "fallback"
    once = False

    def __init__(self, target: Callable[..., Any] | None = None, *, value: Any = _MISSING, bulkhead: Bulkhead | None = None,
                 on: On | None = None, idempotent: bool | None = None, share: float = 0.01,
                 window: float | timedelta = 3600.0, compare: Compare | None = None) -> None:
        if (target is None) == (value is _MISSING):
            raise ConfigError("fallback() takes a function or a value, and got both or neither.",
                              do="Write fallback(function, bulkhead=bulkhead(20)) or fallback(value=...).")
        if target is not None and not callable(target):
            raise ConfigError(f"fallback() got {target!r}, which cannot be called.", do="Write fallback(value=...) for a fixed answer.")
        if target is not None and not isinstance(bulkhead, Bulkhead):
            raise ConfigError("fallback() got no bulkhead of its own: when the service fails, all of its load would come to the fallback.",
                              do="Give it bulkhead=bulkhead(n) with as many calls at once as it bears.")
        self.target = target
        self.value = value
        self.bulkhead = bulkhead
        self.on = on
        self.idempotent = idempotent
        self.compare = compare
        self.exercise = Exercise(share if target is not None else 0.0, seconds("window", window))
        self._lock = threading.Lock()
        self._emergency = _Emergency(self, Site())
        self._practising: set[asyncio.Task[None]] = set()

    def wrap(self, inner: Callable[..., Any], site: Site) -> Callable[..., Any]:
        if self.target is None:
            return _async_value(_Emergency(self, site), inner) if site.is_async else _sync_value(_Emergency(self, site), inner)
        assert self.bulkhead is not None, "checked at construction"
        if fuse.kind_of(self.target).is_async != site.is_async:
            raise UsageError(f"the fallback {fuse.named(self.target)} is {'a plain' if site.is_async else 'an async'} function, "
                             f"and what it stands in for is {'async' if site.is_async else 'plain'}.", do="Make both of a kind.")
        emergency = self._emergency = _Emergency(self, site)
        guarded = self.bulkhead(self.target)
        return _async_shell(emergency, guarded, inner) if site.is_async else _sync_shell(emergency, guarded, inner)

    def check(self) -> bool:
        """Has the fallback been proven within its window? Call it now and then for services that are hardly ever called.

        An unproven fallback is told once, as a `FallbackUnproven`.
        """
        return self._emergency.check()

    def describe(self) -> str:
        if self.target is None:
            return "fallback(value=...)"
        return f"fallback({fuse.named(self.target)}, {self.bulkhead!r}, share={self.exercise.share:g}, window={self.exercise.window_s:g})"

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:  # noqa: ARG002
        if any(policy.kind == "retry" for policy in outer):
            yield Finding("fallback", "inside a retry it answers before another attempt is made.", "Put fallback outermost.")
        if any(policy.kind in ("deadline", "timeout") for policy in outer):
            yield Finding("fallback", "the time limit outside it is used up by the call, and nothing is left for the fallback.",
                          "Put fallback outside deadline.")
        if self.target is None:
            return
        if self.exercise.share == 0.0:
            yield Finding("fallback", "it is never exercised: its first real call will be in the middle of an outage.", "Give it share=0.01.")
        elif self.compare is None:
            yield Finding("fallback", "its results are compared with nothing, so it may be wrong unnoticed.", "Give it compare=.")
        if not self._is_harmless(site):
            yield Finding("fallback", "the call is not marked idempotent, so after a timeout, when it may have happened, the fallback is not taken.",
                          "Mark it idempotent=True if doing it in both places is harmless.")
        if self.bulkhead is not None:
            yield Finding("fallback", f"when the service fails, {self.bulkhead!r} calls at once come to the fallback that it does not get today.",
                          "Make sure that what it depends on bears them, and is not down for the same reason.")

    def _is_harmless(self, site: Site) -> bool:
        return bool(self.idempotent if site.idempotent is None else site.idempotent)


class _Emergency:
    """What the shells ask at one site."""

    def __init__(self, policy: Fallback, site: Site) -> None:
        self.policy = policy
        self.service = site.service or site.name
        self.harmless = policy._is_harmless(site)  # noqa: SLF001 - one file
        self._lock = policy._lock  # noqa: SLF001
        self._strip = 1 if site.shape == "call" else 0
        """In `call(fn, ...)` the callee comes before the arguments."""

    def arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args[self._strip:]

    def takes_over(self, error: Exception, since: int) -> bool:
        """Is this a failure that the fallback answers? `since`: `marks.made` when the call began."""
        on = self.policy.on
        if on is not None:
            return isinstance(error, on) if isinstance(on, type | tuple) else bool(on(error))
        if classify(error).kind == "permanent":
            return False
        # Elsewhere it would happen a second time, if it has happened here.
        return self.policy.target is None or self.harmless or classify.nothing_happened(error, since)

    def used(self, error: Exception) -> None:
        with self._lock:
            self.policy.exercise.succeeded(runtime.monotonic())
        if events.wanted():
            events.emit(events.FallbackUsed(service=self.service, error=type(error).__name__))

    def failed(self, error: Exception, *, exercise: bool) -> None:
        if isinstance(error, BulkheadFullError):
            return  # it was not run: that says nothing about it
        with self._lock:
            self.policy.exercise.failed_to_run()
        if events.wanted():
            events.emit(events.FallbackFailed(service=self.service, error=repr(error), exercise=exercise))

    def failed_as_well(self, error: Exception, second: Exception) -> None:
        """The service failed with `error`, which the caller will get, and the fallback with `second`."""
        self.failed(second, exercise=False)
        error.add_note(f"yaoki: the fallback did not answer either: {second!r}")
        if not classify.nothing_happened(second):
            mark_in_doubt(error)

    def due(self) -> bool:
        """A healthy call has ended: is it time for practice?"""
        exercise = self.policy.exercise
        if not exercise.share:
            return False
        with self._lock:
            due = exercise.is_due(runtime.monotonic())
        self.check()
        return due

    def check(self) -> bool:
        exercise, now = self.policy.exercise, runtime.monotonic()
        with self._lock:
            lacking = exercise.is_lacking(now)
            idle_s = now - max(exercise.proven_at, exercise.began_at if exercise.began_at is not None else now)
        if lacking and events.wanted():
            events.emit(events.FallbackUnproven(service=self.service, idle_s=idle_s))
        return idle_s <= exercise.window_s

    def practised(self, real: Any, other: Any) -> None:
        """The fallback gave a result in practice: compare."""
        verdict: bool | str = True
        if self.policy.compare is not None:
            try:
                verdict = self.policy.compare(real, other)
            except Exception as error:
                verdict = f"compare= failed: {error!r}"
        same = verdict is True or verdict == ""
        with self._lock:
            self.policy.exercise.succeeded(runtime.monotonic(), same=same)
        if not same and events.wanted():
            events.emit(events.FallbackDiffered(service=self.service, difference=verdict if isinstance(verdict, str) else "results differ"))


def _async_shell(emergency: _Emergency, guarded: Callable[..., Any], inner: Callable[..., Any]) -> Callable[..., Any]:
    practising = emergency.policy._practising  # noqa: SLF001 - one file

    async def practise(real: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            with scope.detached():
                other = await guarded(*args, **kwargs)
        except Exception as error:
            emergency.failed(error, exercise=True)
        else:
            emergency.practised(real, other)

    async def instead(error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            result = await guarded(*args, **kwargs)
        except Exception as second:
            emergency.failed_as_well(error, second)
            return _MISSING
        emergency.used(error)
        return result

    async def answered(*args: Any, **kwargs: Any) -> Any:
        since = marks.made
        try:
            result = await inner(*args, **kwargs)
        except Exception as error:
            if not emergency.takes_over(error, since):
                raise
            result = await instead(error, emergency.arguments(args), kwargs)
            if result is _MISSING:
                raise
            return result
        if emergency.due():
            task = runtime.spawn(practise(result, emergency.arguments(args), kwargs), name="yaoki-fallback-exercise")
            practising.add(task)
            task.add_done_callback(practising.discard)
        return result

    return answered


def _sync_shell(emergency: _Emergency, guarded: Callable[..., Any], inner: Callable[..., Any]) -> Callable[..., Any]:
    def practise(real: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            with scope.detached():
                other = guarded(*args, **kwargs)
        except Exception as error:
            emergency.failed(error, exercise=True)
        else:
            emergency.practised(real, other)

    def instead(error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            result = guarded(*args, **kwargs)
        except Exception as second:
            emergency.failed_as_well(error, second)
            return _MISSING
        emergency.used(error)
        return result

    def answered(*args: Any, **kwargs: Any) -> Any:
        since = marks.made
        try:
            result = inner(*args, **kwargs)
        except Exception as error:
            if not emergency.takes_over(error, since):
                raise
            result = instead(error, emergency.arguments(args), kwargs)
            if result is _MISSING:
                raise
            return result
        if emergency.due():
            sync.submit(copy_context().run, practise, result, emergency.arguments(args), kwargs)
        return result

    return answered


def _async_value(emergency: _Emergency, inner: Callable[..., Any]) -> Callable[..., Any]:
    async def answered(*args: Any, **kwargs: Any) -> Any:
        since = marks.made
        try:
            return await inner(*args, **kwargs)
        except Exception as error:
            if not emergency.takes_over(error, since):
                raise
            emergency.used(error)
        return emergency.policy.value

    return answered


def _sync_value(emergency: _Emergency, inner: Callable[..., Any]) -> Callable[..., Any]:
    def answered(*args: Any, **kwargs: Any) -> Any:
        since = marks.made
        try:
            return inner(*args, **kwargs)
        except Exception as error:
            if not emergency.takes_over(error, since):
                raise
            emergency.used(error)
        return emergency.policy.value

    return answered


def fallback(target: Callable[..., Any] | None = None, *, value: Any = _MISSING, bulkhead: Bulkhead | None = None,
             on: On | None = None, idempotent: bool | None = None, share: float = 0.01, window: float | timedelta = 3600.0,
             compare: Compare | None = None) -> Fallback:
    """Answer in another way when the call fails.

    Args:
        target: takes the same arguments as what it stands in for, and is async if that is.
        value: or: this answer, always.
        bulkhead: how many calls at once the target bears; required with a target, and nobody else's.
        on: which failures: exception types or a function of the error. Left out: all but those that are an answer, or a bug.
        idempotent: may the operation happen in both places? Else the target answers only what certainly did not happen.
        share: of healthy calls that run the target as well, in [0, 1].
        window: seconds or timedelta within which the target must have succeeded once.
        compare: of the real result and the target's: True or "" when they agree, else False or what differs.
    """
    return Fallback(target, value=value, bulkhead=bulkhead, on=on, idempotent=idempotent, share=share, window=window, compare=compare)
