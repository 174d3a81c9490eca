"""rate_limit: send at most so many calls in a time; wait for a place, or refuse.

    pipeline(..., rate_limit(100), ...)                        # 100 calls a second, refused beyond
    rate_limit(6000, per=60.0, burst=50, max_wait=0.5)         # waits up to half a second for a place
    rate_limit(5, key=lambda tenant, *_: tenant)               # each tenant its own limit

The decision is `gcra.py`. A place is reserved before the wait, so calls go in order of arrival and nobody is woken in
vain; a call cancelled while it waits gives its place back.
"""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import timedelta
from math import inf

from yaoki import events, runtime
from yaoki.errors import RateLimitedError, UsageError
from yaoki.policies.gcra import Gcra, KeyedGcra, Place, Rate
from yaoki.policies.policy import Finding, Policy, Site, seconds
from yaoki.policies.scope import Scope

Key = Callable[..., Hashable]


class RateLimit(Policy):
    """Holds calls to a rate. Thread-safe; one object given to two pipelines is one limit.

    Raises (from a call):
        RateLimitedError: no place within `max_wait`, or none before the ambient deadline; `retry_after` says when.
    """

    kind = "rate"
    keeps_deadline = True

    def __init__(self, calls: float, *, per: float | timedelta = 1.0, burst: float | None = None,
                 max_wait: float | timedelta = 0.0, key: Key | None = None, max_keys: int = 1_000_000) -> None:
        per_s = seconds("per", per)
        self.rate = Rate(calls / per_s, max(1.0, calls) if burst is None else burst, seconds("max_wait", max_wait, zero=True))
        self.key = key
        self._one = Gcra(self.rate)
        self._keyed: KeyedGcra[Hashable] = KeyedGcra(self.rate, max_keys=max_keys)
        self._lock = threading.Lock()
        self._text = f"rate_limit({calls:g}, per={per_s:g}, burst={self.rate.burst:g}, max_wait={self.rate.max_wait_s:g})"

    def shell(self, site: Site) -> str:
        wait = f"""
            if $place.at > now:
                try:
                    {"AWAIT rt.sleep" if site.is_async else "rt.sleep_blocking"}($place.at - now)
                except BaseException:
                    $give_back($which, $place)
                    raise
                now = clock()
            CALL
        """
        if self.key is not None and site.shape == "block":
            raise UsageError("rate_limit(key=...) cannot guard a block, because a block has no arguments to take a key from.",
                             do="Decorate a function, or use a limit for each key without key=.")
        if self.key is not None:
            return """
            $which = $key(ARGS)
            $place = $reserve($which, now, scope)""" + wait
        # A place that is free now is taken right here, as `Gcra.reserve` would: no call, nothing to give back.
        return """
            with $lock:
                $after = ($one.tat if $one.tat > now else now) + $interval
                $free = $after - $burst <= now
                if $free:
                    $one.tat = $after
            if not $free:
                $which = None
                $place = $reserve($which, now, scope)""" + textwrap.indent(wait, "    ").replace("    CALL", "CALL")

    def bind(self, site: Site) -> dict[str, object]:
        def reserve(key: Hashable, now: float, scope: Scope) -> Place:
            try:
                return self.reserve(key, now, deadline=scope[0])
            except RateLimitedError as error:
                if events.wanted():
                    events.emit(events.CallRejected(service=site.service or site.name, policy="rate", retry_after_s=error.retry_after))
                raise

        return {"reserve": reserve, "give_back": self.give_back, "key": self.key,
                "lock": self._lock, "one": self._one, "interval": self.rate.interval_s, "burst": self.rate.burst_s}

    def reserve(self, key: Hashable, now: float, *, deadline: float = inf) -> Place:
        """A place for one call. Raises RateLimitedError when it is too far off."""
        most_s = min(self.rate.max_wait_s, max(0.0, deadline - now))
        with self._lock:
            if self.key is None:
                return self._one.reserve(now, max_wait_s=most_s)
            return self._keyed.reserve(key, now, max_wait_s=most_s)

    def give_back(self, key: Hashable, place: Place) -> None:
        """The call was cancelled while it waited for its place."""
        now = runtime.monotonic()
        with self._lock:
            if self.key is None:
                self._one.give_back(place, now)
            else:
                self._keyed.give_back(key, place, now)

    def free(self) -> float:
        """How many calls could go at this instant (without a key)."""
        with self._lock:
            return self._one.free(runtime.monotonic())

    @property
    def keys(self) -> int:
        """How many keys are remembered."""
        return len(self._keyed)

    def describe(self) -> str:
        return self._text

    def longest_s(self, inner_s: float) -> float:
        return inner_s + self.rate.max_wait_s

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:  # noqa: ARG002
        if any(policy.kind == "retry" for policy in inner):
            yield Finding("rate", "it stands outside the retry, so the attempts it makes are not counted.",
                          "Put rate_limit inside retry.")
        if any(policy.kind == "timeout" for policy in outer) and self.rate.max_wait_s:
            yield Finding("rate", "the time a call waits for its place counts against the attempt timeout outside it.",
                          "Put rate_limit outside timeout.")


def rate_limit(calls: float, *, per: float | timedelta = 1.0, burst: float | None = None, max_wait: float | timedelta = 0.0,
               key: Key | None = None, max_keys: int = 1_000_000) -> RateLimit:
    """Send at most `calls` in `per` seconds.

    Args:
        calls: how many, above 0.
        per: seconds or timedelta, above 0.
        burst: how many may go at once after a rest, 1 or more; as many as `calls` when not given. In one stretch of `per`
            up to `burst + calls` may go.
        max_wait: seconds or timedelta a call may wait for its place; 0 refuses at once.
        key: of a call's arguments, which limit it falls under. Idle keys are forgotten.
        max_keys: keys remembered at most.
    """
    return RateLimit(calls, per=per, burst=burst, max_wait=max_wait, key=key, max_keys=max_keys)

