"""One action on all runs that fit: counted by why, asked before, done with who and why.

    for_all(...)  each run that fits ──decide──▶ what is asked of it, or a reason to leave it alone
                  ──▶ a table with numbers ──▶ --dry-run ends here ──▶ a question, unless --yes ──▶ written
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from yaoki.cli.frame import Exit, Output
from yaoki.cli.runs.asking import Asked, send, story_of
from yaoki.errors import UsageError
from yaoki.text import grouped

if TYPE_CHECKING:
    from yaoki.cli.runs.story import Story

F = TypeVar("F", bound=Callable[..., Any])


class LeftAlone(Exception):
    """Raised by a decision: not this run. Its text goes on after `12 `: "have passed payment, their point of no return"; "": not counted."""


class Fits:
    """What of one run is asked. asked: the requests, or none. about: what the table counts it under."""

    def __init__(self, asked: list[Asked], *about: str) -> None:
        self.asked = asked
        self.about = about


Decide = Callable[["Story"], list[Fits]]
"""Of one run that fits the filters. Raises LeftAlone."""


def bulk_options(command: F) -> F:
    """`--limit --dry-run --yes`."""
    command = click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)
    command = click.option("--dry-run", is_flag=True, help="Only say what would be done.")(command)
    return click.option("--limit", type=click.IntRange(min=1), help="Of those that fit, at most this many; try a few first.")(command)


async def for_all(out: Output, db: str, wanted: dict[str, Any], decide: Decide, *, verb: str, noun: str = "runs",
                  columns: tuple[str, ...] = ("saga", "state"), dry_run: bool, yes: bool) -> Exit:
    """Do it. verb: `cancel`, as in "cancel 12 runs?". noun: what is counted."""
    from yaoki.cli.frame.asking import confirm

    found, left = await _found(db, wanted, decide)
    asked = [each for fit in found for each in fit.asked]
    counts = Counter(fit.about for fit in found)
    out.table((*columns, noun), [(*about, count) for about, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))])
    for why, count in sorted(left.items()):
        out.remark(f"{grouped(count)} {why}, and are left alone")
    if dry_run:
        for run, _, data in asked:
            out.emit({"run": run, "would": verb, **({"step": data["step"]} if "step" in data else {})})
        out.say(f"{verb}: would be done to {grouped(len(asked))} {noun}")
        return Exit.OK
    if not asked:
        out.say("no run fits")
        return Exit.OK
    confirm(f"{verb} {grouped(len(asked))} {noun}?", yes=yes)
    return await send(out, db, asked)


async def _found(db: str, wanted: dict[str, Any], decide: Decide) -> tuple[list[Fits], Counter[str]]:
    from yaoki.cli.frame.journal import observed
    from yaoki.cli.runs.choosing import every

    found: list[Fits] = []
    left: Counter[str] = Counter()
    async with observed(db) as journal:
        async for header in every(journal, **wanted):
            try:
                found += decide(await story_of(journal, header.id))
            except LeftAlone as reason:
                left.update([str(reason)] if str(reason) else [])
    return found, left


def one_or_many(run: str | None, *, many: bool, verb: str) -> None:
    """Raises UsageError unless there is either a run, or a filter (or `--all`)."""
    if many == (run is not None):
        raise UsageError("name a run, or say which ones by filters", do=f"yk runs {verb} RUN, or yk runs {verb} --saga NAME --older-than 1h")
