"""A deploy under runs in flight: what the new graph may change, on drawn graphs and histories."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yaoki.errors import RetryFromError
from yaoki.saga.deploy import differences, why_not
from yaoki.saga.graph import Graph, Node
from yaoki.saga.machine import Machine, decide
from yaoki.saga.records import Abort, Failure, Kind, Record, Waiting
from yaoki.saga.rewinding import Retry, retried

OLD = Graph("trip", (Node("hotel", undo=True, gives="Booking"), Node("flight", undo=True), Node("pay", ("hotel", "flight"), pivot=True),
                     Node("mail", ("pay",))))


def changed(**steps: Node | None) -> Graph:
    """OLD with these steps replaced (None: removed) or added at the end."""
    nodes = [steps.get(node.name, node) for node in OLD.nodes]
    more = [node for name, node in steps.items() if name not in OLD.index]
    return Graph("trip", tuple(node for node in [*nodes, *more] if node is not None))


@pytest.mark.parametrize(("new", "why"), [
    (OLD, []),
    (changed(survey=Node("survey", ("mail",))), []),
    (changed(mail=Node("mail", ())), []),
    (changed(hotel=Node("hotel", undo=True, gives="Room")), ["step hotel gave Booking, and gives Room"]),
    (changed(hotel=Node("hotel", gives="Booking")), ["step hotel could be undone, and has no undo any more"]),
    (changed(mail=None), ["step mail is gone"]),
    (changed(mail=Node("mail", ("pay",), waits="signal")), ["step mail did something, and now waited for an answer"]),
    (changed(pay=Node("pay", ("hotel", "flight"))), ["the point of no return was pay, and is nowhere"]),
    (Graph("trip", (Node("taxi"), *OLD.nodes)), ["step pay now needs taxi too"]),
])
def test_what_is_harmless_and_what_is_not(new: Graph, why: list[str]):
    assert differences(OLD, new) == why


def test_a_run_to_which_the_change_has_not_happened_yet_can_go_on_with_it():
    new = Graph("trip", (Node("taxi"), *OLD.nodes))
    early = [Record(Kind.DONE, "hotel", b"1")]
    late = [Record(Kind.DONE, name, b"1") for name in ("hotel", "flight", "pay")]
    assert why_not(early, OLD, new) == ""
    assert why_not(late, OLD, new) != ""


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 5))
    pivot = draw(st.integers(-1, count - 1))
    nodes = []
    for number in range(count):
        needs = tuple(f"s{n}" for n in range(number) if draw(st.booleans()))
        nodes.append(Node(f"s{number}", needs, undo=draw(st.booleans()), pivot=number == pivot,
                          waits="" if number == pivot else draw(st.sampled_from(("", "", "sleep", "signal")))))
    return Graph("drawn", tuple(nodes))


def mutated(graph: Graph, rng: Random) -> Graph:
    nodes = list(graph.nodes)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(nodes))
        node = nodes[at]
        change = rng.randrange(6)
        if change == 0:
            nodes[at] = msgspec.structs.replace(node, needs=node.needs[1:])
        elif change == 1 and at:
            nodes[at] = msgspec.structs.replace(node, needs=tuple(sorted({*node.needs, nodes[rng.randrange(at)].name})))
        elif change == 2:
            nodes.append(Node(f"new{len(nodes)}", (node.name,), undo=True))
        elif change == 3:
            nodes.insert(at, Node(f"in{len(nodes)}", undo=True))
        elif change == 4:
            nodes[at] = msgspec.structs.replace(node, undo=not node.undo)
        else:
            nodes[at] = msgspec.structs.replace(node, pivot=False)
    known: set[str] = set()
    kept = []
    for node in nodes:
        kept.append(msgspec.structs.replace(node, needs=tuple(sorted(set(node.needs) & known))))
        known.add(node.name)
    return Graph("drawn", tuple(kept))


def history_of(graph: Graph, rng: Random) -> list[Record]:
    """A history that a run of this graph may have had when the deploy came."""
    machine, history = Machine(graph), []
    for _ in range(rng.randint(0, 15)):
        options = []
        for name in [*machine.start, *machine.awaited]:
            node = graph.nodes[graph.index[name]]
            options.append(Record(Kind.WAITING, name, msgspec.json.encode(Waiting(1.0))) if node.waits else Record(Kind.DONE, name, b"1"))
            if machine.abort:
                options.append(Record(Kind.FAILED, name, msgspec.json.encode(Failure("X", in_doubt=True))))
        options += [Record(Kind.DONE, name, b"1") for name, _ in machine.ripe(5.0)]
        options += [Record(Kind.UNDONE, name) for name in machine.undo]
        started = tuple(name for name in machine.start if rng.random() < 0.5)
        if machine.abort is None and not machine.too_late(started) and rng.random() < 0.2:
            options = [Record(Kind.ABORT, "", msgspec.json.encode(Abort("x", started=started)))]
        elif (again := _retried(machine, started, rng)) is not None:
            options = [again]
        if machine.is_taken_back:
            options = [Record(Kind.ANEW)]
        if machine.state.is_end or not options:
            break
        record = rng.choice(options)
        history.append(record)
        machine.apply(record)
    return history


def _retried(machine: Machine, started: tuple[str, ...], rng: Random) -> Record | None:
    """Sometimes, a person has the run retried from a step."""
    if rng.random() >= 0.2:
        return None
    try:
        return retried(machine, Retry(rng.choice(machine.graph.names), str(rng.random())), started, 1.0)
    except RetryFromError:
        return None


@given(graphs(), st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_where_no_difference_is_found_every_history_of_the_old_graph_is_one_of_the_new(graph: Graph, seed: int):
    rng = Random(seed)
    new = mutated(graph, rng)
    if differences(graph, new):
        return
    decide(new, history_of(graph, rng))  # raises HistoryError where the claim is wrong
