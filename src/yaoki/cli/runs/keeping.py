"""`export` and `purge`: histories as files, and their end."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from yaoki import runtime
from yaoki.cli.frame import Exit, Output, output
from yaoki.cli.frame.durations import show_duration, show_instant
from yaoki.cli.frame.options import DURATION
from yaoki.cli.runs.choosing import db_option, every, filters
from yaoki.cli.runs.listing import as_data
from yaoki.saga.attributes import Attributes
from yaoki.saga.records import ENDS, RunState
from yaoki.text import grouped

if TYPE_CHECKING:
    from yaoki.saga.journal.port import Journal
    from yaoki.saga.records import Header

# Runs removed in one transaction: short enough that a running engine does not wait for it.
BATCH = 500


@click.command()
@filters
@click.option("-o", "--output", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write into this file.")
def export(*, db: str, states: tuple[RunState, ...], saga: str, since: float | None, until: float | None, where: Attributes,
           idle: float | None, file: Path | None) -> None:
    """Write runs with their whole histories as JSON Lines, newest first."""
    from yaoki.cli.frame.journal import wait_for

    wanted = {"states": states, "saga": saga, "since": since, "until": until, "where": where, "idle": idle}
    with contextlib.ExitStack() as stack:
        into: IO[str] = sys.stdout
        if file is not None:
            into = stack.enter_context(file.open("w", encoding="utf-8"))
        count = wait_for(_export(db, wanted, into))
    if file is not None:
        output().emit({"runs": count, "file": str(file)})
        output().remark(f"wrote {grouped(count)} runs to {file}")


async def _export(db: str, wanted: dict[str, Any], into: IO[str]) -> int:
    from yaoki.cli.frame.journal import observed
    from yaoki.cli.frame.output import to_json
    from yaoki.cli.runs.story import Story

    count = 0
    async with observed(db) as journal:
        async for header in every(journal, **wanted):
            stored = await journal.read(header.id)
            if stored is not None:  # else it was purged a moment ago
                story = Story(stored, None)
                into.write(to_json({**as_data(stored.header), **story.ends(), "history": story.history()}) + "\n")
                count += 1
    return count


@click.command()
@click.option("--older-than", type=DURATION, required=True, help="Only runs that ended longer ago: 30d, 12h.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@db_option
def purge(*, older_than: float, dry_run: bool, yes: bool, db: str) -> Exit:
    """Remove runs that have ended, with their histories. Unfinished and blocked runs are never removed.

    The id of a removed run is free again: starting it once more is a new run.
    """
    from yaoki.cli.frame.journal import wait_for

    return wait_for(_purge(output(), db, older_than, dry_run=dry_run, yes=yes))


async def _purge(out: Output, db: str, older_than: float, *, dry_run: bool, yes: bool) -> Exit:
    from yaoki.cli.frame.asking import confirm
    from yaoki.cli.frame.journal import observed

    before = runtime.unix_time() - older_than
    async with observed(db) as journal:
        counts = await _old(journal, before)
        total = sum(counts.values())
        out.table(("saga", "state", "runs"), [(saga, state, count) for (saga, state), count in sorted(counts.items())])
        if total and not dry_run:
            confirm(f"remove {grouped(total)} runs that ended more than {show_duration(older_than)} ago?", yes=yes)
        removed = 0
        while total and not dry_run and (some := await journal.purge(before, BATCH)):
            removed += some
    out.emit({"ended_before": show_instant(before), "found": total, "removed": removed})
    out.say(f"{grouped(removed)} of {grouped(total)} runs removed" if total else "no run is that old")
    return Exit.OK


async def _old(journal: Journal, before: float) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    header: Header
    async for header in every(journal, states=tuple(state for state in RunState if state in ENDS), until=before):
        if header.finished_at < before:
            key = (header.saga, header.state.value)
            counts[key] = counts.get(key, 0) + 1
    return counts
