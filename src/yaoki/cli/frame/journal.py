"""A journal, looked at beside whoever owns it; and one run of it by a part of its id."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from yaoki.app import journal_at
from yaoki.cli.frame.output import output
from yaoki.errors import ConfigError, RunNotFoundError, UsageError
from yaoki.saga.journal.port import Journal, Query
from yaoki.saga.records import Stored
from yaoki.text import without_password

T = TypeVar("T")

# How many ids are named when an abbreviation fits several.
NAMED = 5

# A server that answers does so within this; seconds.
SLOW_S = 1.5

_LOOKED_AT: ContextVar[str] = ContextVar("yaoki_journal_looked_at", default="")


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb's coroutine to its end."""
    return asyncio.run(work)


@contextlib.asynccontextmanager
async def observed(db: str) -> AsyncIterator[Journal]:
    """The journal at `db`, for reading and for requests, also while an engine runs on it."""
    if db.startswith("memory:"):
        raise ConfigError("memory: is gone with the process that ran it", do="name the journal's file: --db sqlite:///trips.db")
    journal = journal_at(db)
    shown = _LOOKED_AT.set(without_password(db))
    try:
        with told_if_slow(db):
            await journal.observe()
        yield journal
    finally:
        _LOOKED_AT.reset(shown)
        await journal.close()


@contextlib.contextmanager
def told_if_slow(db: str) -> Iterator[None]:
    """Say what is waited for, when a server that is away is waited for: nobody shall wonder at a terminal that says nothing."""
    told = asyncio.get_running_loop().call_later(SLOW_S, lambda: output().remark(f"{without_password(db)} does not answer yet; trying again"))
    try:
        yield
    finally:
        told.cancel()


async def find(journal: Journal, run: str) -> Stored:
    """The run of this id, or the only one whose id begins so.

    Raises RunNotFoundError, or UsageError where several begin so.
    """
    stored = await journal.read(run)
    if stored is not None:
        return stored
    found = await journal.search(Query(id_prefix=run, limit=NAMED + 1)) if run else []
    if not found:
        raise RunNotFoundError(f"there is no run {run!r} in {_LOOKED_AT.get() or 'this journal'}", do="check the id and the journal: `yk runs list --db URL`", run_id=run)
    if len(found) > 1:
        names = ", ".join(header.id for header in found[:NAMED])
        raise UsageError(f"several runs begin with {run!r}: {names}{' and more' if len(found) > NAMED else ''}",
                         do="write one more character of the id")
    stored = await journal.read(found[0].id)
    assert stored is not None
    return stored
