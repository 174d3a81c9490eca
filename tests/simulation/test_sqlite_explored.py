"""The engine on the real SQLite journal, in memory and in a file whose log is torn, under every fault; and what tears it when it is broken."""

from __future__ import annotations

import pytest

from yaoki.errors import ConfigError
from yaoki.explore import Booking, FakeService, Scenario, World, explore, replay
from yaoki.explore.sagas import open_app, saga_scenario, supervised
from yaoki.explore.sqlite_journal import FilePlatter
from yaoki.saga.define import Saga
from yaoki.saga.journal.sqlite import SqliteJournal

STORAGES = ["sqlite", "file"]
CRASHES = ["crash", "disk", "call.conflict"]


def trip(*, declines: bool = False, storage: str) -> Scenario:
    """Two steps at once, then one that may say no."""
    saga = Saga("trip", input=str)
    hotel, flight, payment = FakeService("hotel"), FakeService("flight"), FakeService("payment", declines=declines)

    @saga.step
    async def room(who: str) -> Booking:
        return await hotel.book()

    @room.undo
    async def cancel_room(who: str) -> None:
        await hotel.cancel()

    @saga.step
    async def seat(who: str) -> Booking:
        return await flight.book()

    @seat.undo
    async def cancel_seat(who: str) -> None:
        await flight.cancel()

    @saga.step(undo=None)
    async def pay(who: str, room: Booking, seat: Booking) -> Booking:
        return await payment.book()

    return saga_scenario(saga, input="ann", name=f"trip on {storage}", storage=storage)


def sale(storage: str) -> Scenario:
    """A step in the journal's own transaction: what it writes and what is recorded of it are one commit."""
    saga = Saga("sale", input=str)

    @saga.step(tx=True, undo=None)
    def prepare(who: str, tx) -> str:
        tx.execute("CREATE TABLE IF NOT EXISTS sales (who TEXT)")
        return who

    @saga.step(tx=True, undo=None)
    def sell(who: str, prepare: str, tx) -> str:
        tx.execute("INSERT INTO sales VALUES (?)", (who,))
        return who

    async def main(world: World) -> str:
        async def work(app) -> str:
            run = await app.start(saga, "ann", id="run-1")
            return (await run.wait()).value

        return await supervised(world, work, saga, storage=storage)

    def sold_once(world: World) -> str:
        if not world.journals:
            return ""
        rows = world.journals[0].connection
        if not rows.execute("SELECT 1 FROM sqlite_master WHERE name = 'sales'").fetchone():
            return "the run is completed, and nothing was sold" if "completed" in world.journals[0].outcomes().values() else ""
        found = rows.execute("SELECT count(*) FROM sales").fetchone()[0]
        return "" if found <= 1 else f"sold {found} times"

    return Scenario(main, name="sale", always=[sold_once], invariants=[sold_once])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("declines", [False, True], ids=["booked", "declined"])
def test_every_fault_on_the_real_journal_leaves_all_or_nothing(storage, declines):
    report = explore(trip(declines=declines, storage=storage), faults=1, kinds=CRASHES)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
    assert "disk.torn" in report.kinds


@pytest.mark.parametrize("storage", STORAGES)
def test_a_step_in_the_journals_transaction_happens_once_whatever_the_disk_does(storage):
    report = explore(sale(storage), faults=2)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted


def test_the_file_is_really_torn_and_really_recovered(monkeypatch):
    cuts = []
    real = FilePlatter._recover

    def recover(platter, wal_bytes):
        cuts.append((platter._wal_size(), wal_bytes))
        real(platter, wal_bytes)

    monkeypatch.setattr(FilePlatter, "_recover", recover)
    run, _ = replay(trip(storage="file"), "yk1:journal.done:pay@0=disk.torn")
    assert run.outcome == "completed"
    (written, kept), = [(size, cut) for size, cut in cuts if 0 < cut < size]
    assert written > kept, "the log was cut in the middle of a transaction"


def each_statement_commits_for_itself(monkeypatch):
    """Without a transaction around them, half of what belongs together may be there after a power cut."""

    class Careless:
        in_transaction = True  # so it says

        def __init__(self, connection):
            self._connection = connection

        def execute(self, statement, *values):
            return self._connection.execute("SELECT 1" if statement in {"BEGIN IMMEDIATE", "COMMIT"} else statement, *values)

        def __getattr__(self, name):
            return getattr(self._connection, name)

    async def call(journal, work):
        return await journal._on_thread(work, Careless(journal._connection))

    monkeypatch.setattr(SqliteJournal, "_call", call)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_journal_without_transactions_is_found(monkeypatch, storage):
    each_statement_commits_for_itself(monkeypatch)
    report = explore(sale(storage), faults=1, kinds=["disk.torn"])
    assert any("sold_once" in signature for signature in report.signatures), report.text(matrix=False)


@pytest.mark.long
@pytest.mark.parametrize("storage", STORAGES)
def test_every_pair_on_the_real_journal(storage):
    report = explore(trip(declines=True, storage=storage), faults=2)
    assert report.ok, report.text(matrix=False)


def test_another_storage_is_refused_by_name():
    async def main(world: World) -> None:
        open_app(world, storage="tape")

    run, _ = replay(Scenario(main), "yk1:none")
    assert isinstance(run.error, ConfigError)
    assert "'sqlite'" in run.error.do
