"""Makes the schema, brings an older one up to date, and refuses a newer one.

Any number of processes may do this at once: an advisory lock lets one work, and the others find it done. Everything a
version needs is one transaction, so a crash in the middle leaves the old version.
"""

from __future__ import annotations

from typing import Any

from yaoki.errors import JournalForeignError
from yaoki.saga.journal.postgres.migrations import MIGRATIONS

VERSION = len(MIGRATIONS)

# "YAOK" in ASCII, as a key for the advisory lock; any number does, if all agree on it.
LOCK = 0x59414F4B

# The catalogue itself, not `to_regclass`: that asks a cache, which may still say "there is none" after a wait for the advisory lock,
# for in the midst of a transaction only opening a table brings it up to date.
_TABLES = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'yaoki' AND c.relname IN ('migration', 'run', 'record', 'worker')"""

Connection = Any  # asyncpg.Connection, or what its pool gives


async def version_of(connection: Connection) -> int:
    """The schema's version, or 0 where there is none. Raises JournalForeignError when `yaoki` is somebody else's schema."""
    tables = {row[0] for row in await connection.fetch(_TABLES)}
    if "migration" not in tables:
        if tables:
            raise JournalForeignError("the database has a schema 'yaoki' that is not a journal",
                                      do="name another database; this one was not changed")
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM yaoki.migration"))


async def upgrade(connection: Connection) -> tuple[int, int]:
    """Bring the schema to this program's version. Returns (version before, version now). Safe under concurrent calls.

    Raises:
        JournalForeignError: it is newer than this program, or not a journal. Nothing was changed.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        before = await version_of(connection)
        refuse_newer(before)
        if before == 0:
            await connection.execute("CREATE SCHEMA IF NOT EXISTS yaoki")
            await connection.execute("CREATE TABLE yaoki.migration (version integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())")
        for number in range(before, VERSION):
            await connection.execute(MIGRATIONS[number])
            await connection.execute("INSERT INTO yaoki.migration (version) VALUES ($1)", number + 1)
    return before, VERSION


async def prepare(connection: Connection) -> None:
    """Make the schema where there is none; accept this version; refuse every other.

    An older schema is not upgraded in passing: older workers may still be at work on it, and a person decides when.
    """
    found = await version_of(connection)
    if found == 0:
        await upgrade(connection)
    elif found < VERSION:
        raise JournalForeignError(f"the journal's schema is version {found}, and this program needs {VERSION}",
                                  do="run `yk db upgrade`; runs in flight are kept", version=found)
    refuse_newer(found)


def refuse_newer(found: int) -> None:
    if found > VERSION:
        raise JournalForeignError(f"the journal's schema is version {found}, and this program knows {VERSION}",
                                  do="use the version of yaoki that upgraded it, or a newer one", version=found)
