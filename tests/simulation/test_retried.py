"""Runs that a person has retried from a step, while they wait and while they are under way, under every fault at every point."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulation.compound import served
from simulation.test_compound import SHARP
from yaoki import Flow
from yaoki.app import App
from yaoki.errors import RetryFromError
from yaoki.explore import Booking, FakeService, Scenario, World, explore, replay
from yaoki.explore.sagas import supervised
from yaoki.saga import attempt
from yaoki.saga.define import Saga
from yaoki.saga.machine import Machine
from yaoki.saga.records import Kind, RunState


def retried(saga: Saga[str], name: str, *, after_s: float, storage: str = "memory") -> Scenario:
    """A run that is retried from `flight` after so long, once for each start of the program; then it is answered until it ends."""
    async def main(world: World) -> str:
        async def work(app: App) -> str:
            run = await app.start(saga, "ann", id="run-1")
            await world.sleep(after_s)
            if not world.disk.get("retried"):
                try:
                    await run.retry(from_="flight", who="ada")
                    world.disk["retried"] = True
                except RetryFromError:
                    pass  # it has not begun, or is over
            while "approval" in saga.steps and app.engine.broken is None and await run.state() is RunState.RUNNING:
                records = (await run.stored()).records
                anew = any(record.kind is Kind.ANEW for record in records) or not world.disk.get("retried")
                if anew and records and (records[-1].kind, records[-1].step) == (Kind.WAITING, "approval") and not world.disk.get("answered"):
                    await run.signal("approval", "yes")
                    world.disk["answered"] = True
                await world.sleep(1.0)
            return (await run.wait()).value

        return await supervised(world, work, saga, storage=storage)

    return Scenario(main, name=name, timed=True)


def waiting(*, storage: str = "memory") -> Scenario:
    """It waits for an answer when it is retried."""
    saga = Saga("waiting", input=str)
    served(saga, FakeService("hotel"))
    served(saga, FakeService("flight"), after=["hotel"])

    @saga.wait_for(str, after="flight")
    async def approval(who: str) -> None: ...

    served(saga, FakeService("payment"), after=["approval"])
    return retried(saga, "waiting", after_s=1.0, storage=storage)


def under_way(after_s: float) -> Callable[[], Scenario]:
    """Two branches side by side, and a step that needs both; something runs at that moment."""
    def made() -> Scenario:
        saga = Saga("under-way", input=str)
        served(saga, FakeService("hotel"))
        served(saga, FakeService("flight"))
        served(saga, FakeService("seat"), after=["flight"])
        served(saga, FakeService("payment", declines=False), after=["hotel", "seat"])
        return retried(saga, "under way", after_s=after_s)

    return made


def in_parts() -> Scenario:
    """What is retried is a flow, a fan-out and a child; one after the other."""
    saga, charge = Saga("in-parts", input=str), Saga("charge", input=str)
    served(charge, FakeService("hold"))
    seats, photos = FakeService("seats"), FakeService("photos")

    async def reserve(row: int) -> Booking:
        return await seats.book(item=str(row))

    async def release(row: int, result: Booking | None) -> None:
        await seats.cancel()

    @saga.flow(undos=[release])
    async def flight(who: str, flow: Flow) -> str:
        return (await flow.step("row", reserve, 0, undo=release)).id

    @saga.step(each=lambda who: [0, 1], after="flight")
    async def album(who: str, item: int) -> Booking:
        return await photos.book(item=str(item))

    @album.undo
    async def delete(who: str, item: int) -> None:
        await photos.cancel()

    @saga.child(charge, after="album")
    def payment(who: str) -> str:
        return who

    @saga.wait_for(str, after="payment")
    async def approval(who: str) -> None: ...

    return retried(saga, "in parts", after_s=1.0)


ALL: dict[str, Callable[[], Scenario]] = {
    "waiting": waiting, "under way, early": under_way(0.0025), "under way, late": under_way(0.0045), "in parts": in_parts,
    "waiting, on the real SQLite journal": lambda: waiting(storage="sqlite"),
}
FEW = {"in parts": SHARP, "waiting, on the real SQLite journal": SHARP}


@pytest.mark.parametrize("name", ALL)
def test_every_single_fault(name: str):
    report = explore(ALL[name](), faults=1, kinds=FEW.get(name))
    assert report.ok, report.text(matrix=False)
    assert report.exhausted


@pytest.mark.long
@pytest.mark.parametrize("name", FEW)
def test_every_single_fault_of_every_kind(name: str):
    report = explore(ALL[name](), faults=1)
    assert report.ok, report.text(matrix=False)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ALL)
def test_every_pair_of_faults(name: str):
    report = explore(ALL[name](), faults=2, most=4000)
    assert report.ok, report.text(matrix=False)


def test_a_step_made_anew_by_its_old_key_would_be_refused_by_its_service(monkeypatch: pytest.MonkeyPatch):
    assert replay(waiting(), "yk1:none")[0].outcome == "completed"
    monkeypatch.setattr(attempt, "keyed", lambda under_way, machine: under_way)
    assert replay(waiting(), "yk1:none")[0].outcome == "undone"


def test_a_step_that_is_made_anew_and_was_not_undone_is_found_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Machine, "_to_undo", lambda self, number, in_doubt: self._clear(number))
    assert explore(waiting(), faults=0).found
