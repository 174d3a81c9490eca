"""Look at schedules, and pause, trigger or fill them in."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from yaoki.cli.frame import output
from yaoki.cli.frame.options import INSTANT, setting
from yaoki.saga.journal.port import NORMAL

if TYPE_CHECKING:
    from yaoki.saga.schedule.book import Book, Entry
    from yaoki.saga.schedule.plan import Spec

F = TypeVar("F", bound=Callable[..., Any])

# Instants to come that `show` tells.
TOLD = 5


def _db(command: F) -> F:
    return setting("--db", "db", metavar="URL")(command)


_name = click.argument("name")


@click.group()
def command() -> None:
    """Look at schedules, and pause, trigger or fill them in.

    A program defines them (`app.schedule(...)`); what is changed here holds for all its workers at once.
    """


@command.command("list")
@_db
def list_(*, db: str) -> None:
    """List schedules: when each fires next, and what runs."""
    from yaoki import runtime
    from yaoki.cli.frame.durations import show_duration, show_instant
    from yaoki.cli.frame.tables import Cell
    from yaoki.saga.schedule.plan import wakes_at

    async def read(book: Book) -> list[Entry]:
        return list((await book.read()).values())

    out, now = output(), runtime.unix_time()
    rows = []
    for entry in _on(db, read):
        spec, plan = entry.spec, entry.plan
        out.emit(_data(entry))
        due = wakes_at(spec, spec.when(), plan)
        next_one = Cell(f"paused: {plan.paused}", "yellow") if plan.paused else \
            Cell(f"{show_instant(due)} (in {show_duration(due - now)})" if due > now else "due; is a worker there?", "" if due > now else "red")
        rows.append((spec.name, spec.saga, _when(entry), len(plan.runs), plan.fired, plan.left_out, next_one))
    if rows:
        out.table(("schedule", "saga", "when", "running", "fired", "left out", "next"), rows)
    else:
        out.say("no schedules: a program defines them with app.schedule(...)")


@command.command()
@_name
@_db
def show(*, name: str, db: str) -> None:
    """Show one schedule: its definition, what runs, and the next instants."""
    from yaoki.cli.frame.durations import show_instant
    from yaoki.saga.schedule.plan import wakes_at

    entry = _on(db, lambda book: book.one(name))
    out, spec, plan = output(), entry.spec, entry.plan
    when, instant, coming = spec.when(), plan.since, []
    for _ in range(TOLD):
        instant = when.next_after(instant)
        coming.append(instant)
    out.emit({**_data(entry), "next": [show_instant(each) for each in coming]})
    out.say(f"{spec.name}: {spec.saga}, {_when(entry)}")
    out.say(f"  when the last run has not ended: {spec.overlap}; caught up for {spec.catch_up_s:g} s; jitter {spec.jitter_s:g} s")
    out.say(f"  starts with {spec.input or 'what the program computes from the instant'}")
    if placed := _placed(spec):
        out.say(f"  {placed}")
    if plan.paused:
        out.say(click.style(f"  paused: {plan.paused}", fg="yellow"))
    for run in plan.runs:
        out.say(f"  runs, when last looked: {run}")
    for firing in (*plan.pending, *([plan.held] if plan.held else [])):
        out.say(f"  to be started: {firing.id}")
    out.say(f"  fired {plan.fired}, left out {plan.left_out}; next {show_instant(wakes_at(spec, when, plan))}")
    for each in coming[1:]:
        out.say(f"    {show_instant(each)}")


@command.command()
@_name
@click.option("--why", default="", help="Why; it is shown in the list.")
@_db
def pause(*, name: str, why: str, db: str) -> None:
    """Fire nothing more until it is resumed. Runs that were started go on."""
    from yaoki.saga.schedule import desk

    _on(db, lambda book: desk.pause(book, name, why))
    _said(name, "paused")


@command.command()
@_name
@_db
def resume(*, name: str, db: str) -> None:
    """Fire again, from the next instant on. What fell into the pause is not caught up; see `backfill`."""
    from yaoki import runtime
    from yaoki.saga.schedule import desk

    _on(db, lambda book: desk.resume(book, name, runtime.unix_time()))
    _said(name, "resumed")


@command.command()
@_name
@_db
def trigger(*, name: str, db: str) -> None:
    """Start one run now, whatever runs and also while it is paused."""
    from yaoki import runtime
    from yaoki.saga.schedule import desk

    run = _on(db, lambda book: desk.trigger(book, name, runtime.unix_time()))
    output().emit({"schedule": name, "run": run})
    output().say(f"asked for: a worker starts run {run} within seconds")


@command.command()
@_name
@click.option("--since", type=INSTANT, required=True, help="From when: 1d (ago), or an ISO date or time.")
@click.option("--until", type=INSTANT, help="Until when; now by default.")
@_db
def backfill(*, name: str, since: float, until: float | None, db: str) -> None:
    """Start the runs of past instants, all at once. Those that were started before are left as they are."""
    from yaoki import runtime
    from yaoki.saga.schedule import desk

    count = _on(db, lambda book: desk.backfill(book, name, since, runtime.unix_time() if until is None else until))
    output().emit({"schedule": name, "instants": count})
    output().say(f"asked for: a worker starts the runs of {count} instants")


@command.command()
@_name
@_db
def remove(*, name: str, db: str) -> None:
    """Forget a schedule that no program defines any more. One that is defined comes back with the next start."""
    _on(db, lambda book: book.remove(name))
    _said(name, "removed")


def _on(db: str, work: Callable[[Book], Coroutine[Any, Any, Any]]) -> Any:
    from yaoki.cli.frame.journal import observed, wait_for
    from yaoki.saga.schedule.book import Book

    async def do() -> Any:
        async with observed(db) as journal:
            return await work(Book(journal))

    return wait_for(do())


def _said(name: str, what: str) -> None:
    output().emit({"schedule": name, "is": what})
    output().say(f"{name} is {what}")


def _when(entry: Entry) -> str:
    from yaoki.cli.frame.durations import show_duration

    spec = entry.spec
    return f"{spec.cron} ({spec.zone})" if spec.cron else f"every {show_duration(spec.every_s)}"


def _placed(spec: Spec) -> str:
    """`queue mail, priority 2, tenant acme, found by region=eu`: what was said, and no more."""
    found_by = " ".join(f"{name}={value}" for name, value in spec.attributes.items())
    words = [f"queue {spec.queue}" if spec.queue else "", f"priority {spec.priority}" if spec.priority != NORMAL else "",
             f"tenant {spec.tenant}" if spec.tenant else "", f"found by {found_by}" if found_by else ""]
    return ", ".join(word for word in words if word)


def _data(entry: Entry) -> dict[str, Any]:
    import msgspec

    return {**msgspec.to_builtins(entry.spec), **{key: value for key, value in msgspec.to_builtins(entry.plan).items() if key != "since"}}
