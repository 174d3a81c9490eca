"""May runs that were started with one graph go on with another? A decider, for deploys.

A run knows its finished steps by name, so most changes are harmless. What must hold is that every history the old graph allows
is one that the new graph allows too:

- a step that may be in a history is still there, gives the same type, and waits for the same kind of thing;
- what has an undo still has one, and what has none gets none: a run that is undoing itself may be past it;
- the point of no return is where it was;
- no step needs more than before: otherwise a history may hold it without what it now needs.

New steps may be added where nothing old needs them; needs may be dropped; code may change as it likes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.saga.graph import Graph, Node
from yaoki.saga.machine import HistoryError, decide
from yaoki.saga.records import Record

if TYPE_CHECKING:
    from yaoki.saga.define import Saga


def differences(old: Graph, new: Graph) -> list[str]:
    """Why runs of `old` cannot simply go on with `new`; empty: all of them can, wherever they are."""
    if old.hash == new.hash:
        return []
    found = [each for number, node in enumerate(old.nodes) for each in _of_step(old, number, node, new)]
    pivots = [graph.names[graph.pivot] if graph.pivot >= 0 else "" for graph in (old, new)]
    if pivots[0] != pivots[1]:
        found.append(f"the point of no return was {pivots[0] or 'nowhere'}, and is {pivots[1] or 'nowhere'}")
    return found


def _of_step(old: Graph, number: int, node: Node, new: Graph) -> list[str]:
    if node.name not in new.index:
        return [f"step {node.name} is gone"]
    now = new.nodes[new.index[node.name]]
    found = []
    if now.gives != node.gives:
        found.append(f"step {node.name} gave {node.gives or 'anything'}, and gives {now.gives or 'anything'}")
    if now.waits != node.waits:
        found.append(f"step {node.name} {_waits(node)}, and now {_waits(now)}")
    if (now.child, now.parts) != (node.child, node.parts):
        found.append(f"step {node.name} {_made_of(node)}, and now {_made_of(now)}")
    if gone := [option for option in node.options if option not in now.options and now.parts == node.parts]:
        found.append(f"step {node.name} has no {'undo' if node.parts == 'flow' else 'option'} {gone[0]} any more")
    if node.undo != now.undo:
        found.append(f"step {node.name} " + ("could be undone, and has no undo any more" if node.undo else "has an undo now, and had none"))
    before = _closure(old, number)
    more = [new.names[need] for need in new.needs[new.index[node.name]] if new.names[need] not in before]
    if more:
        found.append(f"step {node.name} now needs {', '.join(more)} too")
    return found


def _waits(node: Node) -> str:
    return {"": "did something", "sleep": "slept", "signal": "waited for an answer", "token": "was completed from outside",
            "child": "waited for a run"}.get(node.waits, node.waits)


def _made_of(node: Node) -> str:
    if node.child:
        return f"started a run of {node.child}"
    return {"": "was one call", "each": "was a call for each item", "first_of": "was the first of several", "flow": "was a flow"}[node.parts]


def _closure(graph: Graph, number: int) -> set[str]:
    """All that is certainly done when this step begins."""
    found: set[int] = set()
    queue = list(graph.needs[number])
    while queue:
        need = queue.pop()
        if need not in found:
            found.add(need)
            queue += graph.needs[need]
    return {graph.names[need] for need in found}


def why_not(history: Iterable[Record], old: Graph, new: Graph) -> str:
    """Why this one run cannot go on with `new`, or ""; for runs of graphs that differ in what has not happened to them yet."""
    records = list(history)
    names = {record.step for record in records if record.step}
    for name in sorted(names):
        if name in old.index and name in new.index:
            before, now = old.nodes[old.index[name]], new.nodes[new.index[name]]
            if before.gives != now.gives:
                return f"step {name} has its result as {before.gives}, and now gives {now.gives}"
            if before.undo and not now.undo:
                return f"step {name} may have to be undone, and has no undo any more"
    try:
        decide(new, records)
    except HistoryError as error:
        return str(error)
    return ""


def definition_of(saga: Saga[Any]) -> bytes:
    """A saga as the journal keeps it: its graph, and what starting a run of it from SQL needs to know."""
    return _definition(saga.graph, saga.deadline, saga.queue.name if saga.queue is not None else None, tuple(sorted(saga.attribute_paths.items())))


@lru_cache(256)
def _definition(graph: Graph, deadline: float | None, queue: str | None, attributes: tuple[tuple[str, str], ...]) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(graph.to_json()), "deadline": deadline, "queue": queue, "attributes": dict(attributes)})
