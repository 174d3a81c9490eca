"""How many extra calls a process may send to a destination: what keeps retries from becoming a storm.

    a call that succeeds     puts `ratio` tokens in, up to `cap`
    a retry, or a hedge      takes one out, or is not made

    calls sent <= calls asked for * (1 + ratio) + start          over any period that begins with an empty bucket

One bucket for each process and destination, shared by retries and hedges. It is fed by successes only, starts nearly
empty and is small, so that a fleet of many sparse clients cannot save up a storm: with a bucket that starts full, or with
a floor of retries per second and client, ten thousand clients keep a server down for ever after a short brown-out
(`tests/simulation/test_brownout.py` replays it).

Source: M. Brooker, "Fixing retries with token buckets and circuit breakers", 2022, and Finagle's retry budgets; what is
different here, and why, stands in `docs/reference/policies/retry.md`.
"""

from __future__ import annotations

import threading
from math import exp
from weakref import WeakValueDictionary

from yaoki import runtime
from yaoki.errors import ConfigError

DEFAULT_RATIO = 0.1   # at most one call in ten is a repetition, in the long run
DEFAULT_CAP = 10.0    # a hundred successes fill it; a burst of ten retries is what a healthy client may need
DEFAULT_START = 0.5   # a fresh process earns its first repetition with five successes; with 1.0 (one for free) a hundred
                      # thousand sparse clients keep a server down for ever, as test_brownout.py shows


class Budget:
    """A bucket of extra calls. Thread-safe.

    Args:
        ratio: tokens for each success, in (0, 1]. 0.1 adds at most a tenth to the load.
        cap: the most it holds, at least 1.
        start: what it holds at first, at most `cap`.
    """

    __slots__ = ("__weakref__", "_lock", "cap", "ratio", "start", "tokens")

    def __init__(self, ratio: float = DEFAULT_RATIO, *, cap: float = DEFAULT_CAP, start: float = DEFAULT_START) -> None:
        if not 0 < ratio <= 1:
            raise ConfigError(f"A budget's ratio is {ratio!r}; it takes a number above 0 and at most 1.",
                              do="0.1 lets a tenth of the calls be repeated.")
        if cap < 1:
            raise ConfigError(f"A budget's cap is {cap!r}; it takes at least 1, or no retry could ever be paid for.", do="Leave it at 10.")
        if not 0 <= start <= cap:
            raise ConfigError(f"A budget's start is {start!r}; it takes 0 to its cap, {cap:g}.", do="Leave it out.")
        self.ratio, self.cap, self.start = ratio, cap, start
        self.tokens = start
        self._lock = threading.Lock()

    def deposit(self) -> None:
        """A call succeeded. A hot path may skip this while `tokens >= cap`."""
        with self._lock:
            tokens = self.tokens + self.ratio
            self.tokens = tokens if tokens < self.cap else self.cap  # noqa: FURB136 - a call of min() costs more than the rest

    def withdraw(self) -> bool:
        """May one extra call be sent? True takes a token."""
        with self._lock:
            # Ten deposits of 0.1 add up to a hair less than 1 in binary.
            if self.tokens > 1 - 1e-9:
                self.tokens -= 1
                return True
            return False

    def give_back(self) -> None:
        """What `withdraw` took was not needed: the extra call was not sent."""
        with self._lock:
            self.tokens = min(self.cap, self.tokens + 1)

    def __repr__(self) -> str:
        return f"budget({self.ratio:g})"


class FadingBudget(Budget):
    """A bucket whose tokens fade: what was earned an hour ago does not pay for a storm now.

    A bucket that only fills is full after an hour of health, in every client. When the service goes down then, each spends its
    ten tokens, and ten thousand clients are a hundred thousand calls. Here each holds what its last `fade` seconds earned, so
    that a whole fleet, however many clients it has, holds `ratio * fade` seconds of its own load and no more.

    A client so sparse that it never holds a whole token sets aside what it has at each failure, until that is enough for one
    retry: of a client that calls every ten seconds about each third failed call is repeated (fade=30).

    Args:
        fade: seconds in which what is not spent loses about two thirds (1 - 1/e).
    """

    __slots__ = ("_earned", "_looked_at", "_set_aside", "fade")

    def __init__(self, ratio: float = DEFAULT_RATIO, *, cap: float = DEFAULT_CAP, start: float = DEFAULT_START, fade: float) -> None:
        super().__init__(ratio, cap=cap, start=start)
        if not fade > 0:
            raise ConfigError(f"A budget's fade is {fade!r}; it takes seconds above 0.", do="30.0 is a good one; None lets nothing fade.")
        self.fade = fade
        self._earned = 0
        self._set_aside = 0.0
        self._looked_at = self._now()

    def _now(self) -> float:
        return runtime.monotonic()

    def deposit(self) -> None:
        self._earned += 1  # without the lock: a count lost between two threads is on the safe side

    def withdraw(self) -> bool:
        with self._lock:
            now, earned = self._now(), self._earned
            passed, self._looked_at, self._earned = (now - self._looked_at) / self.fade, now, 0
            left = exp(-passed)
            # Since the last look they came in evenly, as far as we know, and the first of them have faded as well.
            faded = (1 - left) / passed if passed > 1e-6 else 1.0
            self.tokens = min(self.cap, self.tokens * left + earned * self.ratio * faded)
            if self.tokens > 1 - 1e-9:
                self.tokens -= 1
                return True
            self._set_aside += self.tokens
            self.tokens = 0.0
            if self._set_aside > 1 - 1e-9:
                self._set_aside -= 1
                return True
            return False

    def __repr__(self) -> str:
        return f"budget({self.ratio:g}, fade={self.fade:g})"


def budget(ratio: float = DEFAULT_RATIO, *, cap: float = DEFAULT_CAP, start: float = DEFAULT_START, fade: float | None = None) -> Budget:
    """A budget to share: give the same one to the retries and hedges of all functions that call one destination.

    fade: seconds after which what was earned is worth a third; see `FadingBudget`. None: it is kept until it is spent.
    """
    return Budget(ratio, cap=cap, start=start) if fade is None else FadingBudget(ratio, cap=cap, start=start, fade=fade)


_of_service: WeakValueDictionary[tuple[str, float], Budget] = WeakValueDictionary()
_lock = threading.Lock()


def for_service(name: str, ratio: float = DEFAULT_RATIO) -> Budget:
    """The process's one bucket of this destination; made when first asked for, gone when nobody uses it."""
    with _lock:
        found = _of_service.get((name, ratio))
        if found is None:
            found = _of_service[name, ratio] = Budget(ratio)
        return found
