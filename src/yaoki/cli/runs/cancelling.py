"""`cancel`: ask a run to undo itself, or all runs that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.runs.asking import Asked, ask_one, refuse_ended, run_argument_optional, who_option
from yaoki.cli.runs.bulk import Fits, LeftAlone, bulk_options, for_all, one_or_many
from yaoki.cli.runs.choosing import filters
from yaoki.errors import UsageError
from yaoki.saga.records import ENDS, RunState

if TYPE_CHECKING:
    from yaoki.cli.runs.story import Story

UNFINISHED = (RunState.RUNNING, RunState.BLOCKED)


@click.command()
@run_argument_optional
@filters
@bulk_options
@click.option("--reason", "--why", default="cancelled", show_default=True, help="Kept in the history, and in the log of operators.")
@who_option
def cancel(*, run: str | None, dry_run: bool, yes: bool, reason: str, who: str, db: str, **wanted: Any) -> Exit:
    r"""Ask a run to undo itself, or all runs that fit. Refused, or left alone, once it has passed its point of no return.

    \b
    Examples:
      yk runs cancel trip-42 --why 'customer asked'
      yk runs cancel --saga book-trip --state blocked --older-than 1h --dry-run
      yk runs cancel --where customer=42 --why 'account closed' --yes
    """
    one_or_many(run, many=any(wanted.values()), verb="cancel")
    if run is not None:
        return ask_one(output(), db, run, lambda story: _one(story, reason, who))
    from yaoki.cli.frame.journal import wait_for

    wanted["states"] = tuple(state for state in wanted["states"] or UNFINISHED if state not in ENDS)
    return wait_for(for_all(output(), db, wanted, lambda story: _each(story, reason, who), verb="cancel", dry_run=dry_run, yes=yes))


def _one(story: Story, reason: str, who: str) -> list[Asked]:
    header = story.stored.header
    refuse_ended(story)
    if story.machine is not None and story.machine.abort is not None:
        raise UsageError(f"run {header.id} is undoing itself already", do="`yk runs show` says how far it is", run_id=header.id)
    if pivot := _passed(story):
        raise UsageError(f"run {header.id} has passed {pivot}, its point of no return: it can only go forward",
                         do="let it finish, and take its effects back by a run of your own", exit_code=Exit.REFUSED)
    return [(header.id, "cancel", {"reason": reason, "who": who})]


def _each(story: Story, reason: str, who: str) -> list[Fits]:
    header = story.stored.header
    if header.state.is_end or (story.machine is not None and story.machine.abort is not None):
        raise LeftAlone("")  # it has gone on meanwhile
    if pivot := _passed(story):
        raise LeftAlone(f"have passed {pivot}, their point of no return")
    return [Fits([(header.id, "cancel", {"reason": reason, "who": who})], header.saga, header.state.value)]


def _passed(story: Story) -> str:
    """The pivot, if the run is past it; else ""."""
    machine = story.machine
    return machine.graph.names[machine.graph.pivot] if machine is not None and machine.past_pivot else ""
