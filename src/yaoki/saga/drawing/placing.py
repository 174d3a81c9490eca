"""Where exactly each vertex stands within its layer: as near to its neighbours as order and room allow.

For one layer, with its neighbours fixed, that is a least-squares fit under minimum distances. Subtracting the distances
leaves isotonic regression, which pooling adjacent violators solves exactly and in one pass.

Source: Ayer, Brunk, Ewing, Reid and Silverman, An empirical distribution function for sampling with incomplete
information, Annals of Mathematical Statistics 26, 1955.
"""

from __future__ import annotations

from collections.abc import Sequence

from yaoki.saga.drawing.layers import Layered

# Sweeps over all layers; after these, nothing that the eye sees changes any more.
SWEEPS = 24

# How much an edge wants to be straight: between two boxes, a box and a point of a long edge, two such points.
# Source: Gansner, Koutsofios, North and Vo, A technique for drawing directed graphs, IEEE TSE 19, 1993, section 4.
STRAIGHT = (1.0, 2.0, 8.0)

# What stands alone takes the place that the others leave it, next to the one before.
ALONE = 1e-6


def place(graph: Layered, before: Sequence[int], after: Sequence[int], gap: int) -> list[int]:
    """A coordinate for each vertex; the smallest extent begins at 0.

    Args:
        before, after: how far each vertex reaches to both sides of its own coordinate.
        gap: free cells between two neighbours.
    """
    at = [0.0] * len(graph.needs)
    offsets = {}
    for number, layer in enumerate(graph.layers):
        offset, offsets[number] = 0, [0] * len(layer)
        for i, vertex in enumerate(layer):
            if i:
                offset += after[layer[i - 1]] + gap + 1 + before[vertex]
            offsets[number][i] = offset
            at[vertex] = offset
    for sweep in range(SWEEPS):
        numbers = range(len(graph.layers)) if sweep % 2 == 0 else range(len(graph.layers) - 1, -1, -1)
        for number in numbers:
            _fit(graph, number, offsets[number], at, both=sweep >= 2)
    whole = _rounded(graph, offsets, at)
    _straighten(graph, offsets, whole)
    least = min((whole[v] - before[v] for layer in graph.layers for v in layer), default=0)
    return [value - least for value in whole]


def _fit(graph: Layered, number: int, offsets: list[int], at: list[float], *, both: bool) -> None:
    wanted, weights = [], []
    for vertex, offset in zip(graph.layers[number], offsets, strict=True):
        near = [*graph.needs[vertex], *(graph.followers[vertex] if both else ())]
        pulls = [STRAIGHT[(vertex >= graph.size) + (n >= graph.size)] for n in near]
        total = sum(pulls)
        alone = not graph.needs[vertex] and not graph.followers[vertex]
        mean = sum(pull * at[n] for pull, n in zip(pulls, near, strict=True)) / total if total else at[vertex]
        wanted.append((0.0 if alone else mean) - offset)
        weights.append(total or ALONE)
    for vertex, value, offset in zip(graph.layers[number], isotonic(wanted, weights), offsets, strict=True):
        at[vertex] = value + offset


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing numbers that are nearest to `values`, by weighted squares."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values, weights, strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, heavy, many = pools.pop()
            total = heavy + pool[1]
            pool = ((mean * heavy + pool[0] * pool[1]) / total, total, many + pool[2])
        pools.append(pool)
    return [mean for mean, _, many in pools for _ in range(many)]


def _rounded(graph: Layered, offsets: dict[int, list[int]], at: list[float]) -> list[int]:
    """Whole cells. Rounding what is left after subtracting the distances keeps order and distances."""
    whole = [0] * len(at)
    for number, layer in enumerate(graph.layers):
        for vertex, offset in zip(layer, offsets[number], strict=True):
            # Not `round`: halves must all go the same way, or two boxes in line would be a cell apart.
            whole[vertex] = int((at[vertex] - offset + 1e-6 + 0.5) // 1) + offset
    return whole


def _straighten(graph: Layered, offsets: dict[int, list[int]], whole: list[int]) -> None:
    """Least squares share a bend out over a long edge. One bend is nicer than two: let each point follow the one before."""
    for number, layer in enumerate(graph.layers):
        for place, vertex in enumerate(layer):
            if vertex < graph.size:
                continue
            wanted = whole[graph.needs[vertex][0]]
            room = offsets[number]
            least = whole[layer[place - 1]] + room[place] - room[place - 1] if place else wanted
            most = whole[layer[place + 1]] - room[place + 1] + room[place] if place + 1 < len(layer) else wanted
            if least <= wanted <= most:
                whole[vertex] = wanted
