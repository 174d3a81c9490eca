"""How long to wait before the next attempt.

    delay before attempt n + 1, n = 1, 2, ...:     jitter(min(cap, raw(n)))

The cap comes first and the jitter last. The other way round, as in most libraries, every client that has reached the
cap sleeps exactly the cap, and they all come back in step.

    fixed(s)                 raw(n) = s
    linear(s)                raw(n) = s * n
    exponential(s)           raw(n) = s * factor ** (n - 1)
    fibonacci(s)             raw(n) = s * F(n),   F = 1, 1, 2, 3, 5, 8, ...
    decorrelated(s)          draw from U(s, 3 * previous), previous starting as s; drawn anew while it is above the cap
    custom(fn)               raw(n) = fn(n)

    jitter "none"            v
    jitter "full"            U(0, v)
    jitter "equal"           v / 2 + U(0, v / 2)

Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015, for full, equal and decorrelated. There
decorrelated is clamped to the cap, so that a growing share of the clients (a quarter at the ninth attempt) sleeps exactly
the cap; here the draw is repeated instead, that is, it is drawn from U(s, min(cap, 3 * previous)).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from math import log
from typing import Literal, get_args

from yaoki.errors import ConfigError
from yaoki.policies.policy import seconds
from yaoki.runtime import Random

Jitter = Literal["none", "full", "equal"]
Duration = float | timedelta

FAR_S = 1e9  # thirty years: where a growing delay stops growing, long before a float overflows


class Backoff:
    """A schedule of delays. Pure and immutable: one object serves any number of calls.

    Args:
        name: the constructor's name, for `explain()`.
        raw: seconds before jitter and cap, by the number of the attempt that failed, from 1.
        base_s, cap_s: seconds.
        jitter: "none", "full" or "equal".
    """

    __slots__ = ("_raw", "base_s", "cap_s", "jitter", "name")

    def __init__(self, name: str, raw: Callable[[int], float], *, base_s: float, cap_s: float, jitter: Jitter) -> None:
        if jitter not in get_args(Jitter):
            raise ConfigError(f"jitter is {jitter!r}; it takes 'none', 'full' or 'equal'.", do="Choose one; 'full' spreads best.")
        if base_s > cap_s:
            raise ConfigError(f"The first delay ({base_s:g} s) is above cap ({cap_s:g} s).", do="Raise the cap, or lower the delay.")
        self.name, self._raw, self.base_s, self.cap_s, self.jitter = name, raw, base_s, cap_s, jitter

    def delay(self, failed: int, previous_s: float, rng: Random) -> float:  # noqa: ARG002
        """Seconds to wait after attempt number `failed` (from 1). `previous_s`: what was waited last, 0.0 at first."""
        raw = self._raw(failed)
        longest = raw if raw < self.cap_s else self.cap_s  # noqa: FURB136 - a call of min() costs as much as all the rest
        jitter = self.jitter
        if jitter == "full":
            return rng.random() * longest
        if jitter == "equal":
            return longest / 2 + rng.random() * longest / 2
        return longest

    def longest_s(self, failed: int) -> float:
        """The longest that `delay` can be after attempt number `failed`."""
        return min(self.cap_s, self._raw(failed))

    def __repr__(self) -> str:
        cap = "" if self.cap_s >= FAR_S else f", cap={self.cap_s:g}"
        return f"backoff.{self.name}({self.base_s:g}{cap}, jitter={self.jitter!r})"


class _Decorrelated(Backoff):
    """Remembers nothing itself: the previous delay comes with the question."""

    __slots__ = ()

    def delay(self, failed: int, previous_s: float, rng: Random) -> float:  # noqa: ARG002
        highest = min(self.cap_s, 3 * max(previous_s, self.base_s))
        return self.base_s + rng.random() * (highest - self.base_s)

    def __repr__(self) -> str:
        return f"backoff.decorrelated({self.base_s:g}, cap={self.cap_s:g})"


def fixed(delay: Duration, *, jitter: Jitter = "none") -> Backoff:
    """The same delay (seconds) each time."""
    delay_s = seconds("delay", delay, zero=True)
    return Backoff("fixed", lambda _: delay_s, base_s=delay_s, cap_s=max(FAR_S, delay_s), jitter=jitter)


def linear(base: Duration, *, cap: Duration = 2.0, jitter: Jitter = "full") -> Backoff:
    """`base`, twice `base`, three times `base`, ... up to `cap` (seconds)."""
    base_s = seconds("base", base)
    return Backoff("linear", lambda failed: base_s * failed, base_s=base_s, cap_s=seconds("cap", cap), jitter=jitter)


def exponential(base: Duration = 0.05, *, cap: Duration = 2.0, factor: float = 2.0, jitter: Jitter = "full") -> Backoff:
    """`base * factor ** n` up to `cap` (seconds). The default: 50 ms doubling to 2 s, full jitter. Background work: cap 20 s."""
    base_s, cap_s = seconds("base", base), seconds("cap", cap)
    if not factor >= 1:
        raise ConfigError(f"factor is {factor!r}; it takes a number of at least 1.", do="2 doubles the delay each time.")
    if factor == 1:
        return fixed(base_s, jitter=jitter)
    # From this attempt on the cap rules; asking for the power would overflow some day.
    capped = 1 + log(cap_s / base_s, factor)
    return Backoff("exponential", lambda failed: base_s * factor ** (failed - 1) if failed < capped else cap_s,
                   base_s=base_s, cap_s=cap_s, jitter=jitter)


def fibonacci(base: Duration = 0.05, *, cap: Duration = 2.0, jitter: Jitter = "full") -> Backoff:
    """`base` times 1, 1, 2, 3, 5, 8, ... up to `cap` (seconds): grows by 1.6 in the long run, slowly at first."""
    base_s, cap_s = seconds("base", base), seconds("cap", cap)

    def raw(failed: int) -> float:
        before, here = 0, 1
        for _ in range(failed - 1):
            if here * base_s >= cap_s:
                break
            before, here = here, before + here
        return here * base_s

    return Backoff("fibonacci", raw, base_s=base_s, cap_s=cap_s, jitter=jitter)


def decorrelated(base: Duration = 0.05, *, cap: Duration = 2.0) -> Backoff:
    """Each delay drawn between `base` and three times the one before, at most `cap` (seconds). It is its own jitter."""
    base_s, cap_s = seconds("base", base), seconds("cap", cap)
    return _Decorrelated("decorrelated", lambda failed: base_s * 3.0 ** min(failed, 64), base_s=base_s, cap_s=cap_s, jitter="none")


def custom(raw: Callable[[int], float], *, cap: Duration = 20.0, jitter: Jitter = "full") -> Backoff:
    """`raw(n)` seconds after the n-th failed attempt (from 1), up to `cap` (seconds), then jitter."""
    if not callable(raw):
        raise ConfigError(f"custom() got {raw!r}; it takes a function of the attempt's number.", do="Write custom(lambda n: 0.1 * n * n).")
    return Backoff("custom", lambda failed: max(0.0, raw(failed)), base_s=0.0, cap_s=seconds("cap", cap), jitter=jitter)


NONE = fixed(0.0)
"""No waiting at all: for tests."""
