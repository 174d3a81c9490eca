"""`resolve`: what a person decides about a blocked step; of one run, or of all that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from yaoki.cli.frame import Exit, output
from yaoki.cli.runs.asking import Asked, ask_one, refuse_not_blocked, who_option, why_option
from yaoki.cli.runs.bulk import Fits, LeftAlone, bulk_options, for_all
from yaoki.cli.runs.choosing import filters
from yaoki.cli.runs.completing import complete_run
from yaoki.errors import InputError, UsageError
from yaoki.saga.records import RunState

if TYPE_CHECKING:
    from yaoki.cli.runs.story import Story

DECISIONS = ("retry", "done", "undone")


@click.command(options_metavar="[OPTIONS]")
@click.argument("words", nargs=-1, required=True, metavar="[RUN] STEP retry|done|undone",
                shell_complete=lambda ctx, param, incomplete: complete_run(ctx, param, incomplete) or list(DECISIONS))
@click.option("--all", "everything", is_flag=True, help="All runs that fit whose step of this name is blocked, instead of one.")
@click.option("--error", default="", metavar="TEXT", help="With --all: only where the error contains this.")
@filters
@bulk_options
@click.option("--result", default="null", metavar="JSON", help="With `done`: what the step would have returned.")
@who_option
@why_option
def resolve(*, words: tuple[str, ...], everything: bool, error: str, result: str, who: str, why: str, db: str, dry_run: bool, yes: bool,
            **wanted: Any) -> Exit:
    r"""Decide about a blocked step of a run, or of all runs that fit.

    \b
    retry    try it again, after a fix
    done     its effect exists: go on with --result (of an undo that is blocked: leave the effect, undo the rest)
    undone   its effect does not exist, or was removed by hand

    \b
    Examples:
      yk runs resolve trip-42 payment done --result '{"id": 7}' --why 'the bank says so'
      yk runs resolve --all mail undone --saga book-trip --error 'no such address' --dry-run
    """
    run, step, decision = _words(words, everything=everything)
    if not everything and (error or any(wanted.values())):
        raise UsageError("filters are for many runs", do="say --all, and no run: yk runs resolve --all STEP DECISION --saga NAME")
    if result != "null" and decision != "done":
        raise UsageError(f"--result goes with done, and not with {decision}", do=f"yk runs resolve {run or '--all'} {step} done --result JSON, or leave --result out")
    try:
        value = msgspec.json.decode(result)
    except msgspec.DecodeError as wrong:
        raise InputError(f"--result is not JSON: {wrong}", do="quote it for the shell: --result '{\"id\": 7}'") from wrong
    data = {"step": step, "decision": decision, "result": value, "who": who, "why": why}
    if not everything:
        return ask_one(output(), db, run, lambda story: _one(story, data))
    from yaoki.cli.frame.journal import wait_for

    wanted["states"] = wanted["states"] or (RunState.BLOCKED,)
    return wait_for(for_all(output(), db, wanted, lambda story: _each(story, data, error), verb=f"resolve as {decision}", noun="blocked steps",
                            columns=("saga", "step", "error"), dry_run=dry_run, yes=yes))


def _words(words: tuple[str, ...], *, everything: bool) -> tuple[str, str, str]:
    """Run, step and decision. Raises UsageError."""
    wanted = 2 if everything else 3
    if len(words) != wanted:
        raise UsageError(f"{'STEP DECISION' if everything else 'RUN STEP DECISION'} is wanted, and {len(words)} words were given",
                         do="yk runs resolve RUN STEP DECISION, or yk runs resolve --all STEP DECISION --saga NAME")
    run, step, decision = ("", *words) if everything else words
    if decision not in DECISIONS:
        raise UsageError(f"{decision!r} is no decision", do=f"one of: {', '.join(DECISIONS)}")
    return run, step, decision


def _one(story: Story, data: dict[str, Any]) -> list[Asked]:
    refuse_not_blocked(story, data["step"])
    return [(story.stored.header.id, "resolve", data)]


def _each(story: Story, data: dict[str, Any], error: str) -> list[Fits]:
    header, failure = story.stored.header, story.blocked().get(data["step"])
    if failure is None or error not in str(failure):
        raise LeftAlone("")
    place = f"undo of {data['step']}" if failure.undo else data["step"]
    return [Fits([(header.id, "resolve", data)], header.saga, place, str(failure))]
