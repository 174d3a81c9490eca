"""Calls and policies: `service` names the downstream, `policy` the part of its pipeline."""

from __future__ import annotations

from yaoki.events.telling import Event


class CallEvent(Event, frozen=True, kw_only=True):
    """About one call to a service, or the policy that guards it."""

    service: str


class CallFinished(CallEvent, frozen=True, kw_only=True):
    """A whole call, all attempts included, ended.

    outcome: ok, ok_after_retry, failed, failed_after_retry, rejected_breaker, rejected_bulkhead, rejected_rate,
        rejected_throttle, deadline, cancelled.
    """

    outcome: str
    duration_s: float
    attempts: int = 1
    error: str = ""


class AttemptFailed(CallEvent, frozen=True, kw_only=True):
    """One attempt failed. classification: safe, ambiguous, throttled, permanent."""

    attempt: int
    error: str
    classification: str
    duration_s: float = 0.0


class RetryScheduled(CallEvent, frozen=True, kw_only=True):
    """Another attempt will be made after `delay_s`. `attempt` is the number of the one to come, from 2."""

    attempt: int
    delay_s: float
    error: str


class RetrySuppressed(CallEvent, frozen=True, kw_only=True):
    """A retry that the rules allow was not made. reason: budget, deadline, nested, not_idempotent, retry_after."""

    attempt: int
    reason: str
    error: str


class BreakerChanged(CallEvent, frozen=True, kw_only=True):
    """The circuit breaker changed state (closed, open, half_open, forced_open, forced_closed, disabled)."""

    before: str
    after: str
    reason: str
    open_for_s: float = 0.0


class SharedStateLost(CallEvent, frozen=True, kw_only=True):
    """The store of shared breakers cannot be reached: this node is on its own until it can."""

    error: str


class SharedStateRegained(CallEvent, frozen=True, kw_only=True):
    """The store of shared breakers answers again."""


class CallRejected(CallEvent, frozen=True, kw_only=True):
    """A policy refused a call before it was sent. policy: breaker, bulkhead, rate, throttle, deadline, limit, shed."""

    policy: str
    retry_after_s: float = 0.0


class HedgeSent(CallEvent, frozen=True, kw_only=True):
    """The call was slow (`delay_s`), or an attempt of it failed (0), so a copy was sent. `copy` counts from 2."""

    copy: int
    delay_s: float


class HedgeWon(CallEvent, frozen=True, kw_only=True):
    """A copy was answered first; the others were cancelled."""

    copy: int
    duration_s: float


class LimitChanged(CallEvent, frozen=True, kw_only=True):
    """The adaptive limit of calls under way moved by at least one. `rtt_s`: mean round trip of the window behind it."""

    before: int
    after: int
    rtt_s: float
    in_flight: int


class EndpointEjected(CallEvent, frozen=True, kw_only=True):
    """An endpoint failed so much that it gets nothing but a probe now and then. `times`: how often in a row."""

    endpoint: str
    for_s: float
    times: int
    error: str


class EndpointReturned(CallEvent, frozen=True, kw_only=True):
    """A probe of an ejected endpoint succeeded; its share grows back."""

    endpoint: str


class FallbackUsed(CallEvent, frozen=True, kw_only=True):
    """The call failed and the fallback gave the answer."""

    error: str


class FallbackFailed(CallEvent, frozen=True, kw_only=True):
    """The fallback raised. `exercise`: it was run for practice, and the caller did not notice."""

    error: str
    exercise: bool


class FallbackDiffered(CallEvent, frozen=True, kw_only=True):
    """Run for practice beside a healthy call, the fallback gave another result. `difference`: what the comparison said."""

    difference: str


class FallbackUnproven(CallEvent, frozen=True, kw_only=True):
    """The fallback has not once succeeded for `idle_s`, longer than its window: do not count on it."""

    idle_s: float


class StaleServed(CallEvent, frozen=True, kw_only=True):
    """A fetch failed and an expired value was served in its place. `age_s`: since it was fetched."""

    age_s: float
    error: str


class PushedUpdated(CallEvent, frozen=True, kw_only=True):
    """The local copy of pushed data was replaced. `bytes`: its size on disk, 0 when it is not saved."""

    bytes: int


class PushedFailed(CallEvent, frozen=True, kw_only=True):
    """The source of pushed data, or the disk, failed; the local copy stays as it is. `age_s`: how old that is."""

    error: str
    age_s: float


class PushedStale(CallEvent, frozen=True, kw_only=True):
    """The local copy is older than its alarm allows. It is still read until `valid_for_s` more seconds have passed."""

    age_s: float
    valid_for_s: float


class FaultInjected(CallEvent, frozen=True, kw_only=True):
    """A fault was made to happen on purpose. `fault` is an id of `yaoki.chaos.faults`."""

    fault: str
    where: str = ""
