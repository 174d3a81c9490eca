"""Make the journal's tables in PostgreSQL, bring them up to date, or check them."""

from __future__ import annotations

from typing import Any

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.options import setting


@click.group()
def command() -> None:
    """Make the journal's tables in PostgreSQL, bring them up to date, or check them.

    A journal on SQLite makes and checks its file by itself.
    """


@command.command()
@setting("--db", "db", metavar="URL")
def upgrade(*, db: str) -> None:
    """Make the schema, or bring an older one up to date. Safe while workers run, and from several places at once."""
    import asyncio

    before, now = asyncio.run(_on(db, upgrading=True))
    out = output()
    out.emit({"before": before, "version": now})
    out.say(f"made the schema, version {now}" if not before else f"upgraded from version {before} to {now}" if before < now
            else f"the schema is version {now}: nothing to do")


@command.command()
@setting("--db", "db", metavar="URL")
def check(*, db: str) -> Exit:
    """Say whether the schema is the one that this program needs. Exit code 1 when it is not."""
    import asyncio

    found, needed = asyncio.run(_on(db, upgrading=False))
    out = output()
    out.emit({"version": found, "needs": needed, "ok": found == needed})
    out.say(f"the schema is version {found}, as this program needs" if found == needed
            else f"the schema is version {found}, and this program needs {needed}"
            + (": run `yk db upgrade`" if found < needed else ": use a newer yaoki") if found
            else "there is no journal in this database: run `yk db upgrade`")
    return Exit.OK if found == needed else Exit.FINDING


async def _on(db: str, *, upgrading: bool) -> tuple[int, int]:
    """(version before or found, version now or needed)."""
    from yaoki.errors import ConfigError

    if not db.startswith(("postgresql:", "postgres:")):
        raise ConfigError(f"{db} is not on PostgreSQL; its tables are made when it is first opened",
                          do="name a database: --db postgresql://user@host/database")
    from yaoki.cli.frame.journal import told_if_slow
    from yaoki.saga.journal.postgres.link import Link, Target
    from yaoki.saga.journal.postgres.schema import VERSION, upgrade, version_of

    link = Link(Target.of(db), "db", patience_s=5.0)

    async def look(connection: Any) -> tuple[int, int]:
        return await version_of(connection), VERSION

    try:
        with told_if_slow(db):
            return await link.run(upgrade if upgrading else look)
    finally:
        await link.close()
