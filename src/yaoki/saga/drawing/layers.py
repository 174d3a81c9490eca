"""Which layer each node of a graph stands in, and in which order within it.

    needs ──▶ drop edges that others imply ──▶ layer = longest way from a root ──▶ order with few crossings

An edge that spans several layers is cut into a chain of points, one a layer; all long edges of one node share its chain.
A node's layer is the earliest at which it could start, so what stands in one column may run side by side.

Source: Sugiyama, Tagawa and Toda, Methods for visual understanding of hierarchical system structures, IEEE SMC 1981,
with the barycentre heuristic for crossings.
"""

from __future__ import annotations

from collections.abc import Sequence

# Each round looks once from the left and once from the right. Real sagas settle in two or three.
ROUNDS = 8


class Layered:
    """A graph in layers.

    Attributes:
        size: number of real nodes; vertices from there on are points of long edges.
        layers: vertices of each layer, in drawing order.
        followers, needs: for each vertex, its neighbours in the next and in the previous layer.
        edges: the edges that are drawn, between real nodes.
    """

    def __init__(self, needs: Sequence[Sequence[int]]) -> None:
        self.size = len(needs)
        reduced = without_implied(needs)
        self.edges = [(source, target) for target, sources in enumerate(reduced) for source in sources]
        self.layers: list[list[int]] = []
        self.followers: list[list[int]] = [[] for _ in needs]
        self.needs: list[list[int]] = [[] for _ in needs]
        self._stack(reduced)
        self._chain(reduced)
        self._order()

    def _stack(self, reduced: Sequence[Sequence[int]]) -> None:
        self.depth = [0] * self.size
        for node in range(self.size):
            self.depth[node] = 1 + max((self.depth[need] for need in reduced[node]), default=-1)
        self.layers = [[] for _ in range(max(self.depth, default=-1) + 1)]
        for node, depth in enumerate(self.depth):
            self.layers[depth].append(node)

    def _chain(self, reduced: Sequence[Sequence[int]]) -> None:
        chains: dict[tuple[int, int], int] = {}  # (source, layer) to the point of its long edges there
        for target in range(self.size):
            for source in reduced[target]:
                at = source
                for layer in range(self.depth[source] + 1, self.depth[target]):
                    at = self._point(chains, source, layer, at)
                self._join(at, target)

    def _point(self, chains: dict[tuple[int, int], int], source: int, layer: int, before: int) -> int:
        if (source, layer) not in chains:
            point = chains[source, layer] = len(self.followers)
            self.followers.append([])
            self.needs.append([])
            self.layers[layer].append(point)
            self._join(before, point)
        return chains[source, layer]

    def _join(self, source: int, target: int) -> None:
        self.followers[source].append(target)
        self.needs[target].append(source)

    def _order(self) -> None:
        if self.layers:
            self.layers[0].sort(key=lambda vertex: not self.followers[vertex])
        best, fewest = [layer.copy() for layer in self.layers], self.crossings()
        for _ in range(ROUNDS):
            if fewest == 0:
                break
            for numbers, neighbours in ((range(1, len(self.layers)), self.needs),
                                        (range(len(self.layers) - 2, -1, -1), self.followers)):
                for number in numbers:
                    self._sort(number, neighbours)
                    if (crossings := self.crossings()) < fewest:
                        best, fewest = [layer.copy() for layer in self.layers], crossings
        self.layers = best

    def _sort(self, number: int, neighbours: Sequence[Sequence[int]]) -> None:
        rank = {vertex: place for layer in self.layers for place, vertex in enumerate(layer)}
        layer = self.layers[number]
        mean = {v: sum(rank[n] for n in neighbours[v]) / len(neighbours[v]) if neighbours[v] else rank[v] for v in layer}
        for vertex in layer:
            if not self.needs[vertex] and not self.followers[vertex]:
                mean[vertex] = len(rank)  # what stands alone stands last, where no line has to pass it
        layer.sort(key=lambda vertex: mean[vertex])  # stable, so that ties stay in order of definition

    def crossings(self) -> int:
        """Pairs of edges that cross. Quadratic, for graphs that people look at."""
        rank = {vertex: place for layer in self.layers for place, vertex in enumerate(layer)}
        count = 0
        for layer in self.layers:
            ends = [(rank[v], rank[follower]) for v in layer for follower in self.followers[v]]
            count += sum(1 for i, (a, b) in enumerate(ends) for c, d in ends[:i] if (a - c) * (b - d) < 0)
        return count


def without_implied(needs: Sequence[Sequence[int]]) -> list[list[int]]:
    """The direct edges without those that follow from others (a → c, where a → b → c is there): the same order, less ink."""
    above: list[set[int]] = []
    for direct in needs:
        above.append(set(direct).union(*(above[need] for need in direct)))
    return [[need for need in direct if not any(need in above[other] for other in direct)] for direct in needs]
