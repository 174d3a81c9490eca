"""The lines between two neighbouring layers of boxes, on a grid of characters. "Row" is the place across the flow.

Vertices that lead to the same followers share one *net*: their lines meet in a trunk, from which a branch leads to each
follower. Read along the flow:

    hotel  ───┐
              ├──▶ payment           one trunk, two ways in, one out
    flight ───┘

Each trunk has a track of its own. What may touch what is decided so that nobody can read an edge that is not there:

1. A branch may not run over the line of another net's source in the same row: that net's trunk comes first.
2. Where nets share a target, a net with other targets may not be touched by a line that could turn into it: it comes
   first, and a second such net, or one that meets a line running along the whole row, takes a detour: through the free
   row beside its target, to a last track.
3. A circle of "comes first" is broken by a detour as well.

Lines that merely cross are drawn as a bridge.

Source: the constraints are those of channel routing (Hashimoto and Stevens, Wire routing by optimizing channel
assignment within large apertures, DAC 1971).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Net:
    """Sources that lead to the same targets.

    Attributes:
        sources, targets: their rows, ascending.
        detours: rows of targets that are reached on the last track, each with the side (-1 before, 1 after) of the
            free row that leads there.
        track: number of the trunk's track, from 0.
    """

    def __init__(self, sources: list[int], targets: list[int]) -> None:
        self.sources = sources
        self.targets = targets
        self.detours: dict[int, int] = {}
        self.track = 0

    @property
    def is_straight(self) -> bool:
        return len(self.sources) == 1 and self.sources == self.targets

    @property
    def direct(self) -> set[int]:
        return set(self.targets) - self.detours.keys()

    def runs_along(self, row: int) -> bool:
        return row in self.sources and row in self.direct


def nets_of(edges: Sequence[tuple[int, int]], rows: Sequence[int]) -> list[Net]:
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
    """Give each net its track and detours. Returns the number of tracks, the last one for detours included."""
    for row in sorted({row for net in nets for row in net.targets}):
        _share(row, [net for net in nets if row in net.targets])
    left, track = list(nets), 0
    while left:
        free = [net for net in left if not _clashes(net, left)]
        if not free:
            net = min(left, key=lambda net: (len(_clashes(net, left)), net.sources))
            for row in sorted(_clashes(net, left)):
                _detour(net, row, nets)
            continue
        for net in free:
            net.track = track
            track += 0 if net.is_straight else 1
            left.remove(net)
    return track + any(net.detours for net in nets)


def _share(row: int, nets: list[Net]) -> None:
    """Rule 2: of the nets with several targets, at most one reaches a shared target directly."""
    if len(nets) < 2:
        return
    keep = next((net for net in nets if net.runs_along(row)), None)
    for net in nets:
        if len(net.targets) > 1 and net is not keep:
            if keep is None:
                keep = net
            else:
                _detour(net, row, nets)


def _clashes(net: Net, others: Sequence[Net]) -> set[int]:
    """Rows of direct targets for which another net must have its track first."""
    rest = [other for other in others if other is not net]
    sources = {row for other in rest for row in other.sources}
    shared = {row for other in rest if len(other.targets) > 1 for row in other.direct} if len(net.targets) == 1 else set()
    return net.direct & (sources | shared)


def _detour(net: Net, row: int, nets: Sequence[Net]) -> None:
    taken = {other.detours[row] for other in nets if row in other.detours}
    net.detours[row] = 1 if -1 in taken and 1 not in taken else -1


def trunk(net: Net, free: Mapping[tuple[int, int], int]) -> tuple[int, int]:
    """First and last row of the net's trunk. `free`: the free row at (target's row, side)."""
    rows = [*net.sources, *net.direct, *(free[row, side] for row, side in net.detours.items())]
    return min(rows), max(rows)
