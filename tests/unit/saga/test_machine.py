"""The machine, alone: drawn graphs, drawn outcomes, drawn crashes. Time and I/O do not exist here."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yaoki.saga.graph import Graph, Node
from yaoki.saga.machine import HistoryError, Machine, decide
from yaoki.saga.records import Abort, Failure, Kind, Record, Resolution, RunState


def done(step: str, result: bytes = b"1") -> Record:
    return Record(Kind.DONE, step, result)


def failed(step: str, *, in_doubt: bool = False) -> Record:
    return Record(Kind.FAILED, step, msgspec.json.encode(Failure("Boom", in_doubt=in_doubt)))


def blocked(step: str, *, undo: bool = False) -> Record:
    return Record(Kind.BLOCKED, step, msgspec.json.encode(Failure("Bug", undo=undo)))


def resolved(step: str, decision: str) -> Record:
    return Record(Kind.RESOLVED, step, msgspec.json.encode(Resolution(decision)))


def abort(*started: str, cancelled: bool = False) -> Record:
    return Record(Kind.ABORT, "", msgspec.json.encode(Abort("because", started=started, cancelled=cancelled)))


def undone(step: str) -> Record:
    return Record(Kind.UNDONE, step)


TRIP = Graph("trip", (
    Node("hotel", undo=True),
    Node("flight", undo=True),
    Node("points", ("flight",), undo=True),
    Node("payment", ("hotel", "points"), pivot=True),
    Node("ticket", ("payment",)),
))


def test_steps_without_needs_start_together_and_others_when_their_needs_are_done():
    machine = Machine(TRIP)
    assert machine.start == ["hotel", "flight"]
    machine.apply(done("flight"))
    assert machine.start == ["hotel", "points"]
    machine.apply(done("points"))
    assert machine.start == ["hotel"]
    machine.apply(done("hotel"))
    assert machine.start == ["payment"]


def test_a_run_completes_when_every_step_is_done():
    machine = decide(TRIP, [done(name) for name in ("hotel", "flight", "points", "payment", "ticket")])
    assert machine.state is RunState.COMPLETED
    assert machine.start == []


def test_undo_goes_in_reverse_order_of_the_graph_branches_side_by_side():
    machine = decide(TRIP, [done("hotel"), done("flight"), done("points"), failed("payment"), abort()])
    assert machine.undo == ["points", "hotel"]
    machine.apply(undone("points"))
    assert set(machine.undo) == {"hotel", "flight"}
    machine.apply(undone("hotel"))
    machine.apply(undone("flight"))
    assert machine.state is RunState.UNDONE


def test_a_step_is_undone_only_after_all_that_follow_it():
    fan = Graph("fan", (Node("root", undo=True), Node("a", ("root",), undo=True), Node("b", ("root",), undo=True),
                        Node("end", ("a", "b"), undo=True)))
    machine = decide(fan, [done("root"), done("a"), done("b"), failed("end"), abort()])
    assert set(machine.undo) == {"a", "b"}
    machine.apply(undone("a"))
    assert machine.undo == ["b"]
    machine.apply(undone("b"))
    assert machine.undo == ["root"]


def test_a_started_sibling_is_awaited_before_any_undo():
    machine = decide(TRIP, [done("flight"), failed("hotel"), abort("points")])
    assert machine.awaited == ["points"]
    assert machine.undo == []
    machine.apply(done("points"))
    assert machine.undo == ["points"]


def test_a_step_that_was_never_started_is_never_undone():
    machine = decide(TRIP, [done("flight"), failed("hotel"), abort()])
    assert machine.undo == ["flight"]


def test_a_failed_step_in_doubt_is_undone_as_doubtful():
    machine = decide(TRIP, [done("flight"), failed("hotel", in_doubt=True), abort()])
    assert set(machine.undo) == {"hotel", "flight"}
    assert machine.is_doubtful("hotel")
    assert not machine.is_doubtful("flight")


def test_after_the_pivot_a_run_cannot_be_aborted():
    history = [done(name) for name in ("hotel", "flight", "points", "payment")]
    machine = decide(TRIP, history)
    assert machine.past_pivot
    with pytest.raises(HistoryError):
        machine.apply(abort())


@pytest.mark.parametrize("pivot", [blocked("payment"), failed("payment", in_doubt=True)])
def test_a_pivot_that_may_have_happened_and_has_no_undo_cannot_be_aborted(pivot: Record):
    machine = decide(TRIP, [done("hotel"), done("flight"), done("points"), pivot])
    assert machine.too_late(())
    with pytest.raises(HistoryError):
        machine.apply(abort())


def test_a_pivot_is_aborted_before_it_begins_and_not_while_it_may_be_running():
    history = [done("hotel"), done("flight"), done("points")]
    assert not decide(TRIP, history).too_late(())
    assert decide(TRIP, history).too_late(["payment"])


def test_a_blocked_step_waits_for_a_person_and_goes_on():
    machine = decide(TRIP, [done("flight"), blocked("hotel")])
    assert machine.state is RunState.BLOCKED
    assert machine.start == ["points"]
    machine.apply(resolved("hotel", "retry"))
    assert machine.state is RunState.RUNNING
    assert "hotel" in machine.start


def test_a_blocked_step_resolved_as_undone_is_a_failure_that_left_nothing():
    machine = decide(TRIP, [done("flight"), blocked("hotel"), resolved("hotel", "undone")])
    assert machine.failed == "hotel"
    machine.apply(abort())
    assert machine.undo == ["flight"]


def test_a_step_that_a_person_had_retried_is_undone_in_doubt_even_if_the_abort_comes_first():
    machine = decide(TRIP, [done("flight"), blocked("hotel"), resolved("hotel", "retry"), abort(cancelled=True)])
    assert set(machine.undo) == {"hotel", "flight"}
    assert machine.is_doubtful("hotel")


def test_a_blocked_undo_resolved_as_done_keeps_the_effect_and_undoes_the_rest():
    machine = decide(TRIP, [done("flight"), done("points"), failed("hotel"), abort(), blocked("points", undo=True)])
    assert machine.state is RunState.BLOCKED
    machine.apply(resolved("points", "done"))
    assert machine.undo == ["flight"]


@pytest.mark.parametrize("history", [
    [done("payment")],
    [done("hotel"), done("hotel")],
    [undone("hotel")],
    [Record(Kind.DONE, "car")],
    [failed("hotel"), abort(), abort()],
])
def test_an_impossible_history_is_refused(history: list[Record]):
    with pytest.raises(HistoryError):
        decide(TRIP, history)


# ── drawn ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(1, 6))
    pivot = draw(st.integers(-1, size - 1))
    nodes = []
    for number in range(size):
        needs = draw(st.sets(st.sampled_from(range(number)))) if number else set()
        nodes.append(Node(f"s{number}", tuple(f"s{n}" for n in sorted(needs)), undo=draw(st.booleans()) or number < pivot,
                          pivot=number == pivot))
    return Graph("drawn", tuple(nodes))


class World:
    """A stand-in for the engine and the services: acts on what the machine says, at drawn moments, with drawn outcomes.

    It knows what no engine knows: which effects exist.
    """

    def __init__(self, graph: Graph, draw: st.DrawFn) -> None:
        self.graph = graph
        self.draw = draw
        self.history: list[Record] = []
        self.machine = Machine(graph)
        self.running: list[str] = []
        self.started: set[str] = set()
        self.perhaps: set[str] = set()  # ready when a process died
        self.effects: set[str] = set()
        self.faults = True

    def write(self, *records: Record) -> None:
        for record in records:
            self.machine.apply(record)
            self.history.append(record)
        if failed_step := self.machine.failed:
            assert failed_step in self.started or any(r.kind is Kind.RESOLVED for r in self.history)
            self.write(abort(*self.begun()))
        self.settle()

    def settle(self) -> None:
        lost = [name for name in self.machine.awaited if name not in self.running]
        if lost:
            self.write(*(failed(name, in_doubt=True) for name in lost))

    def begun(self) -> list[str]:
        return [name for name in self.machine.start if name in self.running or name in self.perhaps]

    def step(self) -> None:
        machine = self.machine
        undoing = machine.abort is not None
        wanted = [name for name in (machine.undo if undoing else machine.start) if name not in self.running]
        moves = [("begin", name) for name in wanted] + [("end", name) for name in self.running]
        if self.faults and self.draw(st.integers(0, 9)) == 0:  # rare, so that runs come far before they fail
            moves.append(("crash", ""))
            if not undoing and not machine.past_pivot:
                moves.append(("cancel", ""))
        moves += [("resolve", self.graph.names[number]) for number in machine.blocked]
        if not moves and self.faults:
            moves.append(("crash", ""))
        if not moves:
            raise AssertionError(f"stuck in {machine.state}: {self.history}")
        move, name = self.draw(st.sampled_from(moves))
        getattr(self, move)(name)

    def begin(self, name: str) -> None:
        if self.machine.abort is None:
            self.started.add(name)
        else:
            self.check_undo(name)
        self.running.append(name)

    def check_undo(self, name: str) -> None:
        assert name in self.started or name in self.perhaps, f"{name} was never started, and is undone"
        assert not [other for other in self.running if not self.is_undo(other)], "a sibling is still running"
        for follower in self.graph.followers[self.graph.index[name]]:
            assert self.graph.names[follower] not in self.effects or not self.graph.nodes[follower].undo, "undone out of order"

    def is_undo(self, name: str) -> bool:
        return self.machine.abort is not None and name not in self.machine.awaited

    def end(self, name: str) -> None:
        self.running.remove(name)
        undo = self.is_undo(name)
        outcome = self.draw(st.sampled_from(["ok"] * 6 + ["failed", "doubt", "bug"])) if self.faults else "ok"
        if undo:
            self.write(undone(name) if outcome != "bug" else blocked(name, undo=True))
            if outcome != "bug":
                self.effects.discard(name)
            return
        if outcome in {"ok", "bug"} or (outcome == "doubt" and self.draw(st.booleans())):
            self.effects.add(name)
        node = self.graph.nodes[self.graph.index[name]]
        if self.machine.past_pivot:
            self.write(done(name) if outcome == "ok" else blocked(name))
        elif node.pivot and not node.undo and outcome in {"doubt", "failed"}:
            # Only its answer ends the doubt: it is repeated until the service says yes or no, and it says no of nothing that it did.
            if outcome == "doubt" or name in self.effects:
                self.perhaps.add(name)
            else:
                self.write(failed(name))
        else:
            # What an earlier process may have begun stays in doubt whatever this attempt says (`attempt.py`).
            record = {"ok": done(name), "failed": failed(name, in_doubt=name in self.perhaps), "doubt": failed(name, in_doubt=True), "bug": blocked(name)}
            self.write(record[outcome])

    def crash(self, _: str) -> None:
        """The process dies: what ran may have had its effect. The next one knows only the history."""
        for name in self.running:
            if not self.is_undo(name) and self.draw(st.booleans()):
                self.effects.add(name)
        self.running = []
        self.machine = decide(self.graph, self.history)
        self.perhaps |= set(self.machine.start)
        self.settle()

    def cancel(self, _: str) -> None:
        pivoting = any(self.graph.nodes[self.graph.index[name]].pivot for name in self.running)
        if not pivoting and not self.machine.too_late(self.begun()):
            self.write(abort(*self.begun(), cancelled=True))

    def resolve(self, name: str) -> None:
        self.write(resolved(name, "retry"))


@settings(max_examples=400, deadline=None)
@given(graphs(), st.data())
def test_whatever_happens_every_run_ends_and_leaves_all_or_nothing(graph: Graph, data: st.DataObject):
    world = World(graph, data.draw)
    for _ in range(data.draw(st.integers(0, 40))):
        if world.machine.state.is_end:
            break
        world.step()
    world.faults = False  # with the faults over, every run ends
    for _ in range(200):
        if world.machine.state.is_end:
            break
        world.step()
    state = world.machine.state
    assert state.is_end
    if state is RunState.COMPLETED:
        assert world.effects == set(graph.names)
    else:
        undoable = {node.name for node in graph.nodes if node.undo}
        pivot = {node.name for node in graph.nodes if node.pivot}
        assert not world.effects & (undoable | pivot), "what cannot be undone exists, and the run says undone"
        assert state is (RunState.CANCELLED if world.machine.abort and world.machine.abort.cancelled else RunState.UNDONE)
    # The fold of the whole history is the machine that acted: nothing was known that is not written down.
    again = decide(graph, world.history)
    assert (again.steps, again.doubt, again.state) == (world.machine.steps, world.machine.doubt, world.machine.state)


@settings(max_examples=100, deadline=None)
@given(graphs(), st.data())
def test_a_history_cut_anywhere_is_a_history(graph: Graph, data: st.DataObject):
    world = World(graph, data.draw)
    for _ in range(12):
        if world.machine.state.is_end:
            break
        world.step()
    cut = data.draw(st.integers(0, len(world.history)))
    machine = decide(graph, world.history[:cut])
    assert not machine.state.is_end or cut == len(world.history)
