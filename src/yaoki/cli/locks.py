"""See which run holds which key, and who waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yaoki.cli.frame import output
from yaoki.cli.frame.options import setting

if TYPE_CHECKING:
    from yaoki.saga.journal.locks import Claim


@click.group()
def command() -> None:
    """See which run holds which key, and who waits for it.

    A key is free when the run that holds it has ended: cancel that run, or decide about it, to let the next one go on.
    """


@command.command("list")
@click.option("--key", default="", help="Only keys that begin so, as seat/LH1.")
@setting("--db", "db", metavar="URL")
def list_(*, key: str, db: str) -> None:
    """List keys that are held, with their holders and how many runs wait, in their order."""
    from yaoki.cli.frame.journal import wait_for
    from yaoki.saga.locking import shown

    claims = [claim for claim in wait_for(_claims(db)) if shown(claim.key).startswith(key)]
    _tell(claims)


async def _claims(db: str) -> list[Claim]:
    from yaoki.cli.frame.journal import observed

    async with observed(db) as journal:
        return await journal.claims()


def _tell(claims: list[Claim]) -> None:
    from yaoki import runtime
    from yaoki.cli.frame.durations import show_age, show_instant
    from yaoki.saga.locking import shown

    out, now = output(), runtime.unix_time()
    waiting: dict[str, list[str]] = {}
    for claim in claims:
        out.emit({"key": shown(claim.key), "run": claim.run, "holds": claim.holds, "since": show_instant(claim.at)})
        if not claim.holds:
            waiting.setdefault(claim.key, []).append(claim.run)
    rows = [(shown(claim.key), claim.run, show_age(claim.at, now), len(waiting.get(claim.key, ())), ", ".join(waiting.get(claim.key, ())[:5]))
            for claim in claims if claim.holds]
    if rows:
        out.table(("key", "held by", "since", "waiting", "next"), rows)
    else:
        out.say("no key is held")
