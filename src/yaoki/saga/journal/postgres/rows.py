"""Rows of the server as what the port speaks of, and a query as SQL."""

from __future__ import annotations

from typing import Any

from yaoki.saga.journal.port import NewRun, Query
from yaoki.saga.records import Header, Kind, RunState

KINDS = {kind.value: kind for kind in Kind}
STATES = {state.value: state for state in RunState}


def header_of(row: Any) -> Header:
    values = [row[name] for name in Header.__struct_fields__]
    values[4] = STATES[values[4]]
    return Header(*values)


def header_made(run: NewRun, no: int) -> Header:
    return Header(no=no, id=run.id, saga=run.saga, graph=run.graph, state=RunState.RUNNING, input=run.input,
                  traceparent=run.traceparent, created_at=run.at, updated_at=run.at, deadline_at=run.deadline_at,
                  fence=int(run.keep))


def where(query: Query) -> tuple[str, tuple[Any, ...]]:
    tests: list[str] = []
    values: list[Any] = []

    def add(test: str, value: Any) -> None:
        values.append(value)
        tests.append(test.replace("?", f"${len(values)}"))

    if query.states:
        add("state = ANY(?::text[])", [state.value for state in query.states])
    if query.saga:
        add("saga = ?", query.saga)
    if query.id_prefix:
        add("starts_with(id, ?)", query.id_prefix)
    if query.since:
        add("created_at >= ?", query.since)
    if query.until:
        add("created_at < ?", query.until)
    if query.before_no:
        add("no < ?", query.before_no)
    if query.idle_since:
        add("updated_at < ?", query.idle_since)
    for name, value in query.where:
        values.append(name)
        add(f"no IN (SELECT a.run FROM yaoki.attribute a WHERE a.name = ${len(values)} AND a.value = ?)", value)
    return (f"WHERE {' AND '.join(tests)}" if tests else ""), tuple(values)
