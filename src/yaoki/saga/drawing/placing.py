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
SWEEPS = 12


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
            _fit(graph, number, offsets[number], at, pull=sweep)
    return _rounded(graph, offsets, at, before)


def _fit(graph: Layered, number: int, offsets: list[int], at: list[float], *, pull: int) -> None:
    layer = graph.layers[number]
    wanted, weights = [], []
    for vertex in layer:
        near = [*graph.needs[vertex], *graph.followers[vertex]] if pull >= 2 else graph.needs[vertex]
        wanted.append(sum(at[n] for n in near) / len(near) if near else at[vertex])
        # A line that only passes wants to be straight more than a box wants to be in the middle.
        weights.append(4.0 if vertex >= graph.size else 1.0)
    fitted = isotonic([value - offset for value, offset in zip(wanted, offsets, strict=True)], weights)
    for vertex, value, offset in zip(layer, fitted, offsets, strict=True):
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


def _rounded(graph: Layered, offsets: dict[int, list[int]], at: list[float], before: Sequence[int]) -> list[int]:
    """Whole cells. Rounding what is left after subtracting the distances keeps order and distances."""
    whole = [0] * len(at)
    for number, layer in enumerate(graph.layers):
        for vertex, offset in zip(layer, offsets[number], strict=True):
            # Not `round`: halves must all go the same way, or two boxes in line would be a cell apart.
            whole[vertex] = int((at[vertex] - offset + 1e-6 + 0.5) // 1) + offset
    least = min((whole[v] - before[v] for layer in graph.layers for v in layer), default=0)
    return [value - least for value in whole]
