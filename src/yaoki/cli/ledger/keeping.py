"""`yk ledger erase|deliver|prune`: what is done to a ledger."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from yaoki.cli.frame import Exit, Output, output
from yaoki.cli.frame.options import DURATION, setting, yes_option
from yaoki.cli.ledger.opening import LEDGER, opened
from yaoki.errors import UsageError


@click.command()
@click.argument("key")
@yes_option
@setting("--db", "db", help=LEDGER)
def erase(*, key: str, yes: bool, db: str) -> Exit:
    """Erase the contents of a key for good; its versions stay numbered, and the chain of hashes stays whole."""
    from yaoki.cli.frame.asking import confirm

    asyncio.run(_known(db, key))
    confirm(f"erase all contents of {key} for good?", yes=yes)
    return asyncio.run(_erase(output(), db, key))


@click.command()
@click.argument("sink")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Versions a second at most.")
@setting("--db", "db", help=LEDGER)
def deliver(*, sink: str, rate: float | None, db: str) -> Exit:
    """Bring everything that is sealed to a sink, a new one from the beginning; stop and go on whenever you like.

    SINK is written as for `yk audit`: 's3://BUCKET/logs/{key}-{version}.log', a folder, postgresql://...#TABLE, ...
    """
    return asyncio.run(_deliver(output(), db, sink, rate))


@click.command()
@click.option("--older-than", type=DURATION, required=True, help="Let go of what was sealed longer ago: 90d.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and what holds the rest.")
@setting("--db", "db", help=LEDGER)
def prune(*, older_than: float, dry_run: bool, db: str) -> Exit:
    """Let go of old rows that every sink has and every audit has seen; the chain of hashes stays whole.

    For cron: safe to repeat and to interrupt. Exits with 1 if something holds back what is old enough.
    """
    return asyncio.run(_prune(output(), db, older_than, dry_run=dry_run))


async def _known(db: str, key: str) -> None:
    """Who misspells a key must not believe that a person's data is gone."""
    async with opened(db) as ledger:
        if not await ledger.history(key):
            raise UsageError(f"no version of {key!r} is kept: nothing was erased", do="check the key: `yk ledger keys` lists them; what was pruned is gone")


async def _erase(out: Output, db: str, key: str) -> Exit:
    async with opened(db) as ledger:
        erased = await ledger.erase(key)
    out.emit({"key": key, "erased": erased})
    out.say(f"{erased} content(s) of {key} were erased; delete the copies in sinks: a full audit names those that are left")
    return Exit.OK


async def _deliver(out: Output, db: str, to: str, rate: float | None) -> Exit:
    from yaoki import runtime
    from yaoki.ledger import Deliverer
    from yaoki.ledger.leases import give_up_all
    from yaoki.ledger.pipelines import Pipeline, open_sink

    sink = open_sink(Pipeline(source=db, sink=to))
    async with opened(db) as ledger:
        await sink.open()
        try:
            owner = f"yk-{runtime.new_id()[-12:]}"
            deliverer = Deliverer(ledger, sink, owner=owner, rate_per_s=rate)
            await ledger.seal(owner)
            with _bar(out, await deliverer.backlog()) as progress:
                done = await deliverer.deliver(progress=progress)
            left = await deliverer.backlog()
            await give_up_all(ledger.store, owner)
        finally:
            await sink.close()
    out.emit({"stored": done.stored, "present": done.present, "quarantined": done.quarantined, "left": left, "down": done.down})
    out.say(f"{done.stored} stored, {done.present} were there already, {done.quarantined} set aside, {left} left")
    if done.down:
        out.say(f"the sink takes nothing: {done.down}")
    if left and not done.down:
        out.say("another process is delivering the rest: its lease is not ours")
    return Exit.FINDING if left or done.quarantined else Exit.OK


@contextlib.contextmanager
def _bar(out: Output, total: int) -> Iterator[Callable[[int, int], object]]:
    """A progress bar for people who look at a terminal, on stderr; else nothing."""
    from yaoki.cli.frame.output import is_terminal

    if out.json or not is_terminal(sys.stderr):
        yield lambda _done, _total: None
        return
    with click.progressbar(length=total, label="delivering", file=sys.stderr, show_pos=True) as bar:
        yield lambda done, _total: bar.update(done - bar.pos)


async def _prune(out: Output, db: str, older_than_s: float, *, dry_run: bool) -> Exit:
    from yaoki.ledger.retention import prune as let_go

    async with opened(db) as ledger:
        done = await let_go(ledger, await ledger.store.now() - older_than_s, dry_run=dry_run)
    out.emit(done)
    out.say(f"{done.rows} row(s) {'would go' if dry_run else 'went'}; their epochs stay, and the chain of hashes with them")
    for part, why in done.held.items():
        out.say(f"partition {part} keeps more than that: {why}")
    for line in done.waiting:
        out.say(line)
    return Exit.FINDING if done.held else Exit.OK
