"""Run a saga for each line of a file; again after a crash, it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.options import DURATION, setting
from yaoki.errors import UsageError

if TYPE_CHECKING:
    from yaoki.cli.frame.output import Output
    from yaoki.cli.run.batch import Outcome
    from yaoki.cli.run.inputs import Lines
    from yaoki.saga.define import Saga


@click.command(epilog="\b\nExamples:\n  yk run trips:book_trip trips.jsonl\n  zcat trips.jsonl.gz | yk run trips:book_trip -\n"
                      "  yk run trips:book_trip             only finish what is in the journal\n"
                      "  yk run trips:book_trip trips.jsonl --detach --db postgresql://app@db/trips")
@click.argument("target", metavar="MODULE:SAGA")
@click.argument("file", required=False, type=click.Path(dir_okay=False, allow_dash=True))
@setting("--db", "db", metavar="URL")
@setting("--concurrency", "run.concurrency", metavar="N")
@setting("--id-field", "run.id-field", metavar="FIELD")
@setting("--grace", "run.grace", metavar="TIME")
@click.option("--keep-going", is_flag=True, help="Start the good lines of a file that has bad ones too. Exit code 1 then.")
@click.option("--check", "only_check", is_flag=True, help="Only check the lines; start nothing.")
@click.option("--no-brake", is_flag=True, help="Begin new runs also when nearly all of them have to be undone.")
@click.option("--detach", "--bulk", "detach", is_flag=True, help="Only start the runs, and leave them to workers.")
@click.option("--queue", default="", metavar="Q", help="With --detach: where they wait for their turn.")
@click.option("--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="With --detach: 0 comes first.")
@click.option("--tenant", default="", metavar="NAME", help="With --detach: whose they are; tenants take turns.")
@click.option("--delay", type=DURATION, default=0.0, show_default="none", metavar="TIME", help="With --detach: begin none before.")
def command(*, target: str, file: str | None, db: str, concurrency: int, id_field: str, grace: float,
            keep_going: bool, only_check: bool, no_brake: bool, detach: bool, queue: str, priority: int, tenant: str, delay: float) -> Exit:
    r"""Run a saga for each line of a file of JSON Lines; `-` is standard input.

    Every line is checked before the first run is started. A run's id comes from a field of its line, and starting an id
    twice is one run: so after a crash, or kill -9, the same command goes on where it was. Unfinished runs that are in the
    journal already are finished as well. It ends when every run has ended or is blocked; runs that rest (a sleep, an answer
    that is waited for) stay in the journal when you interrupt it.

    \b
    Exit code 0: every run has ended, completed or undone.
              1: a run is blocked and waits for a person, or a line was bad (--keep-going).
              2: nothing was started.    4: the saga's brake is on.    130: interrupted; the same command goes on.
    """
    import asyncio

    from yaoki.cli.frame.target import load_saga
    from yaoki.cli.run.batch import Batch
    from yaoki.cli.run.inputs import Lines

    if not detach and (queue, priority, tenant, delay) != ("", 5, "", 0.0):
        raise UsageError("--queue, --priority, --tenant and --delay go with --detach", do="add --detach, and let `yk worker` run them")
    saga = load_saga(target)
    lines = Lines.opened(file, saga, id_field, keep_going=keep_going) if file else None
    if only_check:
        return _checked(output(), lines)
    if detach:
        return _detached(saga, db, lines, {"queue": queue, "priority": priority, "tenant": tenant, "delay": delay})
    with lines or Lines.none():
        batch = Batch(saga, db, lines, concurrency=concurrency, grace_s=grace, brake=not no_brake)
        outcome = asyncio.run(batch.run(quiet=output().json))
    tell(output(), outcome)
    return outcome.exit


def _detached(saga: Saga[Any], db: str, lines: Lines | None, placing: dict[str, Any]) -> Exit:
    from yaoki.cli.frame.journal import wait_for
    from yaoki.cli.run.detaching import detached

    if lines is None:
        raise UsageError("there is no file to start runs from", do="name one: yk run MODULE:SAGA FILE --detach")
    with lines:
        return wait_for(detached(output(), saga, db, lines, placing))


def _checked(out: Output, lines: Lines | None) -> Exit:
    if lines is None:
        raise UsageError("there is no file to check", do="name one: yk run MODULE:SAGA FILE --check")
    with lines:
        good = sum(1 for _ in lines)
    out.emit({"good_lines": good, "bad_lines": lines.bad_count, "repeated_lines": lines.repeated})
    out.say(f"{good} lines are good" + (f", {lines.bad_count} are bad" if lines.bad_count else "")
            + (f", {lines.repeated} say again what an earlier one says" if lines.repeated else ""))
    return Exit.FINDING if lines.bad_count else Exit.OK


def tell(out: Output, outcome: Outcome) -> None:
    """The figures, and what to do about what is not well."""
    out.emit(outcome.as_data())
    for line in outcome.as_text():
        out.say(line)
