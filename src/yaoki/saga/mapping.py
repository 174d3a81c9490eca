"""Mappings: how runs that were started with another graph go on with this one, where that does not go without saying. Deciders.

    book_trip.maps("3f2a90c41b7de855", renamed={"hotel": "room"}, dropped=["fax"], results={"flight": lambda old: {"id": old}})

`yk plan` prints the hash of the old graph, and says whether the mapping fits. When a run is taken up, its history is told anew:
a renamed step under its new name, a dropped one not at all, a result as the new type. That is written into the history as one
record, with the results, so that the mapping can leave the code once no run needs it; and from then on the run is one of the new graph.

A renamed step keeps its idempotency keys, those of its old name, and so do its parts, its children and its tokens: what was done under
them can be repeated and undone, and who knows it by its old name is understood (`naming.py`). Results are mapped wherever a history has
them: recorded, answered and not looked at yet, adopted, given by a person; of a step with `each=`, item by item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.errors import DefinitionError
from yaoki.saga.deploy import differences
from yaoki.saga.graph import Graph
from yaoki.saga.retelling import brought_over, translated

if TYPE_CHECKING:
    from yaoki.saga.define import Saga, Step


class GraphMapping(msgspec.Struct, frozen=True):
    """What a saga says about one older graph.

    Attributes:
        old: its hash. renamed: old names to new ones. dropped: old steps that are no more; if one was done, its effect stays.
        results: by the new name, a function from the old result, as JSON, to the new one; of a step with `each=`: of one item.
    """

    old: str
    renamed: Mapping[str, str]
    dropped: tuple[str, ...]
    results: Mapping[str, Callable[[Any], Any]]


class Mappings:
    """For a saga: the older graphs whose runs it takes over."""

    name: str
    steps: dict[str, Step[..., Any]]
    mappings: dict[str, GraphMapping]

    def maps(self, old: str, *, renamed: Mapping[str, str] | None = None, dropped: Iterable[str] = (),
             results: Mapping[str, Callable[[Any], Any]] | None = None) -> None:
        """Take over the runs that were started with the graph of this hash, and say how its steps map to those here.

        Args:
            old: the graph's hash, as `yk plan` prints it.
            renamed: by the old name, the new one.
            dropped: steps that are no more. If such a step was done in a run, its effect stays there, also if the run is undone.
            results: by the new name, a function of the old result, as JSON, that returns the new one. Of a step with `each=` it is about
                one item. What inner steps of a flow gave is read by their functions, and not mapped.

        Say it below the steps. Its place is in the code that follows, until no run of that graph is in flight.

        Raises:
            DefinitionError: it cannot be read. Whether it fits the old graph is found by `yk plan`, and when runs are taken up.
        """
        if len(old) != 16 or not set(old) <= set("0123456789abcdef"):
            raise DefinitionError(f"saga {self.name!r} maps a graph, and {old!r} is no graph's hash", do="`yk plan` prints it: 16 digits from 0 to f")
        given = GraphMapping(old, dict(renamed or {}), tuple(dropped), dict(results or {}))
        if len(set(given.renamed.values())) != len(given.renamed):
            raise DefinitionError(f"saga {self.name!r}: two steps of graph {old} are renamed alike", do="give each step a name of its own")
        self.mappings[old] = given


def problems(mapping: GraphMapping, old: Graph, new: Graph) -> list[str]:
    """Why runs of `old` cannot go on with `new` by this mapping; empty: it fits."""
    found = [f"graph {old.hash} has no step {name}" for name in (*mapping.renamed, *mapping.dropped) if name not in old.index]
    found += [f"saga {new.saga} has no step {name}" for name in (*mapping.renamed.values(), *mapping.results) if name not in new.index]
    found += [f"step {name} was renamed, and another step has its name now: their keys would be the same" for name in mapping.renamed
              if name in new.index and name not in mapping.renamed.values()]
    return found or differences(mapped(old, mapping, new), new)


def mapped(old: Graph, mapping: GraphMapping, new: Graph) -> Graph:
    """The old graph in the words of the new one."""
    nodes = []
    for node in old.nodes:
        if node.name in mapping.dropped:
            continue
        name = mapping.renamed.get(node.name, node.name)
        gives = new.nodes[new.index[name]].gives if name in mapping.results else node.gives
        needs = tuple(mapping.renamed.get(need, need) for need in _kept(old, node.needs, mapping.dropped))
        nodes.append(msgspec.structs.replace(node, name=name, needs=needs, gives=gives))
    return Graph(old.saga, tuple(nodes))


def _kept(graph: Graph, needs: Iterable[str], dropped: tuple[str, ...]) -> list[str]:
    """What a step needs, once some steps are gone: it came after what they came after."""
    found: list[str] = []
    queue = list(needs)
    while queue:
        need = queue.pop(0)
        if need in dropped:
            queue += graph.nodes[graph.index[need]].needs
        elif need not in found:
            found.append(need)
    return found


def can_run(saga: Saga[Any], old: Graph) -> bool:
    """Can this saga go on with runs of `old`, by itself or by a mapping?"""
    mapping = saga.mappings.get(old.hash)
    return not (problems(mapping, old, saga.graph) if mapping is not None else differences(old, saga.graph))


__all__ = ["GraphMapping", "Mappings", "brought_over", "can_run", "mapped", "problems", "translated"]
