"""`pause` and `resume` of runs: one, or all that fit. Of sagas and queues: `yk pause`, `yk resume`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from yaoki.cli.frame import Exit, Output, output
from yaoki.cli.runs.asking import run_argument_optional, who_option, why_option
from yaoki.cli.runs.bulk import bulk_options, one_or_many
from yaoki.cli.runs.choosing import GROUPS, every, filters
from yaoki.saga.records import Header
from yaoki.text import grouped

F = TypeVar("F", bound=Callable[..., Any])


def _options(command: F) -> F:
    return run_argument_optional(filters(bulk_options(who_option(why_option(command)))))


@click.command()
@_options
def pause(*, run: str | None, **given: Any) -> Exit:
    r"""Pause a run, or all that fit now: they end the attempts under way and begin nothing until they are resumed.

    Runs that are started later are not paused: pause their saga or their queue for that (`yk pause`).

    \b
    Examples:
      yk runs pause trip-42 --why 'look first'
      yk runs pause --saga book-trip --where tenant=acme --state running --older-than 1h --dry-run
    """
    return _either(run, given, pauses=True)


@click.command()
@_options
def resume(*, run: str | None, **given: Any) -> Exit:
    r"""Let a paused run go on, or all paused runs that fit.

    Runs that are held by a pause of their saga or queue are not meant: `yk resume saga NAME`.

    \b
    Examples:
      yk runs resume trip-42
      yk runs resume --saga book-trip --where tenant=acme
    """
    return _either(run, given, pauses=False)


def _either(run: str | None, given: dict[str, Any], *, pauses: bool) -> Exit:
    from yaoki.cli.frame.journal import wait_for
    from yaoki.cli.pause import change

    verb = "pause" if pauses else "resume"
    words = {name: given.pop(name) for name in ("db", "who", "why", "dry_run", "yes")}
    one_or_many(run, many=any(given.values()), verb=verb)
    if run is not None:
        return wait_for(change(words["db"], "run", (run,), who=words["who"], why=words["why"], pauses=pauses))
    given["states"] = given["states"] or GROUPS["unfinished"]
    return wait_for(_all(output(), given, verb, pauses=pauses, **words))


async def _all(out: Output, wanted: dict[str, Any], verb: str, *, db: str, who: str, why: str, dry_run: bool, yes: bool, pauses: bool) -> Exit:
    from yaoki.cli.frame.asking import confirm
    from yaoki.cli.frame.journal import observed

    async with observed(db) as journal:
        paused = {each.name for each in await journal.pauses() if each.kind == "run"}
        fits = [header async for header in every(journal, **wanted) if not header.state.is_end and (header.id in paused) != pauses]
        _count(out, fits)
        if dry_run:
            for header in fits:
                out.emit({"run": header.id, "would": verb})
            out.say(f"{verb}: would be done to {grouped(len(fits))} runs")
            return Exit.OK
        if not fits:
            out.say(f"no run that is {'not paused yet' if pauses else 'paused'} fits")
            return Exit.OK
        confirm(f"{verb} {grouped(len(fits))} runs?", yes=yes)
        changed = 0
        for header in fits:
            done = await (journal.pause if pauses else journal.resume)("run", header.id, who=who, why=why)
            out.emit({"run": header.id, "paused": pauses, "changed": done})
            changed += done
    out.say(f"{grouped(changed)} runs {'are paused now' if pauses else 'go on'}")
    return Exit.OK


def _count(out: Output, fits: list[Header]) -> None:
    counts: dict[tuple[str, str], int] = {}
    for header in fits:
        counts[header.saga, header.state.value] = counts.get((header.saga, header.state.value), 0) + 1
    out.table(("saga", "state", "runs"), [(saga, state, count) for (saga, state), count in sorted(counts.items())])
