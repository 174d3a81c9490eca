"""What rules for a while: outages, services that flap, partitions between hosts and zones, a network that loses.

    a call ──▶ is a fault planned here? ──no──▶ does anything rule? ──▶ outage ▸ partition ▸ the network's own noise

A universe has conditions only once something has made them, so one without asks a single attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yaoki.chaos import faults
from yaoki.chaos.faults import At

if TYPE_CHECKING:
    from yaoki.explore.topology import Topology

# Calls that an outage lasts where neither plan nor scenario says.
OUTAGE_CALLS = 5
REQUEST_LOST = "call.timeout:none"
# What an outage does to each call; by default what its id says after `dep.outage:`.
_INSTEAD = {"dep.flap": "call.error", "res.disk_quota": "disk.full"}


class Outage:
    """One service that fails for a number of calls.

    Args:
        fault: what happens to each call. left: how many are still to come. flaps: every other call goes through.
    """

    __slots__ = ("fault", "flaps", "left")

    def __init__(self, fault: str, left: int, *, flaps: bool = False) -> None:
        self.fault = fault
        self.left = left
        self.flaps = flaps

    def __repr__(self) -> str:
        return f"{self.fault}×{self.left}{'~' if self.flaps else ''}"

    def next(self) -> str:
        """What happens to the next call, or ""."""
        self.left -= 1
        return self.fault if not self.flaps or self.left % 2 == 0 else ""


class Conditions:
    """The conditions of one universe. Services are known by name; so are the callers: processes, or hosts that call on."""

    def __init__(self, topology: Topology | None = None) -> None:
        self.outages: dict[str, Outage] = {}
        self.cuts: dict[str, tuple[str, float]] = {}  # service → (what happens to a request, until)
        self.topology = topology

    def begin_outage(self, service: str, spec: str) -> str:
        """Begin the outage that a plan calls `spec`; what happens to the call that it begins with."""
        fault = faults.find(spec)
        count = spec.removeprefix(fault.id).removeprefix(":")
        inner = _INSTEAD.get(fault.id) or fault.id.removeprefix(faults.OUTAGE)
        calls = int(count) if count else OUTAGE_CALLS
        flaps = fault.id == "dep.flap"
        # That many calls fail; those that go through in between come on top.
        self.outages[service] = Outage(inner, 2 * (calls - 1) if flaps else calls - 1, flaps=flaps)
        return inner

    def cut(self, service: str, fault: str, until: float) -> None:
        """Let `fault` happen to every request to `service` until then."""
        self.cuts[service] = fault, until

    def heal(self, *names: str) -> None:
        """End partitions: of these services and zones, or all."""
        for name in names or list(self.cuts):
            self.cuts.pop(name, None)
        if self.topology is not None:
            self.topology.heal(*names)

    def clear(self) -> None:
        """Everything is well again."""
        self.outages.clear()
        self.cuts.clear()
        if self.topology is not None:
            self.topology.calm()

    def strike(self, service: str, caller: str, kind: At, now: float) -> tuple[str, bool]:
        """What happens to a request, or "", and whether another fault could have been added to it."""
        outage = self.outages.get(service)
        if outage is not None:
            if outage.left <= 1:
                del self.outages[service]
            if outage.left:
                return outage.next(), False
        if service in self.cuts:
            inner, until = self.cuts[service]
            if now < until:
                return inner, False
            del self.cuts[service]
        if self.topology is not None:
            return self.topology.strike(service, caller, kind, now)
        return "", True

    def digest(self) -> str:
        """What rules, without for how long: two states that differ only in time count as one."""
        zones = "" if self.topology is None else self.topology.digest()
        return f"{sorted(map(repr, self.outages.items()))}{sorted(self.cuts)}{zones}"
