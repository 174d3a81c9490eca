"""`fork`: a run that begins where another one stood."""

from __future__ import annotations

import click
import msgspec

from yaoki.cli.frame import Exit, output
from yaoki.cli.runs.asking import run_argument, send, who_option, why_option
from yaoki.cli.runs.choosing import db_option


@click.command(epilog="\b\nExample:\n  yk runs fork trip-42 --from flight --why 'wrong date'")
@run_argument
@click.option("--from", "step", required=True, metavar="STEP", help="Do this step again, and all that follows from it.")
@click.option("--id", "fork_id", default="", metavar="ID", help="Of the fork; RUN~1 by default.")
@who_option
@why_option
@db_option
def fork(*, run: str, step: str, fork_id: str, who: str, why: str, db: str) -> Exit:
    """Start a run that begins where another one stood before a step.

    Steps that are done and do not follow from it are adopted: they are not made again, and the fork never undoes them, for their
    effects belong to the run that made them. The rest is made anew, with idempotency keys of the fork's own. The other run stays as it is.
    """
    from yaoki.cli.frame.journal import wait_for

    return wait_for(_fork(run, step, fork_id, who=who, why=why, db=db))


async def _fork(run: str, step: str, fork_id: str, *, who: str, why: str, db: str) -> Exit:
    from yaoki import runtime
    from yaoki.cli.frame.journal import find, observed
    from yaoki.errors import RunConflictError
    from yaoki.saga.engine.forks import Wanted, free_name, graph_of
    from yaoki.saga.forking import forked
    from yaoki.saga.machine import decide
    from yaoki.saga.mapping import translated

    async with observed(db) as journal:
        stored = await find(journal, run)
        graph, stored.records = await graph_of(journal, stored), translated(stored.records)
        adopted = forked(stored, graph, decide(graph, stored.records), step, runtime.unix_time())
        fork_id = fork_id or await free_name(journal, stored.header.id)
        if await journal.headers([fork_id]):
            raise RunConflictError(f"run {fork_id!r} exists already", do="give another --id", run_id=fork_id)
    out = output()
    out.say(f"{fork_id}: adopts {', '.join(record.step for record in adopted) or 'nothing'}")
    wanted = Wanted(stored.header.id, step, fork_id, who, why)
    return await send(out, db, [("", "fork", msgspec.to_builtins(wanted))])
