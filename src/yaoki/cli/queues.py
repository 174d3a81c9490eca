"""See the queues in which runs wait for their turn, and change their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from yaoki.cli.frame import output
from yaoki.cli.runs.asking import who_option, why_option
from yaoki.cli.runs.choosing import db_option

if TYPE_CHECKING:
    from yaoki.saga.journal.queues import QueueState
    from yaoki.saga.queue import Queue


@click.group()
def command() -> None:
    """See the queues in which runs wait for their turn, and change their limits.

    `yk pause queue NAME` stops one.
    """


@command.command("list")
@db_option
def list_(*, db: str) -> None:
    """List queues: who is under way, who waits, and their limits. Plain runs of the default queue are not counted."""
    from yaoki.cli.frame.journal import wait_for

    found = wait_for(_states(db))
    out = output()
    for state in found:
        out.emit(as_data(state))
    if not found:
        out.say("no queues: start a run with queue=..., or give a saga one")
        return
    from yaoki.cli.frame.tables import Cell

    out.table(("queue", "under way", "waiting", "state", "limits"), [
        (state.queue.name, state.placed, f"{state.waiting}{'+' if state.waiting >= 1000 else ''}",
         Cell("paused", "yellow") if state.paused else Cell("open", "green"),
         limits_of(state.queue) + (" (set by hand)" if state.by_hand else "")) for state in found])


async def _states(db: str) -> list[QueueState]:
    from yaoki.cli.frame.journal import observed

    async with observed(db) as journal:
        return await journal.queue_states()


def as_data(state: QueueState) -> dict[str, Any]:
    return {"queue": state.queue.name, "under_way": state.placed, "waiting": state.waiting, "paused": state.paused,
            **state.queue.limits(), "by_hand": state.by_hand}


def limits_of(queue: Queue) -> str:
    """`20 at once, 5 a worker, 100/s`."""
    words = [f"{queue.concurrency} at once" if queue.concurrency else "", f"{queue.per_worker} a worker" if queue.per_worker else "",
             f"{queue.rate:g}/s" if isinstance(queue.rate, float) else "", f"bursts of {queue.burst}" if queue.burst else ""]
    return ", ".join(word for word in words if word) or "none"


@command.command("set", epilog="\b\nExamples:\n  yk queues set mail --concurrency 5 --rate 100/s\n  yk queues set mail --no-limits")
@click.argument("name")
@click.option("--concurrency", type=click.IntRange(min=1), help="Runs under way at once, over all workers.")
@click.option("--per-worker", type=click.IntRange(min=1), help="Runs under way at once in one worker.")
@click.option("--rate", help="Runs taken up in a time, over all workers: 100/s, 10/m, 1000/h.")
@click.option("--burst", type=click.IntRange(min=1), help="Runs that may be taken up at once after a rest.")
@click.option("--no-limits", is_flag=True, help="Take all limits away.")
@who_option
@why_option
@db_option
def set_(*, name: str, concurrency: int | None, per_worker: int | None, rate: str | None, burst: int | None, no_limits: bool,
         who: str, why: str, db: str) -> None:
    """Set a queue's limits: those given, and no others. They hold at once, until the code says something new about this queue."""
    from yaoki.cli.frame.journal import wait_for
    from yaoki.errors import UsageError
    from yaoki.saga.queue import Queue

    if no_limits == any(value is not None for value in (concurrency, per_worker, rate, burst)):
        raise UsageError("give limits, or say --no-limits", do="yk queues set mail --concurrency 5")
    queue = Queue(name, concurrency, per_worker, rate, burst)
    wait_for(_set(db, queue, who, why))
    out = output()
    out.emit({"queue": name, **queue.limits()})
    out.say(f"{name}: {limits_of(queue)}")


async def _set(db: str, queue: Queue, who: str, why: str) -> None:
    from yaoki.cli.frame.journal import observed

    async with observed(db) as journal:
        await journal.set_queue(queue, who=who, why=why)
        await journal.ring()
