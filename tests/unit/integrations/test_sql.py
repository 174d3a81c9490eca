"""Transactions: when a failure came says whether anything happened. Real databases: `live/test_stores_through_a_service.py`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from virtual_time import Clock, run
from yaoki import runtime
from yaoki.integrations.sql import transaction
from yaoki.policies import nothing_happened, retry
from yaoki.service import Service


class Database:
    """Loses the connection at the moments given, one a transaction: "connect", "work" or "commit"."""

    def __init__(self, *lost: str) -> None:
        self.lost = list(lost)
        self.committed = 0

    @contextlib.contextmanager
    def begin(self) -> Iterator[str]:
        moment = self.lost.pop(0) if self.lost else ""
        if moment == "connect":
            raise ConnectionResetError("while connecting")
        yield moment
        self.committed += 1
        if moment == "commit":
            raise ConnectionResetError("in COMMIT")

    @contextlib.asynccontextmanager
    async def begin_async(self) -> AsyncIterator[str]:
        with self.begin() as moment:
            yield moment


def book(moment: str) -> str:
    if moment == "work":
        raise ConnectionResetError("in a statement")
    return "booked"


async def book_async(moment: str) -> str:
    return book(moment)


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest):
    service = Service("bookings-db", policy=retry(3, budget=False))
    if request.param == "async":
        return lambda database: run(transaction(service, database.begin_async, book_async))

    def sync(database: Database) -> str:
        with runtime.use(Clock()):
            return transaction(service, database.begin, book)

    return sync


def test_a_connection_lost_before_the_transaction_began_is_made_again(do):
    database = Database("connect", "connect")
    assert do(database) == "booked"
    assert database.committed == 1


def test_so_is_one_that_is_lost_before_commit(do):
    database = Database("work", "connect")
    assert do(database) == "booked"
    assert database.committed == 1


def test_one_that_is_lost_in_commit_is_in_doubt_and_not_repeated(do):
    database = Database("connect", "commit")
    with pytest.raises(ConnectionResetError, match="COMMIT") as failure:
        do(database)
    assert database.committed == 1
    assert not nothing_happened(failure.value)


def test_in_the_end_the_caller_gets_the_drivers_own_error(do):
    with pytest.raises(ConnectionResetError, match="connecting") as failure:
        do(Database("connect", "work", "connect"))
    assert "3 attempts" in failure.value.__notes__[0]
