"""What people do with schedules: pause, resume, trigger, fill in. Each is one change of the book, beside all workers."""

from __future__ import annotations

import msgspec

from yaoki.errors import UsageError
from yaoki.saga.schedule.book import Book, Entry
from yaoki.saga.schedule.cron import iso
from yaoki.saga.schedule.plan import Firing, Plan, between, triggered


async def pause(book: Book, name: str, why: str) -> None:
    """Fire nothing more. Runs that were started go on."""
    await book.change(name, lambda entry: msgspec.structs.replace(entry.plan, paused=why or "paused"))


async def resume(book: Book, name: str, now: float) -> None:
    """Fire again, from the next instant on: what fell into the pause is not caught up."""
    def how(entry: Entry) -> Plan:
        if not entry.plan.paused:
            raise UsageError(f"schedule {name!r} is not paused", do="`yk schedules list` says which are")
        return msgspec.structs.replace(entry.plan, paused="", since=max(entry.plan.since, now))

    await book.change(name, how)


async def trigger(book: Book, name: str, now: float) -> str:
    """Start one run now, whatever runs. Returns its id."""
    firing = Firing(f"{name}@{iso(round(now, 3))}+", now)
    await book.change(name, lambda entry: triggered(entry.plan, firing))
    return firing.id


async def backfill(book: Book, name: str, begin: float, end: float) -> int:
    """Start the runs of the instants between, all of them; those that there are already are left as they are."""
    entry = await book.one(name)
    firings = between(entry.spec, entry.spec.when(), begin, end)
    await book.change(name, lambda entry: triggered(entry.plan, *firings))
    return len(firings)
