"""Run sagas that others start, beside any number of other workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.options import setting

if TYPE_CHECKING:
    from yaoki.saga.define import Saga
    from yaoki.saga.queue import Queue


@click.command(epilog="\b\nExamples:\n  yk worker trips --db postgresql://app@db/trips\n"
                      "  yk worker trips:book_trip orders --queue slow --concurrency 50")
@click.argument("targets", metavar="MODULE...", nargs=-1, required=True)
@setting("--db", "db", metavar="URL")
@click.option("--queue", "queues", multiple=True, metavar="Q", help="Take only runs of this queue; repeat for several.")
@click.option("--name", default="", help="How it is called in `yk workers`; the host and process by default.")
@setting("--concurrency", "run.concurrency", metavar="N")
@setting("--grace", "run.grace", metavar="TIME")
def command(*, targets: tuple[str, ...], db: str, queues: tuple[str, ...], name: str, concurrency: int, grace: float) -> Exit:
    """Run all sagas of these modules (MODULE:SAGA for one), until told to stop.

    SIGTERM or Ctrl-C: take nothing more, let steps under way end within --grace, and give the rest back to the journal,
    where other workers take it up at once. A second signal ends the process on the spot, which harms nothing.
    """
    import asyncio

    from yaoki.errors import ConfigError

    sagas = sagas_of(targets)
    if db.startswith("memory:"):
        raise ConfigError("nobody can start runs in memory: but this process itself", do="name a journal: --db postgresql://user@host/database, or sqlite:///FILE")
    asyncio.run(_work(sagas, db, limits=queues_of(targets), queues=list(queues) or None, name=name, concurrency=concurrency, grace=grace))
    return Exit.OK


def sagas_of(targets: tuple[str, ...]) -> list[Saga[Any]]:
    """Every saga that the targets name, each once."""
    from yaoki.cli.frame.target import load_module, load_saga
    from yaoki.errors import UsageError
    from yaoki.saga.define import Saga

    found: list[Saga[Any]] = []
    for target in targets:
        if ":" in target:
            found.append(load_saga(target))
            continue
        here = [value for value in vars(load_module(target)).values() if isinstance(value, Saga)]
        if not here:
            raise UsageError(f"module {target!r} has no saga", do='define one there: Saga("name", input=...)')
        found += here
    return list(dict.fromkeys(found))


def queues_of(targets: tuple[str, ...]) -> list[Queue]:
    """Every queue that the modules define: its limits are declared."""
    from yaoki.cli.frame.target import load_module
    from yaoki.saga.queue import Queue

    modules = dict.fromkeys(target.partition(":")[0] for target in targets)
    return list(dict.fromkeys(value for module in modules for value in vars(load_module(module)).values() if isinstance(value, Queue)))


async def _work(sagas: list[Saga[Any]], db: str, *, limits: list[Queue], queues: list[str] | None, name: str, concurrency: int, grace: float) -> None:
    import asyncio
    import contextlib
    import gc
    import signal

    import yaoki
    from yaoki import events
    from yaoki.cli.frame.journal import told_if_slow

    out = output()
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # the next one is the system's own
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        told.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    with events.listen(lambda event: out.remark(_line(event)), kinds=(events.WorkerEvent, events.RunBlocked, events.RunsBlocked, events.RunsStranded, events.SagaPaused)):
        async with contextlib.AsyncExitStack() as stack:
            with told_if_slow(db):
                await stack.enter_async_context(yaoki.open(db, sagas=sagas, concurrency=concurrency, grace=grace, queues=queues, limits=limits, name=name))
            out.emit({"event": "ready", "sagas": [saga.name for saga in sagas]})
            # What is loaded by now stays: looking through it for garbage, again and again, would cost a quarter of each run.
            gc.collect()
            gc.freeze()
            out.remark(f"at work on {', '.join(saga.name for saga in sagas)}; Ctrl-C stops it")
            await told.wait()
            out.remark("stopping: steps under way may end, the rest goes back to the journal")
    out.emit({"event": "stopped"})


def _line(event: Any) -> str:
    from yaoki import events
    from yaoki.cli.frame.durations import show_duration
    from yaoki.text import counted

    if isinstance(event, events.WorkerJoined):
        return f"worker {event.worker} joined as incarnation {event.incarnation}"
    if isinstance(event, events.WorkerFenced):
        return f"this worker was declared dead: it dropped {event.runs} runs, which others go on with, and starts again"
    if isinstance(event, events.WorkerDied):
        return f"worker {event.worker} gave no sign of life: its {event.runs} runs are free"
    if isinstance(event, events.SagaPaused):
        return f"{event.saga}: {event.aborted} of the last {event.finished} runs were undone, so no new ones are begun"
    if isinstance(event, events.RunsBlocked):
        return f"{event.saga}: {counted(event.runs, 'run waits', 'runs wait')} for a person, the first since {show_duration(event.oldest_s)}: yk runs list --state blocked"
    if isinstance(event, events.RunsStranded):
        return f"{event.saga}: {event.runs} runs of graph {event.graph} wait, and no live worker can run them: yk plan says why"
    return f"run {event.run} is blocked at {event.step or 'its start'}: {event.reason}"
