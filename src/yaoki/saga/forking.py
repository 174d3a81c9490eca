"""Forks: a run that begins where another one stood, before a certain step. A decider.

    trip-42   hotel ✓  flight ✓  payment ✗ (blocked: wrong currency in the flight's price)
    fork --from flight ──▶  trip-42~1   hotel (adopted)  flight ...  payment ...

All that is done and does not follow from that step is adopted; that step, and what follows from it, is still to be done.

The fork is a run of its own: it has its own id, so **its steps have idempotency keys of their own**, and a step that it makes is
a new effect. Steps that it *adopts* are not made again, and are not its own: their effects belong to the run that made them, so
the fork never undoes them. What can be adopted is what is done, and still there: nothing of a run that undoes itself.

The run that was forked stays as it is. If it is still blocked, cancel it, or resolve it, but not before the fork has ended: what
the fork stands on is undone with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from yaoki.errors import ForkError
from yaoki.saga.graph import Graph
from yaoki.saga.machine import Machine, Step
from yaoki.saga.records import Adopted, Kind, Record, Stored


def forked(stored: Stored, graph: Graph, machine: Machine, step: str, now: float) -> tuple[Record, ...]:
    """The history that a fork of this run begins with. Raises ForkError.

    machine: the fold of its history, with its own graph, `graph`.
    """
    header = stored.header
    if step not in graph.index:
        raise ForkError(f"saga {header.saga} has no step {step!r}", do=f"name one of: {', '.join(graph.names)}", run_id=header.id)
    if machine.abort is not None:
        raise ForkError(f"run {header.id} was undone, or is about to be: nothing of it is left to begin with",
                        do="start a new run, with the same input", run_id=header.id)
    missing = [graph.names[number] for number in graph.needs[graph.index[step]] if machine.steps[number] != Step.DONE]
    if missing:
        raise ForkError(f"run {header.id} has not done {', '.join(missing)}, which {step} needs",
                        do=f"fork it from {missing[0]}, or from a step above", run_id=header.id)
    again = _from(graph, graph.index[step])
    results = _results(stored.records)
    kept = [number for number in range(len(graph)) if number not in again and machine.steps[number] == Step.DONE]
    return tuple(_record(header.id, graph.names[number], results, now) for number in kept)


def _record(run_id: str, name: str, results: dict[str, bytes], now: float) -> Record:
    if name not in results:  # it was skipped, or slept
        return Record(Kind.SKIPPED, name, b"", now)
    return Record(Kind.ADOPTED, name, msgspec.json.encode(Adopted(run_id, msgspec.Raw(results[name]))), now)


def _from(graph: Graph, number: int) -> set[int]:
    """This step, and all that follows from it."""
    found = {number}
    for each in range(number + 1, len(graph)):
        if found & set(graph.needs[each]):
            found.add(each)
    return found


def _results(records: Iterable[Record]) -> dict[str, bytes]:
    """The result of each step that is done, as JSON."""
    found: dict[str, bytes] = {}
    for record in records:
        if record.kind is Kind.DONE:
            found[record.step] = record.data
        elif record.kind is Kind.ADOPTED:
            found[record.step] = bytes(msgspec.json.decode(record.data, type=Adopted).result)
        elif record.kind is Kind.RESOLVED:
            decided = msgspec.json.decode(record.data)
            if decided.get("decision") == "done":
                found[record.step] = msgspec.json.encode(decided.get("result"))
    return found


def name_of_fork(run_id: str, taken: Iterable[str]) -> str:
    """`trip-42~1`, or the next number that is free."""
    known, number = set(taken), 1
    while f"{run_id}~{number}" in known:
        number += 1
    return f"{run_id}~{number}"
