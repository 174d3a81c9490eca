"""The circuit breaker's decider: may a call be made?

                 failure rate, or slow rate, over the window
        closed ─────────────────────────────────────────────▶ open ◀──────────────┐
          ▲                                                     │ open time over  │ a probe failed:
          │ the probes succeeded                                ▼                 │ open for longer
          └───────────────────────────────────────────────── half-open ──────────┘

- Every admission carries the *epoch* in which it was given; results of an older epoch are dropped, because they tell of a
  service as it was before the state changed.
- Half-open lets exactly `probes` calls through. A probe is a *lease*: if it is neither answered nor cancelled within
  `probe_lease_s` (its process died, its thread hangs), its place is given to another call.
- The open time doubles with each failed try, up to a cap, and is drawn from its upper half (equal jitter), so that a fleet
  does not come back in step.
- Set by hand: `forced_open`, `disabled` (lets everything through, counts nothing), `metrics_only` (counts, and tells when it
  would have opened, but never refuses).

Source: M. Nygard, Release It!, 2nd ed., ch. 5; epochs as in gobreaker's generations; slow calls and metrics-only as in resilience4j.
"""

from __future__ import annotations

import threading
from typing import Literal, NamedTuple

from yaoki.policies.window import FAILED, OK, SLOW, Window
from yaoki.runtime import Random

State = Literal["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"]
FORCED: tuple[State, ...] = ("forced_open", "disabled", "metrics_only")


class Change(NamedTuple):
    """The state changed, or (`metrics_only`) would have."""

    before: State
    after: State
    reason: str
    open_for_s: float = 0.0


class Refusal(Exception):
    """Not admitted. `retry_after_s`: seconds until it is worth asking again; 0.0 if nobody knows."""

    def __init__(self, state: State, retry_after_s: float, reason: str) -> None:
        super().__init__(reason)
        self.state, self.retry_after_s, self.reason = state, retry_after_s, reason


class Probe:
    """A call let through to see whether the service is back. `change`: what letting it through changed."""

    __slots__ = ("change", "epoch", "expires")

    def __init__(self, epoch: int, expires: float) -> None:
        self.epoch = epoch
        self.expires = expires
        self.change: Change | None = None


Permit = int | Probe
"""The epoch of an ordinary call, or a probe."""


class Circuit:
    """Decides whether a call may be made. Never calls, sleeps or reads a clock. Thread-safe: each method holds a lock briefly.

    Args:
        window: what counts the calls.
        minimum: calls in the window before a rate means anything, at least 1.
        failure_rate: share of failures that opens it, in (0, 1].
        slow_s, slow_rate: a call that succeeds but takes longer than `slow_s` seconds is slow; the share of slow and failed
            calls that opens it. None: slowness is not looked at.
        open_for_s, open_cap_s: first and longest open time, above 0.
        probes: calls let through half-open, all of which must end well for it to close, at least 1.
        probe_lease_s: how long a probe may stay unanswered.
    """

    __slots__ = ("_answered", "_leases", "_lock", "_opened_times", "_would_open", "epoch", "failure_rate", "gate", "minimum",
                 "open_cap_s", "open_for_s", "open_until", "probe_lease_s", "probes", "reason", "slow_rate", "slow_s",
                 "state", "window")

    def __init__(self, window: Window, *, minimum: int, failure_rate: float, slow_s: float | None, slow_rate: float,
                 open_for_s: float, open_cap_s: float, probes: int, probe_lease_s: float) -> None:
        self.window, self.minimum, self.failure_rate = window, minimum, failure_rate
        self.slow_s = float("inf") if slow_s is None else slow_s
        self.slow_rate = slow_rate
        self.open_for_s, self.open_cap_s, self.probes, self.probe_lease_s = open_for_s, open_cap_s, probes, probe_lease_s
        self.state: State = "closed"
        self.epoch = 0
        self.gate = False
        """Must a call ask `admit`? False (closed): its permit is simply the `epoch`, which is one read instead of a call."""
        self.open_until = 0.0
        self.reason = ""
        self._opened_times = 0
        self._leases: tuple[Probe, ...] = ()
        self._answered = 0
        self._would_open = False
        self._lock = threading.Lock()

    # ── admission ────────────────────────────────────────────────────────────────────────────────────────────────────

    def admit(self, now: float) -> Permit:
        """A permit, which must end in exactly one of succeeded, failed, dropped.

        Raises:
            Refusal: open, or half-open with all probes under way.
        """
        with self._lock:
            if self.state in ("closed", "disabled", "metrics_only"):
                return self.epoch
            if self.state == "forced_open":
                raise Refusal(self.state, 0.0, self.reason)
            change = None
            if self.state == "open":
                if now < self.open_until:
                    raise Refusal(self.state, self.open_until - now, self.reason)
                change = self._become("half_open", "its open time is over")
            return self._probe(now, change)

    def _probe(self, now: float, change: Change | None) -> Probe:
        self._leases = tuple(probe for probe in self._leases if probe.expires > now)
        if len(self._leases) + self._answered >= self.probes:
            soonest = min((probe.expires for probe in self._leases), default=now)
            raise Refusal("half_open", max(0.0, soonest - now), "probes are under way")
        probe = Probe(self.epoch, now + self.probe_lease_s)
        probe.change = change
        self._leases = (*self._leases, probe)
        assert len(self._leases) + self._answered <= self.probes
        return probe

    # ── the end of a call ────────────────────────────────────────────────────────────────────────────────────────────

    def succeeded(self, permit: Permit, now: float, took_s: float, rng: Random) -> Change | None:
        """The call ended well after `took_s` seconds."""
        slow = took_s >= self.slow_s
        with self._lock:
            if permit == self.epoch:
                if self.state != "disabled":
                    self.window.add(SLOW if slow else OK, now)
                return self._evaluate(now, rng) if slow else None
            return self._answer(permit, not slow, now, rng) if isinstance(permit, Probe) else None

    def failed(self, permit: Permit, now: float, rng: Random) -> Change | None:
        """The call failed in a way that speaks against the service."""
        with self._lock:  # never a bare acquire(): Ctrl-C right after it would leave the lock held for ever
            if permit == self.epoch:
                if self.state != "disabled":
                    self.window.add(FAILED, now)
                return self._evaluate(now, rng)
            return self._answer(permit, False, now, rng) if isinstance(permit, Probe) else None

    def dropped(self, permit: Permit) -> None:
        """The call was cancelled, or never sent: neither success nor failure. A probe's place is free again."""
        if isinstance(permit, Probe):
            with self._lock:
                self._leases = tuple(each for each in self._leases if each is not permit)

    def _evaluate(self, now: float, rng: Random) -> Change | None:
        window = self.window
        if window.total < self.minimum:
            self._would_open = False
            return None
        if window.failed >= self.failure_rate * window.total:
            reason = f"{window.failed} of the last {window.total} calls failed"
        elif self.slow_s < float("inf") and window.slow + window.failed >= self.slow_rate * window.total:
            reason = f"{window.slow + window.failed} of the last {window.total} calls failed or took longer than {self.slow_s:g} s"
        else:
            self._would_open = False
            return None
        if self.state == "closed":
            return self._open(reason, now, rng)
        if self.state == "metrics_only" and not self._would_open:
            self._would_open = True  # told once, until the rate has been low again
            return Change("metrics_only", "metrics_only", f"would open: {reason}")
        return None

    def _answer(self, probe: Probe, ok: bool, now: float, rng: Random) -> Change | None:  # noqa: FBT001
        if probe.epoch != self.epoch or self.state != "half_open" or probe not in self._leases:
            return None  # its lease ran out, or the state has changed without it
        self._leases = tuple(each for each in self._leases if each is not probe)
        if not ok:
            return self._open("a probe failed", now, rng)
        self._answered += 1
        if self._answered < self.probes:
            return None
        self._opened_times = 0
        self.window.clear(now)
        return self._become("closed", "the probes succeeded")

    def is_against(self, now: float) -> bool:
        """Does it know anything against the service at `now`? Open, until its open time is over; half-open, while a probe is under way.

        It goes half-open when it is asked for a call. One that nobody asks stays open for ever, and has long known nothing.
        """
        with self._lock:
            if self.state == "open":
                return now < self.open_until
            return self.state == "half_open" and any(probe.expires > now for probe in self._leases)

    # ── changing state ───────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self, reason: str, now: float, rng: Random) -> Change:
        longest_s = min(self.open_cap_s, self.open_for_s * 2.0 ** min(self._opened_times, 64))
        open_for_s = longest_s / 2 + rng.random() * longest_s / 2
        self._opened_times += 1
        self.open_until = now + open_for_s
        return self._become("open", reason)._replace(open_for_s=open_for_s)

    def _become(self, state: State, reason: str) -> Change:
        change = Change(self.state, state, reason)
        self.state, self.reason = state, reason
        self.gate = state not in ("closed", "metrics_only", "disabled")
        self.epoch += 1
        self._leases = ()
        self._answered = 0
        self._would_open = False
        return change

    def force(self, state: State, reason: str, now: float) -> Change | None:
        """Set the state by hand: one of FORCED, or "closed" to let it decide for itself again, with a clean window.

        Returns the change, or None if it was in that state already.
        """
        assert state in (*FORCED, "closed")
        with self._lock:
            if self.state == state:
                return None
            self.window.clear(now)
            self._opened_times = 0
            return self._become(state, reason)

    def open_now(self, reason: str, open_for_s: float, now: float) -> Change | None:
        """Open for a while because somebody else knows better (a health check, the votes of other processes).

        It becomes half-open by itself. Does nothing to a state that was set by hand. While it is open already, the time is
        only ever made longer.
        """
        with self._lock:
            if self.state in FORCED:
                return None
            if self.state == "open":
                self.open_until = max(self.open_until, now + open_for_s)
                return None
            self.open_until = now + open_for_s
            self._opened_times += 1
            return self._become("open", reason)._replace(open_for_s=open_for_s)
