"""What asyncpg raises, said as ours: the database's fault, or that of what a handler wrote?"""

from __future__ import annotations

import asyncpg

from yaoki.errors import StoreError

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
_OF_THE_SERVER = ("08", "53", "57P", "58", "XX")
"""Connection, resources, operator, system, internal: nobody knows what came of a commit that ends so. Source: PostgreSQL, appendix A."""


class as_store_errors:  # noqa: N801 (reads as a statement)
    """What the driver raises, said as ours; a fence that fell is not the driver's."""

    def __init__(self, where: str = "") -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        # A statement of the handler failed, and it went on: tried again without end, that would stop all of its group.
        if isinstance(error, FAILURES) and not isinstance(error, asyncpg.InFailedSQLTransactionError):
            raise StoreError(f"the messages in PostgreSQL{self.where} cannot be read or written: {type(error).__name__}: {error}",
                             do="see that the server runs and that this user may create and write tables; what was "
                                "acknowledged is safe", sqlstate=getattr(error, "sqlstate", "")) from error


def is_refusal(error: BaseException) -> bool:
    """Did the server say of a commit that it is rolled back, for what is in it? A constraint that is checked last says so."""
    return isinstance(error, asyncpg.PostgresError) and not str(error.sqlstate).startswith(_OF_THE_SERVER)
