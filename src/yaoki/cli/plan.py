"""Say what a deploy of this code would do to the runs in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.options import setting

if TYPE_CHECKING:
    from yaoki.saga.define import Saga

# Runs of a graph that are looked at one by one, where the graphs alone do not tell.
LOOKED_AT = 5000


@click.command(epilog="\b\nExample, before a deploy:\n  yk plan trips --db postgresql://app@db/trips || exit 1")
@click.argument("targets", metavar="MODULE...", nargs=-1, required=True)
@setting("--db", "db", metavar="URL")
def command(*, targets: tuple[str, ...], db: str) -> Exit:
    r"""Compare the sagas of these modules with every run in flight.

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
    from yaoki.saga.graph import Graph
    from yaoki.saga.planning import verdict_on, verdict_on_run
    from yaoki.saga.records import RunState

    counts: dict[tuple[str, str, str, str], int] = {}
    graphs: dict[str, Graph | None] = {}
    unfinished = (RunState.RUNNING, RunState.UNDOING, RunState.BLOCKED)
    async with observed(db) as journal:
        for saga in sagas:
            looked_at = 0
            async for header in every(journal, states=unfinished, saga=saga.name, since=None, until=None, limit=None):
                if header.graph not in graphs:
                    stored = await journal.load_graph(header.graph)
                    graphs[header.graph] = Graph.from_json(stored) if stored else None
                old = graphs[header.graph]
                verdict, why = verdict_on(saga, old, header.graph)
                if verdict not in {"same", "adopts"} and old is not None and looked_at < LOOKED_AT:
                    looked_at += 1
                    verdict, why = verdict_on_run(saga, old, await journal.read(header.id), verdict, why, shared=journal.shared)
                key = (saga.name, header.graph, verdict, why)
                counts[key] = counts.get(key, 0) + 1
    return [{"saga": saga, "graph": graph, "verdict": verdict, "why": why, "runs": runs}
            for (saga, graph, verdict, why), runs in sorted(counts.items())]
