"""`yk audit gaps|show|acknowledge`: what audits found, from the files and ledgers in which they remember."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from yaoki.cli.frame import Exit, Output, output
from yaoki.errors import ConfigError

if TYPE_CHECKING:
    from yaoki.ledger.findings import Finding
    from yaoki.ledger.store.port import Store
    from yaoki.ledger.verdicts import Verdict

where_option = click.option("--in", "where", default="", metavar="FILE|URL",
                            help="The audit's file or the ledger; by default all files under .yaoki/.")


@click.command()
@where_option
@click.option("--all", "everything", is_flag=True, help="Closed ones too.")
def gaps(*, where: str, everything: bool) -> Exit:
    """List what is missing or wrong, and how far each audit has come. Exits with 1 if anything is open."""
    return asyncio.run(_gaps(output(), where, everything=everything))


@click.command()
@click.argument("finding")
@where_option
def show(*, finding: str, where: str) -> Exit:
    """Show one finding with its evidence."""
    return asyncio.run(_show(output(), finding, where))


@click.command()
@click.argument("finding")
@click.option("--why", required=True, help="Kept with the finding.")
@where_option
def acknowledge(*, finding: str, why: str, where: str) -> Exit:
    """Say that a finding is known. It stays open until the sink is in order, but raises no alarm."""
    return asyncio.run(_acknowledge(output(), finding, why, where))


@contextlib.asynccontextmanager
async def opened(where: str) -> AsyncIterator[list[Store]]:
    """The stores in which audits remember."""
    from yaoki.ledger.ledger import store_for
    from yaoki.ledger.pipelines import STATE_FOLDER

    names = [where] if where else sorted(str(path) for path in STATE_FOLDER.glob("audit-*.db"))
    if not names:
        raise ConfigError("no audit has run here",
                          do="run one (`yk audit SOURCE --sink SINK`), or name its file, or the ledger that keeps it: --in sqlite:///shop.db")
    stores: list[Store] = []
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            if "://" not in name and not Path(name).exists():  # noqa: ASYNC240
                raise ConfigError(f"there is no file {name}", do="check --in")
            store = store_for(name if "://" in name else f"sqlite:///{name}")
            await store.open()
            stack.push_async_callback(store.close)
            stores.append(store)
        yield stores


async def _gaps(out: Output, where: str, *, everything: bool) -> Exit:
    from yaoki.ledger.notes import all_progress, load_findings

    found: list[Finding] = []
    silent = False
    async with opened(where) as stores:
        for store in stores:
            now = await store.now()
            for each in await all_progress(store):
                silent = silent or each.is_silent(now)
                out.emit({"progress": each, "age_s": now - each.audited_through, "silent": each.is_silent(now)})
                out.say(f"{each.sink}: audited through {_time(each.audited_through)}, looked {now - each.looked_at:.0f} s ago"
                        f"{' (SILENT: is its auditor running?)' if each.is_silent(now) else ''}; longest delay "
                        f"{each.longest_delay_s:.1f} s of {each.bound_s:.0f} s promised")
                say_verdicts(out, each.verdicts)
            found += await load_findings(store, everything=everything)
    for finding in found:
        out.emit({"finding": finding})
    say_findings(out, found)
    return Exit.FINDING if any(each.state in {"open", "lost"} for each in found) else Exit.OK


async def _show(out: Output, finding: str, where: str) -> Exit:
    async with opened(where) as stores:
        found, _ = await _find(stores, finding)
    out.emit(found)
    about = f"{found.key} version {found.version}" if found.version >= 0 else found.part or found.sink
    out.say(f"{found.id}  {found.kind}: {about}, {found.state}")
    out.say(f"sink        {found.sink}")
    out.say(f"written     {_time(found.written_at)}")
    out.say(f"found       {_time(found.opened_at)}, {found.delay_s:.1f} s later; promised within {found.bound_s:.0f} s")
    if found.closed_at:
        out.say(f"closed      {_time(found.closed_at)}")
    if found.note:
        out.say(f"note        {found.note}")
    for name, value in found.evidence.items():
        out.say(f"{name:<12}{value}")
    return Exit.OK


async def _acknowledge(out: Output, finding: str, why: str, where: str) -> Exit:
    from yaoki.ledger.findings import Book
    from yaoki.ledger.notes import save_findings
    from yaoki.ledger.rules import Rules

    async with opened(where) as stores:
        found, store = await _find(stores, finding)
        book = Book(found.sink, Rules(), [found])
        after = book.acknowledge(found, why)
        async with store.transaction() as tx:
            await save_findings(tx, book.take_changed())
    out.emit(after)
    out.say(f"{after.id} is acknowledged; it closes when the sink is in order")
    return Exit.OK


async def _find(stores: list[Store], beginning: str) -> tuple[Finding, Store]:
    from yaoki.errors import InputError
    from yaoki.ledger.notes import find_finding

    for store in stores[:-1]:
        with contextlib.suppress(InputError):
            return await find_finding(store, beginning), store
    return await find_finding(stores[-1], beginning), stores[-1]


def say_verdicts(out: Output, verdicts: Sequence[Verdict]) -> None:
    """One line for each verdict and reason, with the partitions that share it."""
    shared: dict[tuple[str, str], list[str]] = {}
    for each in verdicts:
        shared.setdefault((each.kind, each.reason), []).append(each.part)
    for (kind, reason), parts in shared.items():
        who = "all partitions" if len(parts) == len(verdicts) > 1 else ", ".join(parts)
        out.say(f"  {who}: {kind}. {reason}")


def say_findings(out: Output, found: list[Finding]) -> None:
    """A table of findings, and a sentence when there are none."""
    if not found:
        out.say("no finding is open")
        return
    out.table(("finding", "kind", "key", "version", "state", "found", "note"), [
        (each.id, each.kind, each.key or each.part or "-", each.version if each.version >= 0 else "-", each.state,
         _time(each.opened_at), each.note or each.evidence.get("found", "")) for each in found])


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else "not known"
