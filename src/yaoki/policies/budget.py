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
from weakref import WeakValueDictionary

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

    def __repr__(self) -> str:
        return f"budget({self.ratio:g})"


def budget(ratio: float = DEFAULT_RATIO, *, cap: float = DEFAULT_CAP, start: float = DEFAULT_START) -> Budget:
    """A budget to share: give the same one to the retries and hedges of all functions that call one destination."""
    return Budget(ratio, cap=cap, start=start)


_of_service: WeakValueDictionary[tuple[str, float], Budget] = WeakValueDictionary()
_lock = threading.Lock()


def for_service(name: str, ratio: float = DEFAULT_RATIO) -> Budget:
    """The process's one bucket of this destination; made when first asked for, gone when nobody uses it."""
    with _lock:
        found = _of_service.get((name, ratio))
        if found is None:
            found = _of_service[name, ratio] = Budget(ratio)
        return found
