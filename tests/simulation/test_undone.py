"""A completed run that a person has undone, under every fault at every point: nothing of it is left, or it is said that a person is needed."""

from __future__ import annotations

import pytest

from simulation.compound import served
from simulation.test_compound import SHARP
from yaoki.app import App
from yaoki.errors import UndoRunError
from yaoki.explore import FakeService, Scenario, World, explore, replay
from yaoki.explore.sagas import supervised
from yaoki.saga.define import Saga
from yaoki.saga.machine import Machine
from yaoki.saga.records import RunState


def undone(*, storage: str = "memory") -> Scenario:
    """Two steps side by side and one that needs both; undone once it is completed, whoever drives it by then."""
    saga = Saga("undone", input=str)
    served(saga, FakeService("hotel"))
    served(saga, FakeService("flight"))
    served(saga, FakeService("payment", declines=False), after=["hotel", "flight"])

    async def main(world: World) -> str:
        async def work(app: App) -> str:
            run = await app.start(saga, "ann", id="run-1")
            state = await run.wait()
            if state is RunState.COMPLETED and not world.disk.get("asked"):
                try:
                    await run.undo("called off", who="ada")
                except UndoRunError:
                    pass  # it was asked, and its process died before that was noted
                world.disk["asked"] = True
                state = await run.wait()
            return state.value

        return await supervised(world, work, saga, storage=storage)

    return Scenario(main, name="undone", timed=True)


@pytest.mark.parametrize("storage", ["memory", "sqlite"])
def test_every_single_fault(storage: str):
    report = explore(undone(storage=storage), faults=1, kinds=SHARP if storage == "sqlite" else None)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
    assert replay(undone(storage=storage), "yk1:none")[0].outcome == "cancelled"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_pair_of_faults():
    report = explore(undone(), faults=2, most=4000)
    assert report.ok, report.text(matrix=False)


def test_a_step_that_is_not_undone_is_found_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Machine, "_may_undo", lambda self, number: self._clear(number))
    assert explore(undone(), faults=0).found
