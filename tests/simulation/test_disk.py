"""A journal on a bad disk: a torn tail is dropped, and a bit that turns over is an error that names its run. And both safeguards switched off."""

from __future__ import annotations

import pytest

from yaoki.errors import JournalDamagedError
from yaoki.explore import FakeService, FakeStore, Scenario, World, explore, replay
from yaoki.explore.sagas import supervised
from yaoki.explore.torn import TornTail
from yaoki.saga.define import Saga
from yaoki.saga.journal import sqlite_reading

STORAGES = ["memory", "sqlite", "file"]
RUNS = ("run-1", "run-2")


def interrupted(storage: str) -> Scenario:
    """Two runs, and a power cut in the middle of both; what the second step is told must be what the first one gave."""
    hotel, told = FakeService("hotel"), FakeStore("told")
    trip = Saga("trip", input=str)

    @trip.step
    async def room(who: str) -> str:
        await hotel.book()
        return "room-12"

    @room.undo
    async def leave(who: str, room: str | None) -> None:
        await hotel.cancel()

    @trip.step(undo=None)
    async def key(who: str, room: str) -> str:
        await told.put(f"{who}", room)
        return room

    async def main(world: World) -> list[str]:
        async def work(app) -> list[str]:
            for run in RUNS:
                await app.start(trip, run, id=run)
            if not world.disk.get("cut"):
                while world.journals[0].outcomes() and not _is_begun(world):
                    await world.sleep(0.0005)
                world.disk["cut"] = True
                world.power_cut(world.process)
                await world.sleep(1.0)
            return [await state(app, run) for run in RUNS]

        async def state(app, run: str) -> str:
            try:
                return (await app.run(trip, run).wait()).value
            except JournalDamagedError as error:
                return f"damaged: {error}" if error.run_id == run else f"another run is meant: {error}"

        return await supervised(world, work, trip, storage=storage)

    def nobody_is_told_what_never_was(world: World) -> str:
        wrong = [value for value in told.rows.values() if value != "room-12"]
        return f"the second step was told {wrong[0]!r}" if wrong else ""

    return Scenario(main, name=f"interrupted on {storage}", invariants=[nobody_is_told_what_never_was], same_answer=False)


def _is_begun(world: World) -> bool:
    """Has each run its first record?"""
    platter = world.journals[0]
    if hasattr(platter, "kept"):
        return all(platter.kept._records.values())
    return platter.connection.execute("SELECT count(DISTINCT run) FROM record").fetchone()[0] == len(RUNS)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bit_that_turns_over_is_an_error_that_names_the_run_and_others_go_on(storage):
    report = explore(interrupted(storage), faults=1, kinds=["disk.bitrot"])
    assert report.ok, report.text(matrix=False)
    assert report.fired >= 1
    run, _ = replay(interrupted(storage), "yk1:journal.load@0=disk.bitrot")
    damaged, completed = sorted(run.value, reverse=True)
    assert completed == "completed"
    assert damaged.startswith("damaged: run 'run-2' cannot be read: ")  # the other one has ended, and is not taken up again
    assert "checksum" in damaged
    assert sorted(run.runs.values()) == ["completed", "running"]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_torn_tail_is_dropped(storage):
    report = explore(interrupted(storage), faults=2, kinds=["disk.torn"])
    assert report.ok, report.text(matrix=False)
    assert report.by_depth[2] > 0
    assert report.outcomes["completed"] == report.executions


class _Fits:
    """Every checksum."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize("storage", ["sqlite", "file"])
def test_without_checksums_a_wrong_history_is_found(monkeypatch, storage):
    monkeypatch.setattr(sqlite_reading, "record_sum", lambda *_: _Fits())
    report = explore(interrupted(storage), faults=1, kinds=["disk.bitrot"])
    assert ("nobody_is_told_what_never_was",) in report.signatures


def test_without_recovery_half_a_batch_is_found(monkeypatch):
    monkeypatch.setattr(TornTail, "recover", lambda tail: None)
    report = explore(interrupted("memory"), faults=1, kinds=["disk.torn"])
    assert report.found
