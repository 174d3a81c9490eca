"""hedge: when an answer is slow, ask again without giving up the first, and take what comes first.

    pipeline(deadline(2.0), hedge(0.05), bulkhead(50), timeout(1.0))     # a copy after 50 ms
    hedge(quantile=0.95)                                                 # when slower than 19 calls in 20

It cuts the tail of latencies that a slow replica, a pause or a lost packet makes, for a few percent more calls. Copies
are paid for from the same budget as retries, so that a service that is slow for everybody is not asked twice by everybody.
Only for operations marked idempotent: all copies may happen.

How the race is run: `race.py`, `race_threads.py`. In plain functions each attempt needs a thread, the first one included, and a loser cannot
be stopped: it runs on, and its result is discarded.

Source: Dean and Barroso, "The tail at scale" (CACM, 2013); gRFC A6; Finagle's backup requests.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from datetime import timedelta
from math import inf
from typing import Any
from weakref import WeakKeyDictionary

from yaoki import events, runtime
from yaoki.errors import ConfigError, UsageError
from yaoki.policies.budget import Budget, for_service
from yaoki.policies.latency import LatencyQuantile
from yaoki.policies.policy import Finding, Policy, Site, seconds
from yaoki.policies.race import Line
from yaoki.policies.race_threads import ThreadRace

# `asyncio.current_task` is a plain function until Python 3.12, at three times the cost of the dict that it looks into.
task_of: Callable[[asyncio.AbstractEventLoop], asyncio.Task[Any] | None] = (
    asyncio.current_task if sys.version_info >= (3, 12) else asyncio.tasks._current_tasks.get)  # type: ignore[attr-defined,unused-ignore]  # noqa: SLF001


class Hedge(Policy):
    """Sends copies of slow calls. Thread-safe; the latencies behind `quantile` belong to the policy object.

    Raises (from a call):
        what the first attempt raised, if no attempt was answered; the others' errors are in its notes.
    """

    kind = "hedge"
    once = False

    def __init__(self, delay: float | timedelta | None = None, *, quantile: float | None = None, most: int = 2,
                 budget: Budget | None = None, idempotent: bool | None = None, accept: Callable[[Any], bool] | None = None,
                 discard: Callable[[Any], object] | None = None) -> None:
        if (delay is None) == (quantile is None):
            raise ConfigError(f"hedge() got delay={delay!r} and quantile={quantile!r}; it takes one of them.",
                              do="Write hedge(0.05) for a fixed delay, or hedge(quantile=0.95).")
        if isinstance(most, bool) or not isinstance(most, int) or most < 2:
            raise ConfigError(f"hedge() got most={most!r}; it takes a whole number of attempts, the first included, from 2.",
                              do="Leave it at 2: a third copy hardly ever helps.")
        self.most = most
        self.idempotent = idempotent
        self.accept = accept
        self.discard = discard
        self.latencies = LatencyQuantile(quantile) if quantile is not None else None
        self._budget = budget
        self._delay_s = seconds("delay", delay) if delay is not None else None
        self._lock = threading.Lock()

    def budget(self, site: Site) -> Budget:
        """The bucket that pays for copies: the one given, else the destination's, else its own."""
        if self._budget is None and site.service:
            return for_service(site.service)
        with self._lock:
            if self._budget is None:
                self._budget = Budget()
            return self._budget

    def wrap(self, inner: Callable[..., Any], site: Site) -> Callable[..., Any]:
        idempotent = self.idempotent if site.idempotent is None else site.idempotent
        if idempotent is None and not site.service:
            raise UsageError(f"hedge() sends copies of {site.name or 'a call'}, and nobody said that it may happen twice.",
                             do="Pass hedge(..., idempotent=True) if repeating it is harmless; else leave the hedge out.")
        if not idempotent:
            return inner
        rules = Told(self, site)
        return _async_shell(self, rules, inner) if site.is_async else _sync_shell(self, rules, inner)

    def delay_s(self, now: float) -> float | None:
        """Seconds after which a copy is sent, as of now; None while too few latencies are known."""
        return self._delay_s if self.latencies is None else self.latencies.value_s(now)

    def describe(self) -> str:
        when = f"quantile={self.latencies.quantile:g}" if self.latencies is not None else f"{self._delay_s:g}"
        return f"hedge({when}, most={self.most}{', idempotent=True' if self.idempotent else ''})"

    def calls_per_call(self) -> int:
        return self.most

    def longest_s(self, inner_s: float) -> float:
        return inner_s + (self.most - 1) * min(inner_s, self._delay_s or 0.0)

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:
        if not (self.idempotent if site.idempotent is None else site.idempotent):
            yield Finding("hedge", "the call is not marked idempotent, so no copy is ever sent.",
                          "Mark the Service or the call idempotent=True if repeating it is harmless, or remove the hedge.")
        if any(policy.kind == "timeout" for policy in outer):
            yield Finding("hedge", "it stands inside the attempt timeout, which cuts off all copies together.", "Put timeout inside hedge.")
        delay_s = self._delay_s or 0.0
        for policy in inner:
            if policy.kind == "timeout" and policy.longest_s(inf) <= delay_s:
                yield Finding("hedge", f"an attempt is cut off after {policy.longest_s(inf):g} s, before a copy would be sent.",
                              "Make the hedge's delay shorter than the timeout.")


class Told:
    """A policy's rules at one site."""

    __slots__ = ("accept", "deposits", "discard_late", "most", "purse", "service")

    def __init__(self, policy: Hedge, site: Site) -> None:
        self.most = policy.most
        self.accept = policy.accept
        self.discard_late = policy.discard
        self.purse = policy.budget(site)
        self.service = site.service or site.name
        self.deposits = not any(outer.kind == "retry" for outer in site.outer)

    def may_send(self) -> bool:
        return self.purse.withdraw()

    def sent(self, copy: int, delay_s: float) -> None:
        if events.wanted():
            events.emit(events.HedgeSent(service=self.service, copy=copy, delay_s=delay_s))

    def won(self, copy: int, duration_s: float) -> None:
        if events.wanted():
            events.emit(events.HedgeWon(service=self.service, copy=copy, duration_s=duration_s))

    def acceptable(self, result: Any) -> bool:
        """Is this result good enough? An error of the user's function must not hang the race: then it is."""
        try:
            return self.accept is None or self.accept(result)
        except Exception:
            events.log.exception("accept= of a hedge failed")
            return True

    def discard(self, result: Any) -> None:
        """Give the result of a loser to the user's function, whose errors are nobody's answer."""
        if self.discard_late is not None:
            try:
                self.discard_late(result)
            except Exception:
                events.log.exception("discard= of a hedge failed")

    def deposit(self) -> None:
        """A call succeeded. Inside a retry, the retry puts the token in."""
        if self.deposits:
            self.purse.deposit()


def _async_shell(policy: Hedge, rules: Told, inner: Callable[..., Any]) -> Callable[..., Any]:
    running_loop = asyncio.get_running_loop
    latencies, accept, purse = policy.latencies, rules.accept, rules.purse
    # The loop that called last, its line, and until when (on the loop's clock) that line's delay holds.
    here: tuple[asyncio.AbstractEventLoop | None, Line | None, float] = (None, None, 0.0)
    lines: WeakKeyDictionary[asyncio.AbstractEventLoop, Line] = WeakKeyDictionary()

    def other_line(loop: asyncio.AbstractEventLoop) -> Line | None:
        """The line of this loop and of the delay that holds now; None while the delay is not known."""
        nonlocal here
        delay_s = policy.delay_s(runtime.monotonic())
        line = lines.get(loop)
        if delay_s is not None and (line is None or line.delay_s != delay_s):
            line = lines[loop] = Line(loop, delay_s, rules, inner)  # calls under way stay in the line they are in
        holds_s = inf if latencies is None else latencies.refresh_s if line is not None else 0.0
        here = (loop, line, loop.time() + holds_s)
        return line

    async def hedged(*args: Any, **kwargs: Any) -> Any:
        loop = running_loop()
        began = loop.time()
        last, line, until = here
        if last is not loop or began >= until:
            line = other_line(loop)
        if line is None:
            result = await inner(*args, **kwargs)
            if latencies is not None:
                latencies.feed(loop.time() - began)
            return result
        record = [began + line.delay_s, task_of(loop), args, kwargs, copy_context(), None]
        line.waiting[id(record)] = record
        if not line.armed:
            line.arm(began + line.delay_s)
        try:
            result = await inner(*args, **kwargs)
        except BaseException as error:
            try:  # the race raises it again, or has a better answer
                result = await line.race(record).failed(error, loop.time() - began)
            finally:
                del error
        else:
            line.waiting.pop(id(record), None)
            if record[5] is not None or (accept is not None and not rules.acceptable(result)):
                result = await line.race(record).answered(result, loop.time() - began)
        if latencies is not None:
            latencies.feed(loop.time() - began)
        if purse.tokens < purse.cap:
            rules.deposit()
        return result

    return hedged


def _sync_shell(policy: Hedge, rules: Told, inner: Callable[..., Any]) -> Callable[..., Any]:
    def hedged(*args: Any, **kwargs: Any) -> Any:
        began = runtime.monotonic()
        delay_s = policy.delay_s(began)
        result = inner(*args, **kwargs) if delay_s is None else ThreadRace(rules, delay_s, inner, args, kwargs).run()
        if policy.latencies is not None:
            policy.latencies.feed(runtime.monotonic() - began)
        rules.deposit()
        return result

    return hedged


def hedge(delay: float | timedelta | None = None, *, quantile: float | None = None, most: int = 2, budget: Budget | None = None,
          idempotent: bool | None = None, accept: Callable[[Any], bool] | None = None,
          discard: Callable[[Any], object] | None = None) -> Hedge:
    """Send a copy of a call whose answer is slow.

    Args:
        delay: seconds or timedelta after which the next copy is sent, above 0.
        quantile: instead: this share of recent calls was faster, in (0, 1). No copies until 100 latencies are known.
        most: attempts at once, the first included, from 2.
        budget: what pays for copies; the destination's own on a `Service`, shared with its retries.
        idempotent: may the operation happen twice? Without a yes here or on the `Service` there are no copies.
        accept: of a result: is it good enough to end the race? All are, when not given.
        discard: called with the result of a loser that was answered all the same, to close what must be closed.
    """
    return Hedge(delay, quantile=quantile, most=most, budget=budget, idempotent=idempotent, accept=accept, discard=discard)
