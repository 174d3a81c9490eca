"""How often a step, or its undo, is tried, and how long to wait between. A decider.

A step's retries are of another kind than a call's. The policy of a `Service` repeats one request within a second or two;
a step is driven, for hours if need be, always with the same idempotency key. So an error that a call's policy has
retried already is not retried again by a step's default; and after the pivot a step is driven until it succeeds.

    wait before attempt n+1 = U(0, min(cap_s, first_s * 2**(n-1)))        full jitter, the cap first

Source of the formula: AWS Architecture Blog, Exponential Backoff and Jitter, 2015.
"""

from __future__ import annotations

from random import Random  # noqa: TID251  the type; the source is an argument
from typing import Any

import msgspec

from yaoki.errors import ConfigError

FOREVER = 1_000_000_000


class Retrying(msgspec.Struct, frozen=True):
    """Attempts and waits.

    Attributes:
        attempts: total, the first included.
        first_s, cap_s: the longest first wait, and the longest wait of all.
        again: retry also what a call's own policy gave up on.
    """

    attempts: int = 3
    first_s: float = 0.05
    cap_s: float = 2.0
    again: bool = False

    @property
    def repeats(self) -> bool:
        return self.attempts > 1

    def delay(self, attempt: int, retry_after_s: float, rng: Random) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1), or None to give up."""
        if attempt >= self.attempts:
            return None
        # 2**30 doublings are past every cap, and keep the power from growing without bound.
        return max(retry_after_s, rng.uniform(0.0, min(self.cap_s, self.first_s * 2.0 ** min(attempt - 1, 30))))

    @staticmethod
    def of(setting: Any) -> Retrying:
        """What `retry=` may be: None (the default), a number of attempts, False (one), or a `Retrying`."""
        if setting is None:
            return DEFAULT
        if isinstance(setting, Retrying):
            return setting
        if setting is False:
            return Retrying(attempts=1)
        if isinstance(setting, int) and setting >= 1:
            return Retrying(attempts=int(setting), again=True)
        attempts = getattr(setting, "attempts", None)  # a retry policy: its attempts, with a step's waits
        if isinstance(attempts, int):
            return Retrying(attempts=attempts, again=True)
        raise ConfigError(f"retry= of a step is a number of attempts, False, or a retry policy, not {setting!r}",
                          do="retry=5, say; the waits between are a Retrying(attempts=5, first_s=0.05, cap_s=2.0)")


DEFAULT = Retrying()

# After the pivot: never give up, but do not knock more often than twice a minute.
FORWARD = Retrying(attempts=FOREVER, first_s=0.1, cap_s=30.0, again=True)

# An undo: about half an hour of trying (the waits average half of the cap), then a person is told.
UNDO = Retrying(attempts=120, first_s=0.1, cap_s=30.0, again=True)
