"""The tab key after `yk runs show`: ids of runs. Quick, and silent about whatever is wrong."""

from __future__ import annotations

import click


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids that begin with what is typed, newest first."""
    del param
    from yaoki.cli.frame.journal import wait_for
    from yaoki.cli.frame.settings import resolve

    try:
        return wait_for(_ids(str(ctx.params.get("db") or resolve()["db"].value), incomplete))
    except Exception:
        return []


async def _ids(db: str, begin: str) -> list[str]:
    from yaoki.cli.frame.journal import observed
    from yaoki.saga.journal.port import Query

    async with observed(db) as journal:
        return [header.id for header in await journal.search(Query(id_prefix=begin, limit=30))]
