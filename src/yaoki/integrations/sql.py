"""Whole transactions through a `Service`: SQLAlchemy, psycopg, asyncpg, and any DB-API connection.

    bookings_db = Service("bookings-db", policy=pipeline(retry(4), breaker(), timeout(2.0)))

    def book(session):                                   # the whole transaction; it may run more than once
        session.add(...)

    transaction(bookings_db, Session.begin, book)                                # SQLAlchemy: a sessionmaker's begin
    transaction(bookings_db, engine.begin, book)                                 # SQLAlchemy: an engine's
    transaction(bookings_db, lambda: psycopg.connect(url), book)                 # psycopg
    await transaction(bookings_db, asyncpg_begin(pool), book)                    # asyncpg

What is repeated is the transaction, never one statement of it: after a failure the database has rolled back, and an earlier
statement is gone. What matters is *when* it failed:

    before COMMIT was sent      nothing happened, also when the connection was lost: it is repeated
    while COMMIT was under way  nobody knows: it is repeated only if `idempotent=True` (an upsert by key, say)
    after                       it happened

Source: the PostgreSQL manual, chapter 13.5 (serialization failures) and appendix A; AIP-194.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, TypeVar

from yaoki.policies.classify import Failure, classify, hand_on_history
from yaoki.service import Service

T = TypeVar("T")



class _RolledBackError(Exception):
    """The transaction failed before its COMMIT was sent. Never leaves this file; `cause` is what the caller sees."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _meaning(error: _RolledBackError) -> Failure:
    found = classify(error.cause)
    if found.kind == "ambiguous":
        return found._replace(kind="safe", happened=False)
    return found._replace(happened=False)


classify.register(_RolledBackError, _meaning)


def transaction(service: Service, begin: Callable[[], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]],
                work: Callable[[Any], T], *, idempotent: bool | None = None) -> T:
    """Run `work(connection)` in a transaction, as one call to `service`, and repeat the whole where that can help.

    Args:
        begin: makes a context manager that gives a connection or session, commits at its end, and rolls back on an error.
        work: the transaction; a plain function, or an async one with an async `begin` (then await the result).
        idempotent: is it harmless to run it again when nobody knows whether it was committed?

    Raises:
        whatever the driver or `work` raises in the last attempt.
    """
    import inspect  # noqa: PLC0415

    if inspect.iscoroutinefunction(work):
        return _async(service, begin, work, idempotent)  # type: ignore[return-value]

    def attempt() -> T:
        try:
            manager = begin()
            assert isinstance(manager, AbstractContextManager)
            connection = manager.__enter__()
        except Exception as error:
            raise _RolledBackError(error) from error  # not even begun
        try:
            result = work(connection)
        except BaseException as error:
            _undone(manager, error)
            raise
        manager.__exit__(None, None, None)  # COMMIT: what it raises is as it is classified
        return result

    try:
        return service.call(attempt, idempotent=idempotent, operation=getattr(work, "__name__", "transaction"))
    except _RolledBackError as error:
        raise _own(error) from error.cause.__cause__


def _own(error: _RolledBackError) -> Exception:
    """The caller's own error, with the history that the policy wrote on ours."""
    hand_on_history(error, error.cause)
    return error.cause


def _undone(manager: AbstractContextManager[Any], error: BaseException) -> None:
    """Roll back, and say that nothing happened."""
    try:
        manager.__exit__(type(error), error, error.__traceback__)
    except Exception as also:
        if also is not error:
            error.add_note(f"and the rollback failed: {type(also).__name__}: {also}")
    if isinstance(error, Exception):
        raise _RolledBackError(error) from error


async def _async(service: Service, begin: Callable[[], Any], work: Callable[[Any], Awaitable[T]], idempotent: bool | None) -> T:  # noqa: FBT001  private
    async def attempt() -> T:
        try:
            manager = begin()
            connection = await manager.__aenter__()
        except Exception as error:
            raise _RolledBackError(error) from error
        try:
            result = await work(connection)
        except BaseException as error:
            await _undone_async(manager, error)
            raise
        await manager.__aexit__(None, None, None)
        return result

    try:
        return await service.call(attempt, idempotent=idempotent, operation=getattr(work, "__name__", "transaction"))
    except _RolledBackError as error:
        raise _own(error) from error.cause.__cause__


async def _undone_async(manager: AbstractAsyncContextManager[Any], error: BaseException) -> None:
    try:
        await manager.__aexit__(type(error), error, error.__traceback__)
    except Exception as also:
        if also is not error:
            error.add_note(f"and the rollback failed: {type(also).__name__}: {also}")
    if isinstance(error, Exception):
        raise _RolledBackError(error) from error


def asyncpg_begin(pool: Any, **options: Any) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """`begin` for an asyncpg pool. `options`: of `Connection.transaction`, `isolation="serializable"`, say."""

    @asynccontextmanager
    async def begin() -> Any:
        async with pool.acquire() as connection, connection.transaction(**options):
            yield connection

    return begin
