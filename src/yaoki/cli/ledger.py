"""Look into a ledger: its keys, their histories, its sealed epochs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from yaoki.cli.frame import Exit, Output, output
from yaoki.cli.frame.options import INSTANT, limit_option, setting, yes_option
from yaoki.errors import ConfigError

if TYPE_CHECKING:
    from yaoki.ledger import Ledger


@click.group()
def command() -> None:
    """Look into a ledger: its keys, their histories, its sealed epochs."""


@command.command()
@click.option("--after", default="", metavar="KEY", help="Begin after this key.")
@limit_option
@setting("--db", "db", help="The ledger: sqlite:///FILE or postgresql://...")
def keys(*, after: str, limit: int, db: str) -> Exit:
    """List keys with their newest versions."""
    return asyncio.run(_keys(output(), db, after, limit))


@command.command()
@click.argument("key")
@click.option("--at", type=INSTANT, help="Only versions written until then: 1h (ago), or an ISO date or time.")
@setting("--db", "db", help="The ledger: sqlite:///FILE or postgresql://...")
def history(*, key: str, at: float | None, db: str) -> Exit:
    """Show every version of a key, oldest first."""
    return asyncio.run(_history(output(), db, key, at))


@command.command()
@click.option("--part", type=click.IntRange(min=0), help="One partition only.")
@click.option("--verify", is_flag=True, help="Check the chain of hashes against every row. Exits with 1 if it does not hold.")
@limit_option
@setting("--db", "db", help="The ledger: sqlite:///FILE or postgresql://...")
def epochs(*, part: int | None, verify: bool, limit: int, db: str) -> Exit:
    """List the newest sealed epochs of each partition."""
    return asyncio.run(_epochs(output(), db, part, limit, verify=verify))


@command.command()
@click.argument("key")
@yes_option
@setting("--db", "db", help="The ledger: sqlite:///FILE or postgresql://...")
def erase(*, key: str, yes: bool, db: str) -> Exit:
    """Erase the contents of a key for good; its versions stay numbered, and the chain of hashes stays whole."""
    from yaoki.cli.frame.asking import confirm

    confirm(f"erase all contents of {key} for good?", yes=yes)
    return asyncio.run(_erase(output(), db, key))


@command.command()
@click.argument("sink")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Versions a second at most.")
@setting("--db", "db", help="The ledger: sqlite:///FILE or postgresql://...")
def deliver(*, sink: str, rate: float | None, db: str) -> Exit:
    """Bring everything that is sealed to a sink, a new one from the beginning; stop and go on whenever you like.

    SINK is written as for `yk audit`: 's3://BUCKET/logs/{key}-{version}.log', a folder, postgresql://...#TABLE, ...
    """
    return asyncio.run(_deliver(output(), db, sink, rate))


@contextlib.asynccontextmanager
async def _opened(db: str) -> AsyncIterator[Ledger]:
    from yaoki.ledger import Ledger

    if db.startswith("sqlite:///") and not Path(db.removeprefix("sqlite:///")).exists():  # noqa: ASYNC240
        raise ConfigError(f"there is no ledger at {db}", do="check --db; a ledger is made by the program that writes it")
    async with Ledger(db) as ledger:
        yield ledger


async def _keys(out: Output, db: str, after: str, limit: int) -> Exit:
    async with _opened(db) as ledger:
        found = await ledger.keys(after=after, limit=limit)
    for key, version in found:
        out.emit({"key": key, "version": version})
    out.table(("key", "version"), found)
    if len(found) == limit:
        out.remark(f"there may be more: --after {found[-1][0]}")
    return Exit.OK


async def _history(out: Output, db: str, key: str, at: float | None) -> Exit:
    async with _opened(db) as ledger:
        found = [each for each in await ledger.history(key) if at is None or each.written_at <= at]
    for each in found:
        out.emit({"key": key, "version": each.version, "written_at": each.written_at, "schema": each.schema,
                  "erased": each.content is None, "content": _shown(each.content)})
    if not found:
        out.say(f"{key} has no version")
        return Exit.FINDING
    out.table(("version", "written", "schema", "content"),
              [(each.version, _time(each.written_at), each.schema, _shown(each.content)) for each in found])
    return Exit.OK


async def _epochs(out: Output, db: str, part: int | None, limit: int, *, verify: bool) -> Exit:
    async with _opened(db) as ledger:
        rows = []
        for each in range(ledger.partitions) if part is None else [part]:
            last = await ledger.last_epoch(each)
            if last is not None:
                rows += await ledger.epochs(each, first=max(last.epoch - limit + 1, 0), limit=limit)
        faults = await ledger.verify() if verify else []
    for epoch in rows:
        out.emit({"part": epoch.part, "epoch": epoch.epoch, "first_seq": epoch.first_seq, "rows": epoch.rows,
                  "count": epoch.count, "sum128": epoch.sum128, "beat": epoch.beat, "sealed_at": epoch.sealed_at,
                  "hash": epoch.hash})
    out.table(("part", "epoch", "numbers", "rows", "beat", "sealed", "hash"), [
        (epoch.part, epoch.epoch, f"{epoch.first_seq}..{epoch.next_seq - 1}" if epoch.rows else "none", epoch.rows,
         epoch.beat if epoch.beat >= 0 else "-", _time(epoch.sealed_at), epoch.hash[:16]) for epoch in rows])
    if verify:
        out.emit({"faults": faults})
        out.say("\n".join(faults) if faults else "the chain of hashes holds, and every row is as it was sealed")
    return Exit.FINDING if faults else Exit.OK


async def _erase(out: Output, db: str, key: str) -> Exit:
    async with _opened(db) as ledger:
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
    async with _opened(db) as ledger:
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


def _shown(content: bytes | None) -> str:
    return "(erased)" if content is None else content.decode("utf-8", "replace")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
