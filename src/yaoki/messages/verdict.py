"""What becomes of a message whose handler failed: pure.

    refused (breaker open, bulkhead full ...)   nothing was sent: try again later, and it does not count
    declined, or data that cannot be read       trying again changes nothing: give up at once
    newer version                               wait for a deploy: try again at the longest pause, for ever
    anything else                               try again after a growing pause, `attempts` times, then give up

Giving up means `quarantined` (the key waits, other keys go on) or `dead` (the key goes on), as the handler says.
"""

from __future__ import annotations

from random import Random  # noqa: TID251 (the caller gives it; the one made here draws a pause that is not used)

import msgspec

from yaoki.errors import ConfigError, DeclinedError, InputError, NewerVersionError, RefusedError
from yaoki.messages.store.port import Entry, Held

HISTORY = 10
"""Failures remembered with a held message. Ten show a pattern; a message that fails for a week must not grow."""
ERROR_CHARS = 500


class Retries(msgspec.Struct, frozen=True):
    """How often, and how long after, a failed message is tried again.

    Args:
        attempts: in all, the first included; at least 1.
        first_s: the pause after the first failure; it doubles each time.
        cap_s: the longest pause.
        poison: what giving up means: `quarantine` blocks the key, `skip` lets it go on.

    A quarter of each pause is drawn at random, so that what failed together does not come back together.
    """

    attempts: int = 8
    first_s: float = 0.5
    cap_s: float = 300.0
    poison: str = "quarantine"

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_s < 0 or self.cap_s < self.first_s:
            raise ConfigError(f"{self} cannot be: attempts count the first, and pauses grow from first_s to cap_s",
                              do="give attempts >= 1 and 0 <= first_s <= cap_s")
        if self.poison not in {"quarantine", "skip"}:
            raise ConfigError(f"poison={self.poison!r} is neither 'quarantine' nor 'skip'",
                              do="'quarantine' keeps the order of a key; 'skip' lets it go on without the message")

    def pause_s(self, attempt: int, rng: Random) -> float:
        """Seconds until the attempt after this one (from 1)."""
        full = min(self.cap_s, self.first_s * 2.0 ** min(attempt - 1, 60))
        return full * (1 - 0.25 * rng.random())


def after_failure(entry: Entry, before: Held | None, error: BaseException, retries: Retries, *, now: float,
                  rng: Random) -> Held:
    """The held row of a message after a failed attempt.

    Args:
        entry: the message. before: its held row, if it had failed before.
        now: seconds since 1970.
    """
    counts = not isinstance(error, RefusedError | NewerVersionError)
    attempts = entry.attempts + counts
    gives_up = isinstance(error, DeclinedError | InputError) or (counts and attempts >= retries.attempts)
    state = "retry" if not gives_up else "quarantined" if retries.poison == "quarantine" else "dead"
    past = before.history if before is not None else ()
    if before is not None and before.error:
        past = (*past, (before.due_at, before.error))[-HISTORY:]
    pause_s = retries.cap_s if isinstance(error, NewerVersionError) else retries.pause_s(max(1, attempts), rng)
    return Held(
        part=entry.part, position=entry.position, key=entry.message.key, state=state, attempts=attempts,
        due_at=now + max(pause_s, _asked_s(error)) if state == "retry" else now, error=describe(error),
        first_at=before.first_at if before is not None and before.first_at else now, history=past,
        replays=before.replays if before is not None else 0, data=before.data if before is not None else None)


DIED = "WorkerDied: its worker died while it was being handled"


def before_danger(entry: Entry, before: Held | None, retries: Retries, *, now: float, lease_s: float) -> Held:
    """What is written down before a message is handled that may have killed its worker: the failure, in advance.

    If the worker survives, this is replaced by what really came of it. If not, the message waits a lease and is tried
    again, and after `retries.attempts` of that it gives up like any other.
    """
    held = after_failure(entry, before, _Died(), retries, now=now, rng=Random(0))
    waits = held.state == "retry"
    return msgspec.structs.replace(held, error=DIED, due_at=now + lease_s if waits else now)


class _Died(Exception):
    """Stands in for the failure that nobody lives to tell."""


def describe(error: BaseException) -> str:
    """The error in one line, as it is kept and shown."""
    return f"{type(error).__name__}: {error}"[:ERROR_CHARS]


def _asked_s(error: BaseException) -> float:
    """How long a refusal asks to wait."""
    asked = error.fields.get("retry_after", 0.0) if isinstance(error, RefusedError) else 0.0
    return float(asked) if isinstance(asked, int | float) else 0.0
