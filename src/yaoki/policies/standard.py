"""The pipeline to begin with: every part that a remote call needs, in the right order, with defaults that agree with each other.

    hotel = Service("hotel", policy=standard(5.0))

is

    deadline(5.0) > retry(3, budget=0.1) > breaker() > bulkhead(100, queue=100) > timeout(1.25)

so that a call is over after five seconds whatever happens, three attempts fit into them with what they wait for between, retries
add at most a tenth to the load, and a dead service costs its callers nothing but a refusal. Write your own `pipeline(...)` as soon as you know the service better.
"""

from __future__ import annotations

from datetime import timedelta

from yaoki.errors import ConfigError
from yaoki.policies.backoff import exponential
from yaoki.policies.breaker import breaker
from yaoki.policies.budget import DEFAULT_RATIO
from yaoki.policies.bulkhead import bulkhead
from yaoki.policies.deadline import deadline
from yaoki.policies.pipeline import Pipeline
from yaoki.policies.retry import retry
from yaoki.policies.timeout import timeout

# How the time of a call is shared out, so that all of it fits even when everything takes as long as it may.
ATTEMPTS_SHARE, PLACE_SHARE, WAITS_SHARE = 0.75, 0.15, 0.08


def standard(within: float | timedelta = 10.0, *, attempts: int = 3, attempt: float | timedelta | None = None,
             at_once: int = 100) -> Pipeline:
    """The pipeline to begin with; see above.

    Args:
        within: seconds for the whole call, all attempts and waits included.
        attempts: how often it is tried, at most; only when that can help and can do no harm.
        attempt: seconds for one; left out: so long that all of them fit.
        at_once: calls under way at the same time; as many again may wait a moment for a place.

    Raises:
        ConfigError: a setting is out of range, or one attempt takes longer than the whole.
    """
    within_s = within.total_seconds() if isinstance(within, timedelta) else within
    if not within_s > 0:
        raise ConfigError(f"standard() takes seconds above 0 for the whole call, not {within!r}.", do="10.0 is the default.")
    if attempts < 1:
        raise ConfigError(f"standard() makes at least 1 attempt, not {attempts!r}.", do="3 is the default.")
    given = attempt.total_seconds() if isinstance(attempt, timedelta) else attempt
    attempt_s = ATTEMPTS_SHARE * within_s / attempts if given is None else given
    if attempt_s > within_s:
        raise ConfigError(f"One attempt may take {attempt_s:g} s, and the whole call only {within_s:g} s.",
                          do="Give the whole call more time, or the attempt less.")
    cap_s = min(2.0, WAITS_SHARE * within_s / max(1, attempts - 1))
    return Pipeline(deadline(within_s), retry(attempts, exponential(min(0.05, cap_s), cap=cap_s), budget=DEFAULT_RATIO), breaker(),
                    bulkhead(at_once, queue=at_once, max_wait=PLACE_SHARE * within_s / attempts), timeout(attempt_s))
