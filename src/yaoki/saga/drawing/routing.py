"""The lines between two neighbouring layers of boxes, on a grid of characters.

Vertices that lead to the same followers share one *net*: their lines meet in a trunk, from which a branch leads to each
follower. Read along the flow:

    hotel  ───┐
              ├──▶ payment           one trunk, two ways in, one out
    flight ───┘

Each net's trunk has a track of its own. A branch may not run over the line of another net's source that lies in the same
row, or the two would read as one: so that other net's trunk must come first. Where that leads in a circle, the branch
takes a detour through the free row before its target and reaches it on a last track. Lines of two nets that merely cross
are drawn as a bridge.

Source: the constraints are those of channel routing (Hashimoto and Stevens, Wire routing by optimizing channel
assignment within large apertures, DAC 1971).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Net:
    """Sources that lead to the same targets. Rows are coordinates across the flow.

    Attributes:
        sources, targets: their rows.
        detours: rows of targets that are reached through the free row before them.
        track: number of the trunk's track, from 0.
    """

    sources: list[int]
    targets: list[int]
    detours: set[int] = field(default_factory=set)
    track: int = 0

    @property
    def is_straight(self) -> bool:
        return self.sources == self.targets and len(self.sources) == 1

    @property
    def trunk(self) -> tuple[int, int]:
        """First and last row that the trunk must reach. A detour leaves it in the free row, just before its target."""
        rows = [*self.sources, *(row for row in self.targets if row not in self.detours)]
        return min(rows), max(rows)


def nets_of(edges: Sequence[tuple[int, int]], rows: Mapping[int, int]) -> list[Net]:
    """Group the edges of one gap by equal sets of followers, in order of their rows."""
    followers: dict[int, list[int]] = {}
    for source, target in edges:
        followers.setdefault(source, []).append(target)
    groups: dict[tuple[int, ...], list[int]] = {}
    for source, targets in followers.items():
        groups.setdefault(tuple(sorted(targets)), []).append(source)
    nets = [Net(sorted(rows[s] for s in sources), sorted(rows[t] for t in targets)) for targets, sources in groups.items()]
    return sorted(nets, key=lambda net: (net.sources, net.targets))


def assign(nets: Sequence[Net]) -> int:
    """Give each net its track and detours. Returns the number of tracks, a last one for detours included."""
    left = list(nets)
    track = 0
    while left:
        free = [net for net in left if not _must_wait(net, left)]
        if not free:
            _detour(left)
            continue
        for net in sorted(free, key=lambda net: net.trunk):
            net.track = track
            track += 0 if net.is_straight else 1
            left.remove(net)
    return track + any(net.detours for net in nets)


def _must_wait(net: Net, others: Sequence[Net]) -> set[int]:
    """Rows of this net's targets in which another net's source must reach its own trunk first."""
    direct = set(net.targets) - net.detours
    return direct.intersection(*[{row for other in others if other is not net for row in other.sources}])


def _detour(left: Sequence[Net]) -> None:
    net = min(left, key=lambda net: (len(_must_wait(net, left)), net.sources))
    net.detours |= _must_wait(net, left)
