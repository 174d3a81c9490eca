"""The lines between two neighbouring layers of boxes, on a grid of characters. "Row" is the place across the flow.

Vertices that lead to the same followers share one *net*: their lines meet in a trunk, from which a branch leads to each
follower. Read along the flow:

    hotel  ───┐
              ├──▶ payment           one trunk, two ways in, one out
    flight ───┘

Each trunk has a track of its own. What may touch what is decided so that nobody can read an edge that is not there:

1. A branch may not run over the line of another net's source in the same row: that net's trunk comes first.
2. Where nets share a target, a net with other targets may not be touched by a line that could turn into it: it comes
   first, and a second such net, or one that meets a line running along the whole row, takes a detour: through a free
   row beside its target, to a last track.
3. A circle of "comes first" is broken by a detour as well.
4. Each detour has a free row of its own, and detours to two targets do not overlap on the last track. Where there is no
   such row, the boxes have to stand further apart (`NoRoomError`).

Lines that merely cross are drawn as a bridge.

Source: the constraints are those of channel routing (Hashimoto and Stevens, Wire routing by optimizing channel
assignment within large apertures, DAC 1971).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class NoRoomError(Exception):
    """A detour has no free row. Never leaves `drawing`: the boxes are moved apart."""


class Net:
    """Sources that lead to the same targets.

    Attributes:
        sources, targets: their rows, ascending.
        detours: rows of targets that are reached on the last track, each with the free row that leads there.
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


def assign(nets: Sequence[Net], free: Mapping[int, Sequence[int]]) -> int:
    """Give each net its track and detours. Returns the number of tracks, the last one for detours included.

    Args:
        free: by target's row, the free rows that lead to it, best first.

    Raises:
        NoRoomError: there are too few.
    """
    lanes = _Lanes(nets, free)
    for row in sorted({row for net in nets for row in net.targets}):
        _share(row, [net for net in nets if row in net.targets], lanes)
    left, track = list(nets), 0
    while left:
        ready = [net for net in left if not _clashes(net, left)]
        if not ready:
            net = min(left, key=lambda net: (len(_clashes(net, left)), net.sources))
            for row in sorted(_clashes(net, left)):
                lanes.detour(net, row)
            continue
        for net in ready:
            net.track = track
            track += 0 if net.is_straight else 1
            left.remove(net)
    return track + any(net.detours for net in nets)


class _Lanes:
    """The free rows that detours take."""

    def __init__(self, nets: Sequence[Net], free: Mapping[int, Sequence[int]]) -> None:
        self._nets = nets
        self._free = free
        self._spans: dict[int, tuple[int, int]] = {}  # of each target on the last track
        self._used: set[int] = set()

    def detour(self, net: Net, row: int) -> None:
        others = {source for other in self._nets if other is not net for source in other.sources}
        for lane in self._free[row]:
            low, high = self._spans.get(row, (row, row))
            span = (min(low, lane), max(high, lane))
            if lane not in self._used and lane not in others and not self._overlaps(row, span):
                self._used.add(lane)
                self._spans[row] = span
                net.detours[row] = lane
                return
        raise NoRoomError

    def _overlaps(self, row: int, span: tuple[int, int]) -> bool:
        return any(span[0] <= high and low <= span[1] for other, (low, high) in self._spans.items() if other != row)


def _share(row: int, nets: list[Net], lanes: _Lanes) -> None:
    """Rule 2: of the nets with several targets, at most one reaches a shared target directly."""
    if len(nets) < 2:
        return
    keep = next((net for net in nets if net.runs_along(row)), None)
    for net in nets:
        if len(net.targets) > 1 and net is not keep:
            if keep is None:
                keep = net
            else:
                lanes.detour(net, row)


def _clashes(net: Net, others: Sequence[Net]) -> set[int]:
    """Rows of direct targets for which another net must have its track first."""
    rest = [other for other in others if other is not net]
    sources = {row for other in rest for row in other.sources}
    shared = {row for other in rest if len(other.targets) > 1 for row in other.direct} if len(net.targets) == 1 else set()
    return net.direct & (sources | shared)


def trunk(net: Net) -> tuple[int, int]:
    """First and last row of the net's trunk."""
    rows = [*net.sources, *net.direct, *net.detours.values()]
    return min(rows), max(rows)
