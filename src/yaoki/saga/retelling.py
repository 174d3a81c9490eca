"""Tells a run's history anew, as a mapping says: a renamed step under its new name, a dropped one not at all, results as they are to be.

The mapping's functions are called once, when the run is taken up; what they return is in the record `mapped`, and from then on the
history alone says how it is told. Deciders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.saga import codec
from yaoki.saga.machine import HistoryError
from yaoki.saga.naming import renamed_again
from yaoki.saga.records import Abort, Adopted, Kind, Late, Mapped, Record, Resolution, Retried, Stored

if TYPE_CHECKING:
    from yaoki.saga.define import Saga
    from yaoki.saga.mapping import GraphMapping

_encode = msgspec.json.encode
_WRAPPED = msgspec.json.Decoder(dict[str, msgspec.Raw])


def brought_over(saga: Saga[Any], stored: Stored, now: float) -> tuple[list[Record], Record | None]:
    """The run's history in the words of this saga, and the record that is to be written first, if it was not yet.

    Raises HistoryError where a result cannot be made what it is to be, or a name stands for two steps.
    """
    mapping = saga.mappings.get(stored.header.graph)
    records = translated(stored.records)
    if mapping is None:
        return records, None
    said = _said(saga, mapping, records)
    _check_names(saga, records, said)
    record = Record(Kind.MAPPED, "", _encode(said), now)
    return translated([*records, record]), record


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


# ── what is said once ────────────────────────────────────────────────────────────────────────────────────────────────


def _said(saga: Saga[Any], mapping: GraphMapping, records: list[Record]) -> Mapped:
    wrapped = tuple(step.name for step in saga.steps.values() if step.wait is not None and step.wait.kind in {"token", "child"})
    results = {}
    for record, name in _with_results(records, mapping):
        step, _, part = name.partition("/")
        data = result_in(record, wrapped=step in wrapped)
        if step in mapping.results and data is not None and not (part and saga.steps[step].parts == "flow"):
            results[name] = msgspec.Raw(_converted(saga, mapping, name, data))
    return Mapped(mapping.old, saga.graph.hash, dict(mapping.renamed), mapping.dropped, results, wrapped)


def _with_results(records: Iterable[Record], mapping: GraphMapping) -> Iterator[tuple[Record, str]]:
    """Records that may hold a result, with the new names of their steps. What a person decided about an undo is no result."""
    undoing = False
    for record in records:
        undoing = (undoing or record.kind in {Kind.ABORT, Kind.RETRIED}) and record.kind is not Kind.ANEW
        step, slash, part = record.step.partition("/")
        name = mapping.renamed.get(step, step)
        if step not in mapping.dropped and not (undoing and record.kind is Kind.RESOLVED):
            yield record, f"{name}{slash}{part}"


def _converted(saga: Saga[Any], mapping: GraphMapping, name: str, data: bytes) -> bytes:
    """The result as it is to be. Raises HistoryError: the function failed, or gives another type."""
    whole, _, part = name.partition("/")
    step, convert = saga.steps[whole], mapping.results[whole]
    try:
        old = msgspec.json.decode(data)
        if step.parts == "each":
            made = codec.encode(convert(old) if part else [None if item is None else convert(item) for item in old])
            (step.way.decoder if part else step.result).decode(made)
        else:
            made = codec.encode(convert(old))
            step.result.decode(made)
    except Exception as error:
        raise HistoryError(f"the mapping of graph {mapping.old} makes no result of {name}: {type(error).__name__}: {error}") from error
    return made


def _check_names(saga: Saga[Any], records: list[Record], said: Mapped) -> None:
    first_names: dict[str, str] = {}
    for record in records:
        if record.kind is Kind.MAPPED:
            first_names = renamed_again(first_names, msgspec.json.decode(record.data, type=Mapped).renamed)
    first_names = renamed_again(first_names, said.renamed)
    for now, first in first_names.items():
        if first in saga.steps and first not in first_names:
            raise HistoryError(f"step {now} was called {first} first, and so is another step now: their keys would be the same")


# ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _again(record: Record, said: Mapped) -> Record | None:
    step, slash, part = record.step.partition("/")
    if step in said.dropped:
        return None
    name = f"{said.renamed.get(step, step)}{slash}{part}"
    if record.kind in {Kind.ABORT, Kind.UNDO_ASKED}:
        abort = msgspec.json.decode(record.data, type=Abort)
        abort = msgspec.structs.replace(abort, started=_names(abort.started, said), step=said.renamed.get(abort.step, abort.step),
                                        kept=_names(abort.kept, said))
        return Record(record.kind, name, _encode(abort), record.at)
    if record.kind is Kind.RETRIED:
        retried = msgspec.json.decode(record.data, type=Retried)
        retried = msgspec.structs.replace(retried, step=said.renamed.get(retried.step, retried.step), steps=_names(retried.steps, said),
                                          started=_names(retried.started, said))
        return Record(record.kind, name, _encode(retried), record.at)
    wrapped = said.renamed.get(step, step) in said.wrapped
    if name in said.results and result_in(record, wrapped=wrapped) is not None:
        return _with_result(record, name, bytes(said.results[name]), wrapped=wrapped)
    return record if name == record.step else Record(record.kind, name, record.data, record.at)


def _names(names: Iterable[str], said: Mapped) -> tuple[str, ...]:
    return tuple(said.renamed.get(each, each) for each in names if each not in said.dropped)


def result_in(record: Record, *, wrapped: bool) -> bytes | None:
    """The step's result that a record holds, as JSON; None: it holds none. wrapped: an answer holds it inside."""
    if record.kind is Kind.DONE or (record.kind is Kind.SIGNAL and not wrapped):
        return record.data
    if record.kind is Kind.SIGNAL:
        result = _WRAPPED.decode(record.data).get("result")
    elif record.kind is Kind.ADOPTED:
        result = msgspec.json.decode(record.data, type=Adopted).result
    elif record.kind is Kind.LATE:
        result = msgspec.json.decode(record.data, type=Late).result
    elif record.kind is Kind.RESOLVED:
        decided = msgspec.json.decode(record.data, type=Resolution)
        result = decided.result if decided.decision == "done" else None
    else:
        result = None
    return None if result is None else bytes(result)


def _with_result(record: Record, name: str, data: bytes, *, wrapped: bool) -> Record:
    """The same record under this name with another result."""
    result = msgspec.Raw(data)
    if record.kind is Kind.DONE or (record.kind is Kind.SIGNAL and not wrapped):
        return Record(record.kind, name, data, record.at)
    if record.kind is Kind.SIGNAL:
        return Record(record.kind, name, _encode(_WRAPPED.decode(record.data) | {"result": result}), record.at)
    held: Any = {Kind.ADOPTED: Adopted, Kind.LATE: Late, Kind.RESOLVED: Resolution}[record.kind]
    return Record(record.kind, name, _encode(msgspec.structs.replace(msgspec.json.decode(record.data, type=held), result=result)), record.at)
