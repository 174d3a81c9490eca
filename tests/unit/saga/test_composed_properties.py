"""The machine with steps made of parts and steps that start runs, under random histories: it never undoes what did not begin, and ends."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from yaoki.saga.graph import Graph, Node
from yaoki.saga.machine import Machine, decide
from yaoki.saga.parts.state import Part
from yaoki.saga.records import Abort, Failure, Kind, Record, Resolution, RunState, Waiting


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    nodes = []
    for number in range(draw(st.integers(1, 5))):
        needs = tuple(f"s{n}" for n in range(number) if draw(st.booleans()))
        shape: dict[str, Any] = draw(st.sampled_from(({}, {"parts": "each"}, {"parts": "flow"}, {"child": "c", "waits": "child"}, {"child": "c"})))
        nodes.append(Node(f"s{number}", needs, undo=True, **shape))
    return Graph("drawn", tuple(nodes))


class World:
    """Stands for the engine, the services and the children; knows which effects there are: `s1`, `s1/3`, or a child's."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph, self.rng = graph, Random(seed)
        self.history: list[Record] = []
        self.machine = Machine(graph)
        self.effects: set[str] = set()
        self.begun: set[str] = set()
        self.running: set[str] = set()  # steps that this process has begun
        self.faults = True

    def write(self, kind: Kind, step: str = "", data: Any = None) -> None:
        record = Record(kind, step, msgspec.json.encode(data))
        self.machine.apply(record)
        self.history.append(record)
        if (failed := self.machine.failed) or (kind is not Kind.ABORT and self.machine.abort is None and self.faults and self.rng.random() < 0.02):
            started = tuple(name for name in self.machine.start if name in self.running)
            self.write(Kind.ABORT, "", Abort("why", failed, started))

    def crash(self) -> None:
        """The process dies: what was under way may have had its effect."""
        perhaps = set(self.machine.start)
        for name in [*self.machine.start, *self.machine.awaited]:
            if self.graph.nodes[self.graph.index[name]].parts:
                under_way = [part for part, state in self.machine.parts_of(name).states.items() if state is Part.BEGUN]
                self.effects |= {f"{name}/{part}" for part in under_way if self.rng.random() < 0.5}
        self.machine = decide(self.graph, self.history)
        for name in self.machine.awaited:
            self.write(Kind.FAILED, name, Failure("ProcessDied", in_doubt=True))
        self.running = perhaps
        self.begun |= perhaps  # as far as anybody can tell; of parts it is known

    def act(self) -> None:
        machine, rng = self.machine, self.rng
        if self.faults and rng.random() < 0.05:
            self.crash()
        elif machine.blocked:
            self.write(Kind.RESOLVED, self.graph.names[rng.choice(machine.blocked)], Resolution("retry" if self.machine.abort else rng.choice(
                ("retry", "undone"))))
        elif machine.waits and rng.random() < 0.5:
            self.child_ends(self.graph.names[rng.choice(sorted(machine.waits))])
        elif machine.abort is None and machine.start:
            self.make(rng.choice(machine.start))
        elif machine.awaited:
            self.make(rng.choice(machine.awaited))
        elif machine.undo:
            self.unmake(rng.choice(machine.undo))

    # ── making ──

    def make(self, name: str) -> None:
        node, rng = self.graph.nodes[self.graph.index[name]], self.rng
        self.running.add(name)
        self.begun.add(name)
        if node.parts:
            self.make_parts(name)
        elif node.child:
            self.effects.add(name)
            self.write(*((Kind.WAITING, name, Waiting()) if node.waits else (Kind.DONE, name, "id")))
        else:
            happened = rng.random() < 0.8 or not self.faults
            self.effects |= {name} if happened else set()
            self.write(*((Kind.DONE, name) if happened else (Kind.FAILED, name, Failure("X", in_doubt=False))))

    def make_parts(self, name: str) -> None:
        """A few parts begin and end; then perhaps the step ends too, with nothing under way."""
        parts, rng = self.machine.parts_of(name), self.rng
        under_way = [part for part, state in parts.states.items() if state is Part.BEGUN]
        if self.machine.abort is None and len(parts.states) < 6 and rng.random() < 0.6:
            part = f"p{len(parts.states)}"
            self.begun.add(f"{name}/{part}")
            self.write(Kind.STARTED, f"{name}/{part}", {})
        elif under_way:
            part = rng.choice(under_way)
            if rng.random() < 0.8 or not self.faults or f"{name}/{part}" in self.effects:
                self.effects.add(f"{name}/{part}")
                self.write(Kind.DONE, f"{name}/{part}", 1)
            else:
                in_doubt = f"{name}/{part}" in self.effects or rng.random() < 0.5
                self.effects |= {f"{name}/{part}"} if in_doubt and rng.random() < 0.5 else set()
                self.write(Kind.FAILED, f"{name}/{part}", Failure("X", in_doubt=in_doubt))
        elif failed := [part for part, state in parts.states.items() if state is Part.DOUBTFUL]:
            self.unmake_part(name, failed[0])  # a failed part leaves nothing
        else:
            fails = self.faults and rng.random() < 0.2
            kind = Kind.BLOCKED if fails and rng.random() < 0.3 else Kind.FAILED if fails else Kind.DONE
            self.write(kind, name, Failure("X", in_doubt=parts.left > 0) if fails else [1])

    # ── undoing ──

    def unmake(self, name: str) -> None:
        node = self.graph.nodes[self.graph.index[name]]
        assert name in self.begun, f"{name} is undone, and never began"
        for follower in self.graph.followers[self.graph.index[name]]:
            assert not any(effect.partition("/")[0] == self.graph.names[follower] for effect in self.effects), "undone out of order"
        if node.parts and (left := self.machine.parts_of(name).to_undo()):
            self.unmake_part(name, left[0])
        elif node.child:
            self.write(Kind.WAITING, name, Waiting())
        else:
            self.effects.discard(name)
            self.write(Kind.UNDONE, name)

    def unmake_part(self, name: str, part: str) -> None:
        assert f"{name}/{part}" in self.begun, f"{name}/{part} is undone, and never began"
        self.effects.discard(f"{name}/{part}")
        self.write(Kind.UNDONE, f"{name}/{part}")

    def child_ends(self, name: str) -> None:
        undone = self.machine.abort is not None or (self.faults and self.rng.random() < 0.2)
        if undone:
            self.effects.discard(name)
        assert self.machine.hears(name, undone=undone)
        aborted = self.machine.abort
        self.write(Kind.SIGNAL, name, {"undone": undone})
        if self.machine.abort is not aborted:
            return  # cancelled in this moment: the wait is over
        (ripe,) = [each for each, _ in self.machine.ripe(0.0)]
        assert ripe == name
        self.write(*((Kind.UNDONE, name) if self.machine.abort else (Kind.FAILED, name, Failure("ChildUndone")) if undone else (Kind.DONE, name, 1)))


@given(graphs(), st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_never_undone_what_did_not_begin_and_every_run_ends_with_all_or_nothing(graph: Graph, seed: int):
    world = World(graph, seed)
    for step in range(3000):
        if world.machine.state.is_end:
            break
        world.faults = step < 200
        world.act()
    machine = world.machine
    assert machine.state.is_end, world.history
    if machine.state is RunState.COMPLETED:
        assert all(node.parts or node.name in world.effects for node in graph.nodes)
        assert all(machine.parts_of(name).is_done(part) for name, _, part in (effect.partition("/") for effect in world.effects) if part)
    else:
        assert world.effects == set()
    again = decide(graph, world.history)
    assert (again.steps, again.doubt, again.state) == (machine.steps, machine.doubt, machine.state)


@given(graphs(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_completed_run_can_be_undone_as_a_whole(graph: Graph, seed: int):
    world = World(graph, seed)
    world.faults = False
    for _ in range(3000):
        if world.machine.state.is_end:
            break
        world.act()
    assert world.machine.state is RunState.COMPLETED
    world.write(Kind.ABORT, "", Abort("the parent is undone", whole=True))
    for _ in range(3000):
        if world.machine.state.is_end:
            break
        world.act()
    assert world.machine.state is RunState.UNDONE
    assert world.effects == set()
