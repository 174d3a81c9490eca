"""`undo`: have a run undone as a whole, also a completed one, or all runs that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from yaoki.cli.frame import Exit, output
from yaoki.cli.runs.asking import Asked, run_argument_optional, send, story_of, who_option
from yaoki.cli.runs.bulk import Fits, LeftAlone, bulk_options, for_all, one_or_many
from yaoki.cli.runs.choosing import filters
from yaoki.errors import UndoRunError, UsageError
from yaoki.saga.family import parent_of
from yaoki.saga.records import RunState

if TYPE_CHECKING:
    from yaoki.cli.runs.story import Story


@click.command()
@run_argument_optional
@filters
@bulk_options
@click.option("--past-pivot", is_flag=True, help="Leave what has no undo, from the point of no return on; the history names it.")
@click.option("--reason", "--why", default="undone", show_default=True, help="Kept in the history, and in the log of operators.")
@who_option
def undo(*, run: str | None, dry_run: bool, yes: bool, past_pivot: bool, reason: str, who: str, db: str, **wanted: Any) -> Exit:
    r"""Undo a run as a whole, also a completed one, or all runs that fit: completed and blocked ones unless --state says otherwise.

    One that is past its point of no return is undone once it is completed. Refused, or left alone, where something would stay: a
    step from the point of no return on that has no undo.

    \b
    Examples:
      yk runs undo trip-42 --why 'the conference was called off'
      yk runs undo trip-42 --past-pivot
      yk runs undo --saga book-trip --where event=conf --dry-run
    """
    one_or_many(run, many=any(wanted.values()), verb="undo")
    from yaoki.cli.frame.journal import wait_for

    if run is not None:
        return wait_for(_undo_one(db, run, reason, who, past_pivot=past_pivot))
    wanted["states"] = wanted["states"] or (RunState.COMPLETED, RunState.BLOCKED)
    return wait_for(for_all(output(), db, wanted, lambda story: _each(story, reason, who, past_pivot=past_pivot), verb="undo", dry_run=dry_run, yes=yes))


async def _undo_one(db: str, run: str, reason: str, who: str, *, past_pivot: bool) -> Exit:
    from yaoki.cli.frame.journal import find, observed
    from yaoki.saga.engine.undos import refuse_part

    async with observed(db) as journal:
        story = await story_of(journal, (await find(journal, run)).header.id)
        await refuse_part(journal, story.stored.header.id)
    return await send(output(), db, _one(story, reason, who, past_pivot=past_pivot))


def _one(story: Story, reason: str, who: str, *, past_pivot: bool) -> list[Asked]:
    header = story.stored.header
    stay = _checked(story, past_pivot=past_pivot)
    if story.machine is not None and not header.state.is_end and story.machine.past_pivot:
        output().remark(f"{header.id} can only go forward: it is undone once it is completed")
    if stay:
        output().remark(f"{', '.join(stay)}: left, unless the code that undoes it says how")
    return _asked(header.id, reason, who, past_pivot=past_pivot)


def _each(story: Story, reason: str, who: str, *, past_pivot: bool) -> list[Fits]:
    header = story.stored.header
    if parent_of(header.id):
        raise LeftAlone("are parts of other runs, by their names")
    try:
        _checked(story, past_pivot=past_pivot)
    except UndoRunError as refused:
        raise LeftAlone(f"cannot be undone ({refused.args[0]})") from refused
    except UsageError:
        raise LeftAlone("cannot be read") from None
    return [Fits(_asked(header.id, reason, who, past_pivot=past_pivot), header.saga, header.state.value)]


def _checked(story: Story, *, past_pivot: bool) -> tuple[str, ...]:
    """What would stay, as far as the journal knows. Raises UndoRunError."""
    from yaoki.saga.undoing import check

    if story.machine is None:
        raise UsageError(f"run {story.stored.header.id} cannot be read: {story.wrong}", do="see `yk runs show`")
    graph = story.machine.graph
    return check(story.machine, lambda name: not graph.nodes[graph.index[name]].undo, past_pivot=past_pivot)


def _asked(run: str, reason: str, who: str, *, past_pivot: bool) -> list[Asked]:
    from yaoki.saga.engine.undos import request

    return [(run, "undo", msgspec.json.decode(request(reason, past_pivot=past_pivot, who=who)))]
