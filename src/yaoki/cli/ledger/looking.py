"""`yk ledger keys|history|epochs|schemas`: what is in a ledger."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import click

from yaoki.cli.frame import Exit, Output, output
from yaoki.cli.frame.options import INSTANT, limit_option, setting
from yaoki.cli.ledger.opening import LEDGER, opened
from yaoki.errors import UsageError


@click.command()
@click.option("--after", default="", metavar="KEY", help="Begin after this key.")
@limit_option
@setting("--db", "db", help=LEDGER)
def keys(*, after: str, limit: int, db: str) -> Exit:
    """List keys with their newest versions."""
    return asyncio.run(_keys(output(), db, after, limit))


@click.command()
@click.argument("key")
@click.option("--at", type=INSTANT, help="Only versions written until then: 1h (ago), or an ISO date or time.")
@setting("--db", "db", help=LEDGER)
def history(*, key: str, at: float | None, db: str) -> Exit:
    """Show every version of a key, oldest first."""
    return asyncio.run(_history(output(), db, key, at))


@click.command()
@click.option("--part", type=click.IntRange(min=0), help="One partition only.")
@click.option("--verify", is_flag=True, help="Check the chain of hashes against every row. Exits with 1 if it does not hold.")
@limit_option
@setting("--db", "db", help=LEDGER)
def epochs(*, part: int | None, verify: bool, limit: int, db: str) -> Exit:
    """List the newest sealed epochs of each partition."""
    return asyncio.run(_epochs(output(), db, part, limit, verify=verify))


@click.command()
@click.argument("target")
@click.option("--since", type=INSTANT, default=None, help="Only what was written since: 90d (ago), or an ISO date or time.")
@limit_option
@setting("--db", "db", help=LEDGER)
def schemas(*, target: str, since: float | None, limit: int, db: str) -> Exit:
    """Would this program read what is there? TARGET is MODULE:NAME of its Schemas. Exits with 1 if something is unreadable."""
    return asyncio.run(_schemas(output(), db, target, since or 0.0, limit))


async def _keys(out: Output, db: str, after: str, limit: int) -> Exit:
    async with opened(db) as ledger:
        found = await ledger.keys(after=after, limit=limit)
    for key, version in found:
        out.emit({"key": key, "version": version})
    out.table(("key", "version"), found)
    if not found:
        out.say(f"no keys after {after}" if after else "no keys yet")
    if len(found) == limit:
        out.remark(f"there may be more: --after {found[-1][0]}")
    return Exit.OK


async def _history(out: Output, db: str, key: str, at: float | None) -> Exit:
    async with opened(db) as ledger:
        found = [each for each in await ledger.history(key) if at is None or each.written_at <= at]
    for each in found:
        out.emit({"key": key, "version": each.version, "written_at": each.written_at, "schema": each.schema,
                  "erased": each.content is None, "content": _shown(each.content)})
    if not found:
        raise UsageError(f"no version of {key!r} is kept" + ("" if at is None else " from then"),
                         do="check the key: `yk ledger keys` lists them; what was pruned is gone")
    out.table(("version", "written", "schema", "content"),
              [(each.version, _time(each.written_at), each.schema, _shown(each.content)) for each in found])
    return Exit.OK


async def _epochs(out: Output, db: str, part: int | None, limit: int, *, verify: bool) -> Exit:
    async with opened(db) as ledger:
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
    if not rows:
        out.say("nothing is sealed yet")
    if verify:
        out.emit({"faults": faults})
        out.say("\n".join(faults) if faults else "the chain of hashes holds, and every row is as it was sealed")
    return Exit.FINDING if faults else Exit.OK


async def _schemas(out: Output, db: str, target: str, since: float, limit: int) -> Exit:
    from yaoki.cli.ledger.opening import load_schemas
    from yaoki.ledger.schemas import unreadable

    chosen = load_schemas(target)
    found = []
    async with opened(db) as ledger:
        async for each in unreadable(ledger, chosen, since=since):
            found.append(each)
            if len(found) == limit:
                break
    for each in found:
        out.emit(each)
    if not found:
        out.say(f"{target} reads everything that is sealed, up to schema {chosen.current}")
        return Exit.OK
    out.table(("key", "version", "schema", "why"), [(each.key, each.version, each.schema, each.why) for each in found])
    return Exit.FINDING


def _shown(content: bytes | None) -> str:
    return "(erased)" if content is None else content.decode("utf-8", "replace")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
