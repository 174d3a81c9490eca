"""Where hosts are, how far it is from one to another, and what the network between them loses by itself.

    network = Network(zones={"eu": ["shop", "bank"], "us": ["archive"]}, between_s=0.08, loss=0.01)

    @scenario(network=network)
    async def main(world): ...
        world.partition("us")               # cut off from all other zones
        world.partition("us", "eu")         # ... and from one: then these two only
        world.heal()

A name is a host, a fake service, or a process. What has no zone is near everything. Loss, duplication and reordering are drawn from
a seed of their own, so a program that draws randomness finds the same numbers with them and without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import msgspec

from yaoki.chaos import faults
from yaoki.chaos.faults import At
from yaoki.errors import ConfigError

# One way over the simulated network, in seconds: longer than any computation here, shorter than any timeout.
LATENCY_S = 0.001
_LOST = "call.timeout:none"
_REPLY_LOST = "call.timeout:done"


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The network of a scenario.

    Args:
        zones: zone → names of the hosts, services and processes in it.
        latency_s: seconds one way, within a zone and where no other is given; above 0.
        between_s: one way between two different zones; None: as within one.
        links: one way between two names or zones, whichever comes first: `{("eu", "us"): 0.08, ("shop", "bank"): 0.2}`.
        hosts: added to each way to and from a host, for one that is slow: `{"bank": 0.5}`.
        loss, duplicate, reorder: shares of the requests in [0, 1) that are lost (half of them on the way back), delivered
            twice, or overtaken by what is sent with them.
        seed: of what is drawn.

    Raises:
        ConfigError: a share or a length that cannot be, or a name in two zones.
    """

    zones: Mapping[str, Sequence[str]] = {}
    latency_s: float = LATENCY_S
    between_s: float | None = None
    links: Mapping[tuple[str, str], float] = {}
    hosts: Mapping[str, float] = {}
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise ConfigError(f"{name}={share!r} is no share", do="give a number from 0 to below 1, such as 0.01")
        lengths = [self.latency_s, self.between_s or 0.0, *self.links.values(), *self.hosts.values()]
        if self.latency_s <= 0 or min(lengths) < 0:
            raise ConfigError(f"a latency of {min(lengths):g} s cannot be", do="latency_s is above 0, the others at least 0")
        named = [name for names in self.zones.values() for name in names]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ConfigError(f"{twice[0]!r} is in two zones", do="name each host in one zone")

    @property
    def is_noisy(self) -> bool:
        """Does anything depend on what is drawn?"""
        return bool(self.loss or self.duplicate or self.reorder)


class Topology:
    """The network of one universe: its settings, and the partitions of this moment."""

    def __init__(self, network: Network | None = None) -> None:
        self.network = network or Network()
        self.zone_of = {name: zone for zone, names in self.network.zones.items() for name in names}
        self._cuts: dict[tuple[str, str], float] = {}  # two zones (or one and "*", all others) → until
        self._rng = Random(self.network.seed) if self.network.is_noisy else None

    # ── how far ──

    def one_way_s(self, caller: str, service: str) -> float:
        """Seconds from one to the other."""
        network = self.network
        near, far = self.zone_of.get(caller, caller), self.zone_of.get(service, service)
        slow = network.hosts.get(caller, 0.0) + network.hosts.get(service, 0.0)
        for one, other in ((caller, service), (near, far), (near, service), (caller, far)):
            found = network.links.get((one, other), network.links.get((other, one)))
            if found is not None:
                return found + slow
        if network.between_s is not None and near != far and caller in self.zone_of and service in self.zone_of:
            return network.between_s + slow
        return network.latency_s + slow

    # ── partitions ──

    def cut(self, zones: Sequence[str], until: float) -> None:
        """Cut one zone off from all others, or several from each other."""
        for zone in zones:
            if zone not in self.network.zones:
                raise ConfigError(f"{zone!r} is no zone", do=f"one of {', '.join(self.network.zones) or 'Network(zones=...)'}")
        if len(zones) == 1:
            self._cuts[zones[0], "*"] = until
        for index, one in enumerate(zones):
            for other in zones[index + 1:]:
                self._cuts[one, other] = until

    def heal(self, *names: str) -> None:
        """End the partitions of these zones, or all."""
        for pair in [pair for pair in self._cuts if not names or pair[0] in names or pair[1] in names]:
            del self._cuts[pair]

    def calm(self) -> None:
        """No partitions and no noise any more."""
        self._cuts.clear()
        self._rng = None

    def is_cut(self, caller: str, service: str, now: float) -> bool:
        near, far = self.zone_of.get(caller), self.zone_of.get(service)
        if near == far:
            return False
        return any(now < until and ({one, other} == {near, far} or (other == "*" and one in {near, far}))
                   for (one, other), until in self._cuts.items())

    # ── what happens to a request ──

    def strike(self, service: str, caller: str, kind: At, now: float) -> tuple[str, bool]:
        """What happens to a request by itself, or "", and whether a fault may be added."""
        if self._cuts and self.is_cut(caller, service, now) and kind in faults.BY_ID[_LOST].at:
            return _LOST, False
        if self._rng is None:
            return "", True
        fault = self._drawn(self._rng.random(), self.network)
        if fault and kind not in faults.BY_ID[fault].at:
            fault = _LOST if kind in faults.BY_ID[_LOST].at and fault == _REPLY_LOST else ""
        return fault, not fault

    @staticmethod
    def _drawn(number: float, network: Network) -> str:
        for fault, share in ((_LOST, network.loss / 2), (_REPLY_LOST, network.loss / 2), ("call.duplicate", network.duplicate),
                             ("call.delay", network.reorder)):
            if number < share:
                return fault
            number -= share
        return ""

    def digest(self) -> str:
        return str(sorted(self._cuts))
