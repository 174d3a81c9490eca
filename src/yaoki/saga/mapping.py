"""Mappings: how runs that were started with another graph go on with this one, where that does not go without saying. Deciders.

    book_trip.maps("3f2a90c41b7de855", renamed={"hotel": "room"}, dropped=["fax"], results={"flight": lambda old: {"id": old}})

`yk plan` prints the hash of the old graph, and says whether the mapping fits. When a run is taken up, its history is told anew:
a renamed step under its new name, a dropped one not at all, a result as the new type. That is written into the history as one
record, with the results, so that the mapping can leave the code once no run needs it; and from then on the run is one of the new graph.

A renamed step keeps its idempotency keys, those of its old name: what was done under them can be repeated and undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.errors import DefinitionError
from yaoki.saga import codec
from yaoki.saga.deploy import differences
from yaoki.saga.graph import Graph
from yaoki.saga.machine import HistoryError
from yaoki.saga.records import Abort, Kind, Mapped, Record, Stored

if TYPE_CHECKING:
    from yaoki.saga.define import Saga, Step


class GraphMapping(msgspec.Struct, frozen=True):
    """What a saga says about one older graph.

    Attributes:
        old: its hash. renamed: old names to new ones. dropped: old steps that are no more; if one was done, its effect stays.
        results: by the new name, a function from the old result, as JSON, to the new one.
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
            results: by the new name, a function of the old result, as JSON, that returns the new one.

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
        for before, now in given.renamed.items():
            if now in self.steps:
                self.steps[now].effect_name = before


def problems(mapping: GraphMapping, old: Graph, new: Graph) -> list[str]:
    """Why runs of `old` cannot go on with `new` by this mapping; empty: it fits."""
    found = [f"graph {old.hash} has no step {name}" for name in (*mapping.renamed, *mapping.dropped) if name not in old.index]
    found += [f"saga {new.saga} has no step {name}" for name in (*mapping.renamed.values(), *mapping.results) if name not in new.index]
    found += [f"step {name} waits for others, or is made of parts, which know it by its name: it cannot be renamed"
              for name in mapping.renamed if name in old.index and _is_known_outside(old, name)]
    return found or differences(mapped(old, mapping, new), new)


def _is_known_outside(graph: Graph, name: str) -> bool:
    node = graph.nodes[graph.index[name]]
    return bool(node.waits or node.child or node.parts)


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


# ── histories ────────────────────────────────────────────────────────────────────────────────────────────────────────


def brought_over(saga: Saga[Any], stored: Stored, now: float) -> tuple[list[Record], Record | None]:
    """The run's history in the words of this saga, and the record that is to be written first, if it was not yet.

    Raises HistoryError where a result cannot be made what it is to be.
    """
    mapping = saga.mappings.get(stored.header.graph)
    records = translated(stored.records)
    if mapping is None:
        return records, None
    record = Record(Kind.MAPPED, "", msgspec.json.encode(_said(saga, mapping, records)), now)
    return translated([*records, record]), record


def _said(saga: Saga[Any], mapping: GraphMapping, records: list[Record]) -> Mapped:
    back = {new: old for old, new in mapping.renamed.items()}
    results = {}
    for name, convert in mapping.results.items():
        for record in records:
            if record.kind is Kind.DONE and record.step == back.get(name, name):
                try:
                    data = codec.encode(convert(msgspec.json.decode(record.data)))
                    saga.steps[name].result.decode(data)
                except Exception as error:
                    raise HistoryError(f"the mapping of graph {mapping.old} makes no result of {name}: {type(error).__name__}: {error}") from error
                results[name] = msgspec.Raw(data)
    return Mapped(mapping.old, saga.graph.hash, dict(mapping.renamed), mapping.dropped, results)


def translated(records: list[Record]) -> list[Record]:
    """A history as the run's newest graph tells it: what came before a mapping, in its words. Others are returned as they are."""
    if not any(record.kind == "mapped" for record in records):
        return records
    told: list[Record] = []
    for record in records:
        if record.kind == "mapped":
            said = msgspec.json.decode(record.data, type=Mapped)
            told = [again for each in told if (again := _again(each, said)) is not None]
        told.append(record)
    return told


def _again(record: Record, said: Mapped) -> Record | None:
    if record.step.partition("/")[0] in said.dropped:  # or a part of one that is
        return None
    name = said.renamed.get(record.step, record.step)
    if record.kind is Kind.ABORT:
        abort = msgspec.json.decode(record.data, type=Abort)
        started = tuple(said.renamed.get(each, each) for each in abort.started if each not in said.dropped)
        data = msgspec.json.encode(msgspec.structs.replace(abort, started=started, step=said.renamed.get(abort.step, abort.step)))
        return Record(record.kind, name, data, record.at)
    if record.kind is Kind.DONE and name in said.results:
        return Record(record.kind, name, bytes(said.results[name]), record.at)
    return record if name == record.step else Record(record.kind, name, record.data, record.at)
