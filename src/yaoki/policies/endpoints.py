"""Choose one of several endpoints for each call: the better of two drawn at random, sick ones out, all others in use.

    cost(endpoint) = latency · (calls under way + 1) / health²        the lower of two draws is taken

    in use ──`failures` in a row, or a success rate far below the others'──▶ ejected ──its time is over──▶ on probation
       ▲                                                                                                        │
       └──────────────── a probe succeeds: health grows back over `recover_s` ──────────────────────────────────┘
                                    a probe fails: ejected again, for twice as long

Two draws are enough to avoid the herd that "send to the best" makes, and need no common view. Latency is the peak-sensitive
average of Finagle: it jumps up at once and comes down slowly, so a stalled endpoint is left alone after one slow call.

The zone of the caller is preferred, never exclusively: a share of calls always crosses, so no path is cold when it is
needed. When more than `most_ejected` of them would be out, none more is ejected: then the fault is more likely ours, the
network's or everyone's, and sending all to the few that are left would finish those too (Envoy's panic threshold).

Source: Mitzenmacher, "The power of two choices in randomized load balancing" (2001); Finagle, Peak EWMA; Envoy, outlier
detection and zone-aware routing.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import exp
from typing import Generic, TypeVar

from yaoki.errors import ConfigError, RefusedError
from yaoki.policies.scope import PATIENCE
from yaoki.runtime import Random

E = TypeVar("E", bound=Hashable)


class Endpoint(Generic[E]):
    """What is known of one endpoint. Latencies in seconds, instants on the caller's monotonic clock."""

    __slots__ = ("back_at", "chosen_at", "ejections", "failures", "health", "in_flight", "latency_at", "latency_s", "out",
                 "probe_at", "target", "weight", "zone")

    def __init__(self, target: E, zone: str = "", weight: float = 1.0) -> None:
        self.target = target
        self.zone = zone
        self.weight = weight
        self.in_flight = 0
        self.failures = 0
        self.health = 1.0
        """Average of recent successes (1) and failures (0)."""
        self.latency_s = 0.0
        self.latency_at = float("-inf")
        self.ejections = 0
        self.out = False
        """Ejected: it gets nothing but a probe now and then, until one succeeds."""
        self.probe_at = float("-inf")
        """When the next probe may go there. A probe under way moves it on, so one that hangs is not the last."""
        self.chosen_at = float("-inf")
        self.back_at = float("-inf")
        """When it came back into use; its share grows from then on."""

    def __repr__(self) -> str:
        return f"Endpoint({self.target!r}, health={self.health:.2f}, in_flight={self.in_flight})"


class Lease(Generic[E]):
    """One call under way to one endpoint."""

    __slots__ = ("at", "endpoint", "probe")

    def __init__(self, endpoint: Endpoint[E], at: float, *, probe: bool) -> None:
        self.endpoint = endpoint
        self.at = at
        self.probe = probe


class Endpoints(Generic[E]):
    """Choose, and learn from what comes of it.

    Args:
        endpoints: at least one.
        zone: the caller's; "" for no preference.
        crossing: share of calls that leave the caller's zone while it is healthy, in [0, 1].
        failures: this many in a row eject an endpoint.
        worse_by: an endpoint is ejected, too, when its health is this much below the mean of the others.
        eject_s: seconds of the first ejection; doubled each time, up to `eject_cap_s`.
        most_ejected: largest share of endpoints out at once, in [0, 1).
        recover_s: seconds in which a returned endpoint grows back to its full share.
        decay_s: time constant of what is known: latencies sink and health recovers so fast while nothing is heard.
        warm_s: an endpoint in use that was not chosen for this long is chosen next, so that none is ever cold.
    """

    __slots__ = ("_turn", "crossing", "decay_s", "eject_cap_s", "eject_s", "endpoints", "failures", "most_ejected", "outs",
                 "recover_s", "warm_s", "worse_by", "zone")

    def __init__(self, endpoints: Sequence[Endpoint[E]], *, zone: str = "", crossing: float = 0.05, failures: int = 5,
                 worse_by: float = 0.3, eject_s: float = 10.0, eject_cap_s: float = 300.0, most_ejected: float = 0.5,
                 recover_s: float = 10.0, decay_s: float = 10.0, warm_s: float = 10.0) -> None:
        for name, share in (("crossing", crossing), ("most_ejected", most_ejected)):
            if not 0 <= share <= 1:
                raise ConfigError(f"{name}={share!r} is not a share in [0, 1]", do="give a share, such as 0.05")
        self.endpoints: list[Endpoint[E]] = []
        self.outs = 0  # how many of them are out
        self._turn = 0
        self.replace(endpoints)
        self.zone = zone
        self.crossing = crossing
        self.failures = failures
        self.worse_by = worse_by
        self.eject_s = eject_s
        self.eject_cap_s = eject_cap_s
        self.most_ejected = most_ejected
        self.recover_s = recover_s
        self.decay_s = decay_s
        self.warm_s = warm_s

    def replace(self, endpoints: Sequence[Endpoint[E]]) -> None:
        """Choose among these from now on. Raises ConfigError when there are none, or one is named twice."""
        if not endpoints:
            raise ConfigError("no endpoints to choose from", do="give at least one, better three")
        if len({each.target for each in endpoints}) != len(endpoints):
            raise ConfigError("an endpoint is named twice", do="name each once, and give weight= to those that bear more")
        self.endpoints = list(endpoints)
        self.outs = sum(1 for each in endpoints if each.out)

    # ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def choose(self, now: float, rng: Random, *, but: Sequence[E] = ()) -> Lease[E]:
        """The endpoint of the next call, not one of `but` (those tried before). RefusedError when none is left."""
        able = self.endpoints
        if but or self.outs:
            probe = self._due_probe(now, but)
            if probe is not None:
                probe.probe_at = now + self.eject_s
                return self._lease(probe, now, probe=True)
            able = self._able(but)
        # Each call looks at one endpoint, in turn: has it rested for too long?
        self._turn += 1
        looked_at = able[self._turn % len(able)]
        if now - looked_at.chosen_at >= self.warm_s:
            return self._lease(looked_at, now, probe=False)
        near = self._near(able, rng) if self.zone else able
        first = near[int(rng.random() * len(near))]
        if len(near) > 1:
            second = near[int(rng.random() * (len(near) - 1))]
            if second is first:
                second = near[-1]
            if self.cost(second, now) < self.cost(first, now):
                first = second
        return self._lease(first, now, probe=False)

    def _able(self, but: Sequence[E]) -> list[Endpoint[E]]:
        """Those that may be chosen: in use and not tried before; if there is none, not tried before."""
        left = [each for each in self.endpoints if each.target not in but]
        if not left:
            raise RefusedError("every endpoint was tried", do="look at the errors of each attempt, in the notes", tried=len(but))
        # All that is left is out: better a sick endpoint than no answer.
        return [each for each in left if not each.out] or left

    def _near(self, able: list[Endpoint[E]], rng: Random) -> list[Endpoint[E]]:
        """Those in the caller's zone, unless this call is one of the few that cross, or the zone cannot bear it."""
        near = [each for each in able if each.zone == self.zone]
        if not near or len(near) == len(able):
            return able
        at_home = sum(1 for each in self.endpoints if each.zone == self.zone)
        # What the home zone has lost flows over to the others, in proportion.
        stay = (1.0 - self.crossing) * len(near) / at_home
        if rng.random() < stay:
            return near
        return [each for each in able if each.zone != self.zone]

    def _due_probe(self, now: float, but: Sequence[E]) -> Endpoint[E] | None:
        """An ejected endpoint whose time is over and that nobody tries now."""
        for each in self.endpoints:
            if each.out and each.probe_at <= now and each.target not in but:
                return each
        return None

    def _lease(self, endpoint: Endpoint[E], now: float, *, probe: bool) -> Lease[E]:
        endpoint.in_flight += 1
        endpoint.chosen_at = now
        return Lease(endpoint, now, probe=probe)

    def cost(self, endpoint: Endpoint[E], now: float) -> float:
        """What sending one more call there costs; only the comparison of two means anything."""
        fades = exp((endpoint.latency_at - now) / self.decay_s)
        latency_s = endpoint.latency_s * fades + 1e-3
        health = 1.0 - (1.0 - endpoint.health) * fades
        cost = latency_s * (endpoint.in_flight + 1) / (endpoint.weight * max(0.05, health) ** 2)
        back_s = now - endpoint.back_at
        return cost if back_s >= self.recover_s else cost * self.recover_s / max(back_s, 0.05 * self.recover_s)

    # ── learning ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def succeeded(self, lease: Lease[E], now: float) -> bool:
        """The endpoint answered. True when this brought it back into use."""
        each = lease.endpoint
        each.in_flight -= 1
        each.failures = 0
        each.health += (1.0 - each.health) * 0.05
        self._saw(each, now - lease.at, now)
        if not lease.probe:
            return False
        if each.out:
            each.out = False
            self.outs -= 1
        each.health = max(each.health, 0.5)
        each.back_at = now
        return True

    def failed(self, lease: Lease[E], now: float) -> bool:
        """The endpoint failed, as an endpoint: a refusal for a business reason is a success. True when it was ejected."""
        each = lease.endpoint
        each.in_flight -= 1
        each.failures += 1
        each.health *= 0.95
        self._saw(each, now - lease.at, now)
        if lease.probe and each.out:
            self._eject(each, now)
            return True
        if each.out:
            return False
        sick = each.failures >= self.failures or self._far_below(each)
        if not sick or self.outs + 1 > self.most_ejected * len(self.endpoints):
            return False
        self._eject(each, now)
        return True

    def is_late(self, lease: Lease[E], now: float) -> bool:
        """Has the call taken much longer than the slowest of all usually does? False while no latency is known."""
        usual_s = max(each.latency_s for each in self.endpoints)
        return now - lease.at > PATIENCE * usual_s > 0

    def dropped(self, lease: Lease[E]) -> None:
        """The call was cancelled or lost a race: it says nothing about the endpoint."""
        lease.endpoint.in_flight -= 1
        if lease.probe:
            lease.endpoint.probe_at = lease.at  # the next call probes it instead

    def _eject(self, each: Endpoint[E], now: float) -> None:
        if not each.out and now - each.back_at > self.eject_cap_s:
            each.ejections = 0  # it behaved for so long that this is a new fault, not the old one
        each.ejections += 1
        each.failures = 0
        if not each.out:
            each.out = True
            self.outs += 1
        each.probe_at = now + min(self.eject_cap_s, self.eject_s * 2.0 ** (each.ejections - 1))

    def _far_below(self, each: Endpoint[E]) -> bool:
        others = [other.health for other in self.endpoints if other is not each]
        return bool(others) and each.health < sum(others) / len(others) - self.worse_by

    def _saw(self, each: Endpoint[E], latency_s: float, now: float) -> None:
        """Peak-sensitive average: up at once, down with time constant `decay_s`."""
        if latency_s > each.latency_s:
            each.latency_s = latency_s
        else:
            keep = exp(-max(0.0, now - each.latency_at) / self.decay_s)
            each.latency_s = each.latency_s * keep + latency_s * (1.0 - keep)
        each.latency_at = now
