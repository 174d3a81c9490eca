"""`retry`: blocked steps again, by their old keys; or, from a step on, taken back and made anew. One run, or all that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.options import since_options
from yaoki.cli.runs.asking import Asked, ask_one, refuse_not_blocked, run_argument_optional, who_option, why_option
from yaoki.cli.runs.bulk import Fits, LeftAlone, bulk_options, for_all
from yaoki.cli.runs.choosing import db_option, idle_option, saga_option, state_option, where_option
from yaoki.errors import RetryFromError, UsageError
from yaoki.saga.records import RunState

if TYPE_CHECKING:
    from yaoki.cli.runs.story import Story
    from yaoki.saga.records import Failure


@click.command()
@run_argument_optional
@click.argument("step", required=False)
@click.option("--from", "from_", default="", metavar="STEP", help="Take this step back, and all that follows from it, and make it anew.")
@click.option("--all", "everything", is_flag=True, help="All runs that fit, instead of one.")
@saga_option
@state_option
@click.option("--error", default="", metavar="TEXT", help="With --all: only steps whose error contains this.")
@where_option
@since_options
@idle_option
@bulk_options
@who_option
@why_option
@db_option
def retry(*, run: str | None, step: str | None, from_: str, everything: bool, error: str, who: str, why: str, db: str, dry_run: bool, yes: bool,
          **wanted: Any) -> Exit:
    r"""Try the blocked steps of a run again, after a fix; or those of all runs that fit.

    With --from: what was made from that step on is undone first, and then made anew, with idempotency keys of its own. Refused
    where something of it cannot be undone, and once the run has ended or passed its point of no return.

    \b
    Examples:
      yk runs retry trip-42
      yk runs retry trip-42 --from flight --why 'wrong date'
      yk runs retry --all --saga book-trip --error KeyError --limit 5
      yk runs retry --all --saga book-trip --where fare=old --from flight --dry-run
    """
    if everything == (run is not None) or (from_ and step):
        raise UsageError("name a run, or say --all", do="yk runs retry RUN [STEP | --from STEP], or yk runs retry --all --saga NAME")
    if run is not None:
        return ask_one(output(), db, run, lambda story: _from(story, from_, who, why) if from_ else _blocked(story, step or "", who, why))
    from yaoki.cli.frame.journal import wait_for

    chosen = {**wanted, "states": wanted["states"] or ((RunState.RUNNING, RunState.BLOCKED) if from_ else (RunState.BLOCKED,))}
    if from_:
        return wait_for(for_all(output(), db, chosen, lambda story: _each_from(story, from_, error, who, why), verb="retry", dry_run=dry_run, yes=yes))
    return wait_for(for_all(output(), db, chosen, lambda story: _each_blocked(story, error, who, why), verb="retry", noun="blocked steps",
                            columns=("saga", "step", "error"), dry_run=dry_run, yes=yes))


# ── by the old key ───────────────────────────────────────────────────────────────────────────────────────────────────


def _blocked(story: Story, step: str, who: str, why: str) -> list[Asked]:
    steps = [step] if step else list(story.blocked())
    for each in steps or [""]:
        refuse_not_blocked(story, each)
    return [_again(story, each, who, why) for each in steps]


def _each_blocked(story: Story, error: str, who: str, why: str) -> list[Fits]:
    header = story.stored.header
    return [Fits([_again(story, step, who, why)], header.saga, _place(step, failure), str(failure))
            for step, failure in story.blocked().items() if error in str(failure)]


def _again(story: Story, step: str, who: str, why: str) -> Asked:
    return story.stored.header.id, "resolve", {"step": step, "decision": "retry", "result": None, "who": who, "why": why}


def _place(step: str, failure: Failure) -> str:
    return f"undo of {step}" if failure.undo else step


# ── anew ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from(story: Story, step: str, who: str, why: str) -> list[Asked]:
    from yaoki.saga.engine.retries import checked, request

    if story.machine is None:
        raise UsageError(f"run {story.stored.header.id} cannot be read: {story.wrong}", do="see `yk runs show`")
    names = checked(story.machine, step)
    output().say(f"{story.stored.header.id}: takes back what there is of {', '.join(reversed(names))}, and makes it anew")
    return [(story.stored.header.id, "retry", msgspec.json.decode(request(step, who=who, why=why)))]


def _each_from(story: Story, step: str, error: str, who: str, why: str) -> list[Fits]:
    from yaoki.saga.engine.retries import checked, request

    header = story.stored.header
    if story.machine is None or (error and not any(error in str(failure) for failure in story.blocked().values())):
        raise LeftAlone("")
    try:
        checked(story.machine, step)
    except RetryFromError as refused:
        raise LeftAlone(f"cannot be retried from {step} ({refused.args[0]})") from refused
    return [Fits([(header.id, "retry", msgspec.json.decode(request(step, who=who, why=why)))], header.saga, header.state.value)]
