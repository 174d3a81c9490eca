"""How often a step, or its undo, is tried, and how long to wait between. A decider.

A step's retries are of another kind than a call's. The policy of a `Service` repeats one request within a second or two;
a step is driven, for hours if need be, always with the same idempotency key. So an error that a call's policy has
retried already is not retried again by a step's default; and after the pivot a step is driven until it succeeds.
"""

from __future__ import annotations

from random import Random  # noqa: TID251  the type; the source is an argument
from typing import Any

import msgspec

from yaoki.errors import ConfigError
from yaoki.policies import backoff
from yaoki.policies.backoff import Backoff
from yaoki.policies.retry import Retry

FOREVER = 1_000_000_000


class Retrying(msgspec.Struct, frozen=True):
    """Attempts and waits.

    Attributes:
        attempts: total, the first included.
        backoff: how long to wait between.
        again: retry also what a call's own policy gave up on.
    """

    attempts: int = 3
    backoff: Backoff = backoff.exponential(0.05, cap=2.0)
    again: bool = False

    @property
    def repeats(self) -> bool:
        return self.attempts > 1

    def delay(self, attempt: int, previous_s: float, retry_after_s: float, rng: Random) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1), or None to give up.

        previous_s: the last wait, 0 before the first. retry_after_s: what the service asked for at least.
        """
        if attempt >= self.attempts:
            return None
        return max(retry_after_s, self.backoff.delay(attempt, previous_s, rng))

    @staticmethod
    def of(setting: Any) -> Retrying:
        """What `retry=` may be: None (the default), a number of attempts, False (one), or a retry policy."""
        if setting is None:
            return DEFAULT
        if isinstance(setting, Retrying):
            return setting
        if setting is False:
            return Retrying(attempts=1)
        if isinstance(setting, int) and setting >= 1:
            return Retrying(attempts=int(setting), again=True)
        if isinstance(setting, Retry):
            return Retrying(setting.attempts, setting.backoff, again=True)
        raise ConfigError(f"retry= of a step is a number of attempts, False, or a retry policy, not {setting!r}",
                          do="retry=5, say, or retry=retry(5, backoff.exponential(0.1, cap=10.0))")


DEFAULT = Retrying()

# After the pivot: never give up, but do not knock more often than twice a minute.
FORWARD = Retrying(FOREVER, backoff.exponential(0.1, cap=30.0), again=True)

# An undo: about half an hour of trying (the waits average half of the cap), then a person is told.
UNDO = Retrying(120, backoff.exponential(0.1, cap=30.0), again=True)
