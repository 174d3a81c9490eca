"""adaptive_limit: as many calls under way as the service bears, found by measuring.

    pipeline(..., adaptive_limit(), timeout(1.0))              # Gradient2
    adaptive_limit(Vegas(maximum=500))

The limit is found by `gradient.py` or `vegas.py`, the counting is `adaptation.py`. On an event loop, what the loop itself
was late is taken out of each round trip: a heartbeat runs while calls are under way, and stops with them.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from yaoki import events, runtime
from yaoki.errors import AttemptTimeoutError, BulkheadFullError, RefusedError
from yaoki.policies.adaptation import AdaptiveDecider, Algorithm, LoopLag, Permit
from yaoki.policies.classify import classify
from yaoki.policies.gradient import Gradient2
from yaoki.policies.policy import Finding, Policy, Site, seconds
from yaoki.policies.scope import PATIENCE, gave_up
from yaoki.runtime import Random


class AdaptiveLimit(Policy):
    """Refuses calls beyond a limit that follows the service. Thread-safe.

    Raises (from a call):
        BulkheadFullError: as many calls are under way as the service bears; `limit` says how many.
    """

    kind = "limit"
    keeps_deadline = True

    def __init__(self, algorithm: Algorithm | None = None, *, window: float | timedelta = 1.0, minimum: int = 10) -> None:
        self.algorithm = algorithm if algorithm is not None else Gradient2()
        self.decider = AdaptiveDecider(self.algorithm, window_s=seconds("window", window), minimum=minimum)
        self._lock = threading.Lock()
        # The heart of the loop that called last, read and replaced as a whole because other threads do too.
        self._here: tuple[Callable[[], asyncio.AbstractEventLoop | None], Heart | None] = (lambda: None, None)
        self._hearts: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Heart] = weakref.WeakKeyDictionary()

    def shell(self, site: Site) -> str:
        return f"""
            $permit = $admit(now)
            try:
                {"$heart = $beating()" if site.is_async else "$heart = None"}
                CALL
            except Exception as $error:
                $failed($permit, clock(), rt.rng, $heart, $error)
                raise
            except BaseException:
                $dropped($permit)
                raise
            else:
                $succeeded($permit, clock(), rt.rng, $heart)
        """

    def bind(self, site: Site) -> dict[str, object]:
        decider, lock = self.decider, self._lock

        def admit(now: float) -> Permit:
            try:
                with lock:
                    return decider.admit(now)
            except BulkheadFullError:
                if events.wanted():
                    events.emit(events.CallRejected(service=site.service or site.name, policy="limit"))
                raise

        def succeeded(permit: Permit, now: float, rng: Random, heart: Heart | None) -> None:
            lag_s = heart.lag.lag_s(now) if heart is not None else 0.0
            with lock:
                before = decider.moved
                decider.succeeded(permit, now, rng, lag_s=lag_s)
                after = decider.moved
            if after is not before:
                self._tell(site)

        def failed(permit: Permit, now: float, rng: Random, heart: Heart | None, error: Exception) -> None:
            usual_s = decider.moved[2]
            if isinstance(error, RefusedError) or (gave_up(error, now) and not now - permit > PATIENCE * usual_s > 0):
                self.dropped(permit)  # not sent, or given up by a caller that did not wait for long
            elif isinstance(error, AttemptTimeoutError) or classify(error).kind == "throttled":
                with lock:
                    before = decider.moved
                    decider.failed(permit, now, rng)
                    after = decider.moved
                if after is not before:
                    self._tell(site)
            elif classify(error).healthy:
                succeeded(permit, now, rng, heart)
            else:
                # A fault is quick or slow for reasons of its own: its time says nothing about load.
                self.dropped(permit)

        return {"admit": admit, "succeeded": succeeded, "failed": failed, "dropped": self.dropped, "beating": self._beating}

    def dropped(self, permit: Permit) -> None:
        """The call was cancelled, never sent, or failed in a way that says nothing about load."""
        with self._lock:
            self.decider.dropped(permit)

    @property
    def limit(self) -> int:
        """Calls that may be under way now."""
        return self.decider.allowed

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return self.decider.in_flight

    def _beating(self) -> Heart:
        """Let this loop's heart beat while calls are under way on it."""
        loop = asyncio.get_running_loop()
        last_loop, heart = self._here
        if heart is None or last_loop() is not loop:
            heart = self._hearts.setdefault(loop, Heart(self))
            self._here = (weakref.ref(loop), heart)
        if not heart.armed:
            heart.arm(loop)
        return heart

    def _tell(self, site: Site) -> None:
        before, after, rtt_s = self.decider.moved
        if int(before) != int(after) and events.wanted():
            events.emit(events.LimitChanged(service=site.service or site.name, before=int(before), after=int(after), rtt_s=rtt_s,
                                            in_flight=self.decider.in_flight))

    def describe(self) -> str:
        return f"adaptive_limit({self.algorithm.name}, now {self.limit})"

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:  # noqa: ARG002
        if any(policy.kind == "retry" for policy in inner):
            yield Finding("limit", "the waits between attempts count as round trip, because the retry stands inside.",
                          "Put adaptive_limit inside retry.")
        if not any(policy.kind in ("timeout", "deadline") for policy in (*outer, *inner)):
            yield Finding("limit", "nothing bounds a call in time, so calls that hang hold the limit for good.",
                          "Add timeout(...) inside it.")


class Heart:
    """The heartbeat of one event loop: one timer, re-armed only while calls are under way."""

    __slots__ = ("armed", "lag", "owner")

    def __init__(self, owner: AdaptiveLimit) -> None:
        self.lag = LoopLag()
        self.armed = False
        self.owner = weakref.ref(owner)

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self.armed = True
        self.lag.arm(runtime.monotonic())
        loop.call_later(self.lag.every_s, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lag.beat(runtime.monotonic())
        self.armed = False
        owner = self.owner()
        if owner is not None and owner.in_flight:
            self.arm(loop)


def adaptive_limit(algorithm: Algorithm | None = None, *, window: float | timedelta = 1.0, minimum: int = 10) -> AdaptiveLimit:
    """Let as many calls be under way as the service bears.

    Args:
        algorithm: `Gradient2()` when not given, or `Vegas()`; one instance for each limit.
        window: seconds or timedelta of calls that move the limit once.
        minimum: and how many calls at least.
    """
    return AdaptiveLimit(algorithm, window=window, minimum=minimum)
