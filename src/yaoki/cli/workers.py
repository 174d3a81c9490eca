"""List the workers of a shared journal: who is alive, and what each has."""

from __future__ import annotations

from typing import Any

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.options import DURATION, setting


@click.command()
@setting("--db", "db", metavar="URL")
@click.option("--since", type=DURATION, default=3600.0, show_default="1h", help="Show also those that ended within this time.")
def command(*, db: str, since: float) -> Exit:
    """List the workers of a shared journal: who is alive, and what each has.

    Exit code 1 when none is alive.
    """
    import asyncio

    rows = asyncio.run(_workers(db, since))
    tell(rows)
    return Exit.OK if any(row["state"] in {"alive", "draining"} for row in rows) else Exit.FINDING


def tell(rows: list[dict[str, Any]]) -> None:
    from yaoki.cli.frame.durations import show_duration
    from yaoki.cli.frame.tables import Cell

    out = output()
    colors = {"alive": "green", "draining": "yellow", "dead": "red"}
    for row in rows:
        out.emit(row)
    if not rows:
        out.say("no workers: start one with `yk worker MODULE --db URL`")
        return
    out.table(("no", "worker", "state", "runs", "lease left", "age", "sagas", "queues"), [
        (row["no"], row["name"], Cell(row["state"], colors.get(row["state"], "")), row["runs"],
         show_duration(row["left_s"]) if row["state"] in {"alive", "draining"} else "",
         show_duration(row["age_s"]), len(row["graphs"]), ", ".join(row["queues"]) or "all") for row in rows])


async def _workers(db: str, since_s: float) -> list[dict[str, Any]]:
    from yaoki.cli.frame.journal import observed
    from yaoki.errors import ConfigError

    async with observed(db) as journal:
        if not journal.shared:
            raise ConfigError(f"{db} has one owner, and no list of workers", do="name a database: --db postgresql://...")
        found: list[dict[str, Any]] = await journal.workers(since_s)  # type: ignore[attr-defined]
        return found
