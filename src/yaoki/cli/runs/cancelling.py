"""`cancel`: ask a run to undo itself, or all runs that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from yaoki.cli.frame import Exit, Output, output
from yaoki.cli.runs.asking import Asked, ask_one, refuse_ended, send, story_of, who_option
from yaoki.cli.runs.choosing import every, filters
from yaoki.cli.runs.completing import complete_run
from yaoki.errors import UsageError
from yaoki.saga.records import ENDS, RunState
from yaoki.text import grouped

if TYPE_CHECKING:
    from yaoki.cli.runs.story import Story
    from yaoki.saga.attributes import Attributes

UNFINISHED = (RunState.RUNNING, RunState.BLOCKED)


@click.command()
@click.argument("run", required=False, shell_complete=complete_run)
@filters
@click.option("--limit", type=click.IntRange(min=1), help="Of those that fit, at most this many; try a few first.")
@click.option("--dry-run", is_flag=True, help="Only say what would be cancelled.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--reason", "--why", default="cancelled", show_default=True, help="Kept in the history, and in the log of operators.")
@who_option
def cancel(*, run: str | None, states: tuple[RunState, ...], saga: str, since: float | None, until: float | None,
           where: Attributes, idle: float | None, limit: int | None, dry_run: bool, yes: bool, reason: str, who: str, db: str) -> Exit:
    r"""Ask a run to undo itself, or all runs that fit. Refused, or left alone, once it has passed its point of no return.

    \b
    Examples:
      yk runs cancel trip-42 --why 'customer asked'
      yk runs cancel --saga book-trip --state blocked --older-than 1h --dry-run
      yk runs cancel --where customer=42 --why 'account closed' --yes
    """
    wanted = {"saga": saga, "since": since, "until": until, "where": where, "idle": idle, "limit": limit}
    filtered = bool(states) or any(wanted.values())
    if filtered == (run is not None):
        raise UsageError("name a run, or say which ones by filters", do="yk runs cancel RUN, or yk runs cancel --saga NAME --older-than 1h")
    if run is not None:
        return ask_one(output(), db, run, lambda story: _decide(story, reason, who))
    from yaoki.cli.frame.journal import wait_for

    chosen = tuple(state for state in states or UNFINISHED if state not in ENDS)
    return wait_for(_cancel_all(output(), db, {**wanted, "states": chosen}, reason, who, dry_run=dry_run, yes=yes))


def _decide(story: Story, reason: str, who: str) -> list[Asked]:
    header = story.stored.header
    refuse_ended(story)
    if story.machine is not None and story.machine.abort is not None:
        raise UsageError(f"run {header.id} is undoing itself already", do="`yk runs show` says how far it is", run_id=header.id)
    if pivot := _passed(story):
        raise UsageError(f"run {header.id} has passed {pivot}, its point of no return: it can only go forward",
                         do="let it finish, and take its effects back by a run of your own", exit_code=Exit.REFUSED)
    return [(header.id, "cancel", {"reason": reason, "who": who})]


def _passed(story: Story) -> str:
    """The pivot, if the run is past it; else ""."""
    machine = story.machine
    return machine.graph.names[machine.graph.pivot] if machine is not None and machine.past_pivot else ""


async def _cancel_all(out: Output, db: str, wanted: dict[str, Any], reason: str, who: str, *, dry_run: bool, yes: bool) -> Exit:
    from yaoki.cli.frame.asking import confirm
    from yaoki.cli.frame.journal import observed

    asked: list[Asked] = []
    left: dict[str, int] = {}
    counts: dict[tuple[str, str], int] = {}
    async with observed(db) as journal:
        async for header in every(journal, **wanted):
            story = await story_of(journal, header.id)
            if story.stored.header.state.is_end or (story.machine is not None and story.machine.abort is not None):
                continue  # it has gone on meanwhile
            if pivot := _passed(story):
                left[pivot] = left.get(pivot, 0) + 1
                continue
            asked.append((header.id, "cancel", {"reason": reason, "who": who}))
            counts[header.saga, header.state.value] = counts.get((header.saga, header.state.value), 0) + 1
    out.table(("saga", "state", "runs"), [(saga, state, count) for (saga, state), count in sorted(counts.items())])
    for pivot, count in sorted(left.items()):
        out.remark(f"{grouped(count)} have passed {pivot}, their point of no return, and are left alone")
    if dry_run:
        for run, _, _ in asked:
            out.emit({"run": run, "would": "cancel"})
        out.say(f"{grouped(len(asked))} would be cancelled")
        return Exit.OK
    if not asked:
        out.say("no run fits")
        return Exit.OK
    confirm(f"cancel {grouped(len(asked))} runs?", yes=yes)
    return await send(out, db, asked)
