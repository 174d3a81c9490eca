"""What keeps an execution cheap, where a small change could make it dear without anybody noticing."""

from __future__ import annotations

from typing import Any

import pytest

from simulation import sagas
from yaoki.explore import Scenario, World
from yaoki.explore.sagas import open_app
from yaoki.saga.define import Saga
from yaoki.saga.driver import Driver
from yaoki.saga.journal.memory import MemoryJournal

# Python 3.11 to 3.13 keep the attributes of an object in its own place up to so many; beyond that in a dictionary of its own.
KEPT_CLOSE = 30


def test_what_each_universe_makes_anew_stays_small(monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []
    for kind in (World, Driver):
        monkeypatch.setattr(kind, "__init__", _kept(kind.__init__, made))
    sizes: dict[str, int] = {}
    end = World.end

    def measured(world: World) -> None:
        sizes.update({type(each).__name__: len(vars(each)) for each in (*made, world.loop, *world.circular, *world.processes)})
        end(world)

    monkeypatch.setattr(World, "end", measured)
    assert not sagas.chain().execute().violations
    assert {"World", "VirtualLoop", "Driver", "Engine", "SimJournal"} <= sizes.keys()
    assert {name: size for name, size in sizes.items() if size > KEPT_CLOSE} == {}


def _kept(init: Any, made: list[Any]) -> Any:
    def stand_in(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        made.append(self)

    return stand_in


def test_an_engine_on_a_bare_journal_begins_no_task_before_its_first_look():
    saga = _one_step()
    names: list[list[str]] = []

    async def main(world: World) -> None:
        async with open_app(world, saga):
            names.append(sorted(task.get_name() for task, _ in world.loop.unfinished()))
            await world.sleep(0.6)
            names.append(sorted(task.get_name() for task, _ in world.loop.unfinished()))

    assert not Scenario(main).execute().violations
    assert names == [["main"], ["main", "yaoki-watch"]]


def test_a_journal_with_runs_is_not_bare():
    journals: list[MemoryJournal] = []
    saga = _one_step()

    async def main(world: World) -> None:
        async with open_app(world, saga) as app:
            assert isinstance(app.journal, MemoryJournal)
            journals.append(app.journal)
            assert app.journal.is_bare
            await app.start(saga, "ann", id="run-1")
            assert not app.journal.is_bare

    run = Scenario(main).execute()
    assert run.error is None
    assert journals


def _one_step() -> Saga[str]:
    saga = Saga("greet", input=str)

    @saga.step(undo=None)
    async def greet(who: str) -> str:
        return who

    return saga
