"""Say what a deploy of this code would do to the runs in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.options import setting

if TYPE_CHECKING:
    from yaoki.saga.define import Saga
    from yaoki.saga.graph import Graph
    from yaoki.saga.journal.port import Journal
    from yaoki.saga.records import Header

# Runs of a graph that are looked at one by one, where the graphs alone do not tell.
LOOKED_AT = 5000


@click.command(epilog="\b\nExample, before a deploy:\n  yk plan trips --db postgresql://app@db/trips || exit 1")
@click.argument("targets", metavar="MODULE...", nargs=-1, required=True)
@setting("--db", "db", metavar="URL")
def command(*, targets: tuple[str, ...], db: str) -> Exit:
    r"""Compare the sagas of these modules, and those that they start, with every run in flight.

    Completed children of runs in flight are looked at as well: they are undone with their parents.

    \b
    same           the graph that the run was started with
    adopts         another graph, and the run can go on with this one
    maps           the saga says how (`saga.maps`), and it fits
    needs mapping  steps are gone, renamed, or give something else: say how they map, or keep an old worker
    stays          only workers with the old code can finish it: keep one running until it has ended
    blocks         alone on its journal, this code would set the run aside, for a person

    Exit code 1: some runs can not go on with this code.
    """
    import asyncio

    from yaoki.cli.worker import sagas_of

    rows = asyncio.run(_plan(sagas_of(targets), db))
    out = output()
    for row in rows:
        out.emit(row)
    if not rows:
        out.say("no runs of these sagas are in flight: deploy as you like")
    colors = {"same": "green", "adopts": "green", "maps": "green"}
    from yaoki.cli.frame.tables import Cell

    out.table(("saga", "graph", "verdict", "runs", "why"),
              [(row["saga"], row["graph"], Cell(row["verdict"], colors.get(row["verdict"], "red")), row["runs"], row["why"]) for row in rows])
    for graph in sorted({(row["saga"], row["graph"]) for row in rows if row["verdict"] == "needs mapping"}):
        out.remark(f'{graph[0]}: say how its steps map: saga.maps("{graph[1]}", renamed={{...}}, dropped=[...], results={{...}})')
    return Exit.FINDING if any(row["verdict"] not in colors for row in rows) else Exit.OK


async def _plan(sagas: list[Saga[Any]], db: str) -> list[dict[str, Any]]:
    from yaoki.cli.frame.journal import observed
    from yaoki.cli.runs.choosing import every
    from yaoki.saga.child import children_of
    from yaoki.saga.records import RunState

    known = {saga.name: saga for saga in children_of(sagas)}
    unfinished = (RunState.RUNNING, RunState.UNDOING, RunState.BLOCKED)
    async with observed(db) as journal:
        look = _Look(journal)
        for saga in known.values():
            undoes = any(step.child and step.undo_fn is not None for step in saga.steps.values())
            async for header in every(journal, states=unfinished, saga=saga.name, since=None, until=None, limit=None):
                await look.at(saga, header)
                if undoes:
                    await look.at_children(header.id, known)
    return look.rows()


class _Look:
    """Runs, counted by what a deploy would do to them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._graphs: dict[str, Graph | None] = {}
        self._counts: dict[tuple[str, str, str, str], int] = {}
        self._looked_at: dict[str, int] = {}

    async def at(self, saga: Saga[Any], header: Header, *, ended: str = "") -> None:
        """ended: what is to be said of a run that has ended, and matters all the same."""
        from yaoki.saga.planning import verdict_on, verdict_on_run

        old = await self._graph(header.graph)
        verdict, why = verdict_on(saga, old, header.graph)
        if verdict not in {"same", "adopts"} and old is not None and self._may_look(saga.name):
            verdict, why = verdict_on_run(saga, old, await self._journal.read(header.id), verdict, why, shared=self._journal.shared)
        key = (saga.name, header.graph, verdict, "; ".join(part for part in (why, ended) if part))
        self._counts[key] = self._counts.get(key, 0) + 1

    async def at_children(self, run: str, known: dict[str, Saga[Any]]) -> None:
        """A completed child is undone by the code of that day, when its parent undoes itself."""
        from yaoki.saga.journal.port import Query
        from yaoki.saga.records import RunState

        if not self._may_look("children"):
            return
        for header in await self._journal.search(Query(states=(RunState.COMPLETED,), id_prefix=f"{run}/", limit=100)):
            if header.saga in known:
                await self.at(known[header.saga], header, ended="completed, and undone with its parent if that undoes itself")

    def _may_look(self, what: str) -> bool:
        self._looked_at[what] = self._looked_at.get(what, 0) + 1
        return self._looked_at[what] <= LOOKED_AT

    async def _graph(self, graph_hash: str) -> Graph | None:
        from yaoki.saga.graph import Graph

        if graph_hash not in self._graphs:
            stored = await self._journal.load_graph(graph_hash)
            self._graphs[graph_hash] = Graph.from_json(stored) if stored else None
        return self._graphs[graph_hash]

    def rows(self) -> list[dict[str, Any]]:
        return [{"saga": saga, "graph": graph, "verdict": verdict, "why": why, "runs": runs}
                for (saga, graph, verdict, why), runs in sorted(self._counts.items())]
