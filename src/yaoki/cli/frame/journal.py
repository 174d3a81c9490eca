"""A journal, looked at beside whoever owns it; and one run of it by a part of its id."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from yaoki.app import journal_at
from yaoki.errors import ConfigError, RunNotFoundError, UsageError
from yaoki.saga.journal.port import Journal, Query
from yaoki.saga.records import Stored

T = TypeVar("T")

# How many ids are named when an abbreviation fits several.
NAMED = 5


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb's coroutine to its end."""
    return asyncio.run(work)


@contextlib.asynccontextmanager
async def observed(db: str) -> AsyncIterator[Journal]:
    """The journal at `db`, for reading and for requests, also while an engine runs on it."""
    if db.startswith("memory:"):
        raise ConfigError("memory: is gone with the process that ran it", do="name the journal's file: --db sqlite:///trips.db")
    journal = journal_at(db)
    try:
        await journal.observe()
        yield journal
    finally:
        await journal.close()


async def find(journal: Journal, run: str) -> Stored:
    """The run of this id, or the only one whose id begins so.

    Raises RunNotFoundError, or UsageError where several begin so.
    """
    stored = await journal.read(run)
    if stored is not None:
        return stored
    found = await journal.search(Query(id_prefix=run, limit=NAMED + 1)) if run else []
    if not found:
        raise RunNotFoundError(f"there is no run {run!r}", do="check the id and the journal: `yk runs list --db URL`", run_id=run)
    if len(found) > 1:
        names = ", ".join(header.id for header in found[:NAMED])
        raise UsageError(f"several runs begin with {run!r}: {names}{' and more' if len(found) > NAMED else ''}",
                         do="write one more character of the id")
    stored = await journal.read(found[0].id)
    assert stored is not None
    return stored
