"""Starts forks of runs: for a program at once, for `yk runs fork` by a request. What a fork is: `saga/forking.py`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from yaoki import events
from yaoki.errors import RunError, RunNotFoundError, UsageError
from yaoki.saga.forking import forked, name_of_fork
from yaoki.saga.graph import Graph
from yaoki.saga.journal.operations import Operation
from yaoki.saga.journal.port import Journal, NewRun, Query, Request
from yaoki.saga.machine import HistoryError, decide
from yaoki.saga.mapping import translated
from yaoki.saga.placing import PLAIN, Placing

if TYPE_CHECKING:
    from yaoki.saga.engine.engine import Engine
    from yaoki.saga.records import Stored

log = logging.getLogger("yaoki.saga")


class Wanted(msgspec.Struct):
    """A fork that is asked for. id: of the fork."""

    run: str
    step: str
    id: str
    who: str = ""
    why: str = ""


class Forks:
    """Of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def start(self, run_id: str, step: str, fork_id: str, *, who: str, why: str) -> str:
        """Start it; returns its id. Raises RunNotFoundError, ForkError, UsageError."""
        journal = self._engine.journal
        wanted = Wanted(run_id, step, fork_id or await free_name(journal, run_id), who, why)
        await self._start(wanted)
        await journal.log_operation(Operation("fork", "run", run_id, who, why, msgspec.Raw(msgspec.json.encode(wanted))))
        return wanted.id

    async def carry_out(self, request: Request) -> bool:
        """False: it is for an engine that has this saga's code."""
        wanted = msgspec.json.decode(request.data, type=Wanted)
        found = await self._engine.journal.headers([wanted.run])
        if found and found[0].saga not in self._engine.sagas:
            return False
        try:
            await self._start(wanted)
        except (UsageError, RunError) as error:  # it was checked when it was asked for, and the run has moved on
            log.warning("the fork of %s is not started: %s", wanted.run, error)
        return True

    async def _start(self, wanted: Wanted) -> None:
        engine, journal = self._engine, self._engine.journal
        stored = await journal.read(wanted.run)
        if stored is None:
            raise RunNotFoundError(f"there is no run {wanted.run!r}", do="check the id: `yk runs list`", run_id=wanted.run)
        stored.records = translated(stored.records)
        header, saga = stored.header, engine.sagas.get(stored.header.saga)
        if saga is None:
            raise UsageError(f"saga {header.saga!r} was not given to this engine", do="open it with the saga of the run")
        graph, now = await graph_of(journal, stored), journal.now()
        records = forked(stored, graph, decide(graph, stored.records), wanted.step, now)
        try:
            decide(saga.graph, records)
        except HistoryError as error:
            raise UsageError(f"what run {header.id} has done does not fit the saga as it is now: {error}",
                             do="fork it from a step above what has changed") from error
        attributes = (await journal.attributes([header.no])).get(header.no, {})
        new = NewRun(wanted.id, saga.name, saga.graph.hash, header.input, now + saga.deadline if saga.deadline else 0.0,
                     header.traceparent, now, attributes=tuple(sorted({**attributes, "forked-from": header.id}.items())), records=records)
        placing = PLAIN if saga.queue is None else Placing(saga.queue.name)
        created = await engine.starting.create(placing.of(new, now))
        engine.intake.backlog = True
        engine.intake.feed()
        await journal.ring()
        if created.new and events.wanted():
            events.emit(events.RunStarted(run=wanted.id, saga=saga.name))


async def graph_of(journal: Journal, stored: Stored) -> Graph:
    """The definition that a run was started with. Raises UsageError where the journal does not have it."""
    data = await journal.load_graph(stored.header.graph)
    if data is None:
        raise UsageError(f"the journal does not hold the definition of run {stored.header.id}", do="start a new run", run_id=stored.header.id)
    return Graph.from_json(data)


async def free_name(journal: Journal, run_id: str) -> str:
    """The first of `trip-42~1`, `trip-42~2`, ... that no run has."""
    return name_of_fork(run_id, [header.id for header in await journal.search(Query(id_prefix=f"{run_id}~", limit=1000))])
