"""What a deploy would do to a run: the verdicts of `yk plan`. A decider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yaoki.saga.deploy import differences, why_not
from yaoki.saga.machine import HistoryError, decide
from yaoki.saga.mapping import brought_over, problems
from yaoki.saga.records import Stored

if TYPE_CHECKING:
    from yaoki.saga.define import Saga
    from yaoki.saga.graph import Graph

# What a mapping can put right: a step that is gone or renamed, and another type of result.
_CAN_BE_MAPPED = (" is gone", ", and gives ")


def verdict_on(saga: Saga[Any], old: Graph | None, graph_hash: str) -> tuple[str, str]:
    """What the graphs alone say of runs that were started with `old`: a verdict, and why."""
    if graph_hash == saga.graph.hash:
        return "same", ""
    if old is None:
        return "stays", "its graph is not in the journal"
    mapping = saga.mappings.get(graph_hash)
    if mapping is not None:
        found = problems(mapping, old, saga.graph)
        return ("stays", f"the mapping does not fit: {found[0]}") if found else ("maps", "")
    found = differences(old, saga.graph)
    if not found:
        return "adopts", ""
    at_the_root = [each for each in found if any(words in each for words in _CAN_BE_MAPPED)]
    mappable = at_the_root and all(each in at_the_root or " now needs " in each for each in found)  # what a renamed step's followers need
    return ("needs mapping" if mappable else "stays"), found[0]


def verdict_on_run(saga: Saga[Any], old: Graph, stored: Stored | None, verdict: str, why: str, *, shared: bool) -> tuple[str, str]:
    """The same for one run whose history is at hand. On a shared journal workers go by the graphs; alone, each run is tried."""
    if stored is None or verdict in {"same", "adopts"}:
        return verdict, why
    if verdict == "maps":
        try:
            decide(saga.graph, brought_over(saga, stored, 0.0)[0])
        except HistoryError as error:
            return ("stays" if shared else "blocks"), f"the mapping does not fit its history: {error}"
        return verdict, why
    if shared:
        return verdict, why
    reason = why_not(stored.records, old, saga.graph)
    return ("blocks", reason) if reason and verdict == "stays" else (verdict, why) if reason else ("adopts", "what changed has not happened to it yet")
