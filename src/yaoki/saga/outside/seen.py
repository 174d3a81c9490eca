"""A run as the journal has it, folded: what may be said about it without driving it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from yaoki import runtime
from yaoki.errors import RunError, RunNotFoundError
from yaoki.saga.graph import Graph, Node
from yaoki.saga.machine import Machine, decide
from yaoki.saga.mapping import translated
from yaoki.saga.records import Header, Kind, Record, Stored

if TYPE_CHECKING:
    from yaoki.saga.journal.port import Journal

# How often the history is looked at for what was just said; twice as long each time, up to the second.
FIRST_LOOK_S, LAST_LOOK_S = 0.005, 0.25


class Seen(msgspec.Struct, frozen=True):
    """A run, and the machine that its history makes."""

    stored: Stored
    machine: Machine

    @property
    def header(self) -> Header:
        return self.stored.header

    def node(self, step: str) -> Node | None:
        number = self.machine.graph.index.get(step)
        return None if number is None else self.machine.graph.nodes[number]

    def last(self, kind: Kind, step: str) -> Record | None:
        return next((record for record in reversed(self.stored.records) if record.kind is kind and record.step == step), None)

    def waits_for(self) -> list[str]:
        """Names of steps that an answer would help on."""
        nodes = self.machine.graph.nodes
        return [node.name for node in nodes if node.waits == "signal" and self.machine.takes_answer(node.name)]


async def see(journal: Journal, run_id: str) -> Seen:
    """Raises RunNotFoundError, and RunError for a run whose definition the journal does not have."""
    stored = await journal.read(run_id)
    if stored is None:
        raise RunNotFoundError(f"there is no run {run_id!r}", do="check the id: `yk runs list`", run_id=run_id)
    graph = await journal.load_graph(stored.header.graph)
    if graph is None:
        raise RunError(f"the journal does not have the definition of run {run_id!r}", do="start a program that has its saga", run_id=run_id)
    stored.records = translated(stored.records)
    return Seen(stored, decide(Graph.from_json(graph), stored.records))


async def settled(look: Callable[[], Awaitable[bool]], wait_s: float) -> bool:
    """Look until it is settled, at most `wait_s` seconds. False: it is stored, and not carried out yet."""
    until, delay_s = runtime.monotonic() + wait_s, FIRST_LOOK_S
    while not await look():
        if runtime.monotonic() >= until:
            return False
        await runtime.sleep(delay_s)
        delay_s = min(2 * delay_s, LAST_LOOK_S)
    return True
