"""The layout of pictures: layers, order, places. Properties of any graph, and the pictures that people see."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from yaoki.saga.drawing.layers import Layered, without_implied
from yaoki.saga.drawing.placing import isotonic, place


@st.composite
def graphs(draw: st.DrawFn, most: int = 12) -> list[list[int]]:
    """Direct needs of each node; a node needs only nodes before it."""
    size = draw(st.integers(1, most))
    return [sorted(draw(st.sets(st.integers(0, node - 1), max_size=4))) if node else [] for node in range(size)]


def reachable(needs: list[list[int]]) -> list[set[int]]:
    found: list[set[int]] = []
    for direct in needs:
        found.append(set(direct).union(*(found[need] for need in direct)))
    return found


@given(graphs())
def test_dropping_implied_edges_keeps_the_order_and_no_edge_too_many(needs: list[list[int]]):
    reduced = without_implied(needs)
    assert reachable(reduced) == reachable(needs)
    for node, direct in enumerate(reduced):
        for need in direct:
            fewer = [list(each) for each in reduced]
            fewer[node].remove(need)
            assert reachable(fewer) != reachable(needs), "this edge could go, and did not"


@given(graphs())
def test_every_edge_goes_one_layer_forward_through_points_of_its_own_source(needs: list[list[int]]):
    graph = Layered(needs)
    layer_of = {v: number for number, layer in enumerate(graph.layers) for v in layer}
    assert sorted(v for v in layer_of if v < graph.size) == list(range(len(needs)))
    for vertex, followers in enumerate(graph.followers):
        for follower in followers:
            assert layer_of[follower] == layer_of[vertex] + 1
            assert vertex in graph.needs[follower]
    for point in range(graph.size, len(graph.needs)):
        assert len(graph.needs[point]) == 1
    assert sorted(graph.edges) == sorted((need, node) for node, direct in enumerate(without_implied(needs)) for need in direct)


@given(graphs())
def test_a_node_stands_in_the_earliest_layer_in_which_it_could_start(needs: list[list[int]]):
    graph = Layered(needs)
    for node, direct in enumerate(needs):
        assert graph.depth[node] == 1 + max((graph.depth[need] for need in direct), default=-1)


@given(graphs())
def test_ordering_never_adds_crossings(needs: list[list[int]]):
    graph = Layered(needs)
    ordered = graph.crossings()
    graph.layers = [sorted(layer) for layer in graph.layers]
    assert ordered <= graph.crossings()


def test_ordering_takes_out_a_crossing_that_the_order_of_definition_has():
    graph = Layered([[], [], [1], [0]])
    assert graph.crossings() == 0


@given(graphs(), st.integers(0, 3), st.data())
def test_neighbours_keep_their_order_and_their_distance(needs: list[list[int]], gap: int, data: st.DataObject):
    graph = Layered(needs)
    sizes = st.integers(0, 5)
    before = [data.draw(sizes) for _ in graph.needs]
    after = [data.draw(sizes) for _ in graph.needs]
    at = place(graph, before, after, gap)
    for layer in graph.layers:
        for one, other in itertools.pairwise(layer):
            assert at[other] - before[other] - (at[one] + after[one]) >= gap + 1
    assert min(at[v] - before[v] for layer in graph.layers for v in layer) == 0


def test_a_chain_is_a_straight_line_and_a_join_is_in_the_middle():
    graph = Layered([[], [], [0, 1], [2]])
    at = place(graph, [1] * 4, [1] * 4, 1)
    assert at[2] == at[3] == (at[0] + at[1]) // 2


@given(st.lists(st.tuples(st.integers(-50, 50), st.floats(0.1, 5))))
def test_isotonic_regression_is_sorted_and_no_sorted_list_is_nearer(pairs: list[tuple[int, float]]):
    values, weights = [float(v) for v, _ in pairs], [w for _, w in pairs]
    fitted = isotonic(values, weights)
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(fitted))
    cost = sum(w * (v - f) ** 2 for v, f, w in zip(values, fitted, weights, strict=True))
    for other in (sorted(values), [sum(values) / len(values)] * len(values) if values else []):
        assert cost <= sum(w * (v - o) ** 2 for v, o, w in zip(values, other, weights, strict=True)) + 1e-6
