"""Pause a saga, a queue or a run: it begins nothing new until it is resumed."""

from __future__ import annotations

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.runs.asking import who_option, why_option
from yaoki.cli.runs.choosing import db_option

kind_argument = click.argument("kind", type=click.Choice(["saga", "queue", "run"]))
names_argument = click.argument("names", metavar="NAME...", nargs=-1, required=True)


@click.command(epilog="\b\nExamples:\n  yk pause saga book-trip --why 'the hotels are down'\n  yk pause queue mail\n  yk pause run trip-42 trip-43")
@kind_argument
@names_argument
@who_option
@why_option
@db_option
def command(*, kind: str, names: tuple[str, ...], who: str, why: str, db: str) -> Exit:
    """Pause sagas, queues or runs: attempts under way end, and nothing begins, neither steps nor undos, until `yk resume`.

    It is written into the journal, and outlives every worker. New runs of what is paused are accepted, and wait.
    Engines that run know within a second.
    """
    from yaoki.cli.frame.journal import wait_for

    return wait_for(change(db, kind, names, who=who, why=why, pauses=True))


async def change(db: str, kind: str, names: tuple[str, ...], *, who: str, why: str, pauses: bool) -> Exit:
    """Pause or resume each; say which were so already."""
    from yaoki.cli.frame.journal import find, observed

    out = output()
    async with observed(db) as journal:
        if kind == "run":
            names = tuple([(await find(journal, name)).header.id for name in names])
        for name in names:
            done = await (journal.pause if pauses else journal.resume)(kind, name, who=who, why=why)
            out.emit({"kind": kind, "name": name, "paused": pauses, "changed": done})
            now = "paused" if pauses else "goes on"
            if pauses and kind == "saga" and not await journal.counts(name):
                out.remark(f"note: no run of a saga {name!r} is in this journal; it is paused for those to come")
            out.say(f"{kind} {name}: {now}" if done else f"{kind} {name} is {'paused already' if pauses else 'not paused'}")
        if not pauses and kind == "saga":
            await _release_brakes(db, names, who)
    return Exit.OK


async def _release_brakes(db: str, sagas: tuple[str, ...], who: str) -> None:
    """What resumes a saga releases its brake as well, where an engine has one on."""
    import msgspec

    from yaoki import runtime
    from yaoki.cli.frame.journal import observed
    from yaoki.saga.journal.port import Ask

    async with observed(db) as journal:
        asked = [Ask("", "resume", msgspec.json.encode({"saga": saga, "who": who})) for saga in sagas]
        await journal.request_many(asked, runtime.unix_time())
