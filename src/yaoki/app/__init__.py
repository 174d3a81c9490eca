"""`yaoki.open`: sagas on a journal, for async and for plain programs.

    async with yaoki.open("sqlite:///trips.db", sagas=[book_trip]) as app:
        run = await app.start(book_trip, trip, id="trip-42")
        receipt = await run.result()

    with yaoki.open("sqlite:///trips.db", sagas=[book_trip]) as app:      # a sync program: an event loop in a thread
        receipt = app.start(book_trip, trip, id="trip-42").result()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from yaoki.app.app import App
from yaoki.app.blocking import SyncApp, SyncRun
from yaoki.app.journals import journal_at
from yaoki.app.run import Run
from yaoki.saga.define import Saga
from yaoki.saga.queue import Queue

DEFAULT_CONCURRENCY = 1000


def open(url: str, *, sagas: Iterable[Saga[Any]], concurrency: int = DEFAULT_CONCURRENCY, grace: float = 10.0,  # noqa: A001
         durability: str = "power", queues: Iterable[str | Queue] | None = None, limits: Iterable[Queue] = (), work: bool = True,
         name: str = "") -> App:
    """Sagas on the journal at `url`.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user@host/database` (any number of workers
            share it; `?lease=15` is the seconds after which a silent one's runs are taken over), or `memory:` (gone with
            the process).
        sagas: the definitions whose runs are started and taken up again here.
        concurrency: runs in memory at once; the rest wait in the journal.
        grace: seconds that steps under way get to end when the app is closed.
        durability: "power": a record survives a power cut; "process": only the death of the process, but faster.
        queues: take only runs of these queues; None: of all. On PostgreSQL only, as is `name`, of this worker in `yk workers`.
        limits: queues whose limits hold from now on, besides those of the sagas and of `queues`.
        work: take runs up here? Else this program only starts runs, and asks: others drive them.

    Raises:
        ConfigError: the URL is of no known kind.
        JournalLockedError, JournalForeignError: on entering: another process owns it; it is something else.
    """
    known, served = list(sagas), None if queues is None else list(queues)
    declared = [*limits, *(each for each in served or () if isinstance(each, Queue))]
    names = None if served is None else [each if isinstance(each, str) else each.name for each in served]

    def made() -> App:
        journal = journal_at(url, durability=durability)
        if name:
            journal.name = name
        return App(journal, known, concurrency=concurrency, grace=grace, queues=names, limits=declared, work=work, again=made)

    return made()


__all__ = ["App", "Run", "SyncApp", "SyncRun", "journal_at", "open"]
