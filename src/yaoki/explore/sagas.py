"""Sagas in a universe: the real engine on a simulated journal, and a scenario of any saga."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from yaoki.app import App
from yaoki.errors import ConfigError, JournalError
from yaoki.explore.journal import Platter, SimJournal
from yaoki.explore.scenarios import Scenario
from yaoki.explore.world import World
from yaoki.saga.child import children_of
from yaoki.saga.define import Saga
from yaoki.saga.records import RunState

T = TypeVar("T")

# Seconds from a failed disk to the next start, as an operator or a supervisor would take.
RESTART_S = 5.0


def open_app(world: World, *sagas: Saga[Any], journal: str = "journal", concurrency: int = 1000, grace: float = 10.0) -> App:
    """Make the app that `yaoki.open` makes, on a simulated journal.

    Args:
        journal: its name; the same name is the same journal, also after a power cut.
    """
    platter = next((each for each in world.journals if each.name == journal), None)
    if platter is None:
        platter = Platter(journal)
        world.journals.append(platter)
        world.circular.append(platter.kept)
    platter.sagas.update({saga.name: saga for saga in children_of(sagas)})
    app = App(SimJournal(world, platter), sagas, concurrency=concurrency, grace=grace)
    world.circular += (app.engine, app.journal)
    return app


async def supervised(world: World, work: Callable[[App], Awaitable[T]], *sagas: Saga[Any]) -> T:
    """Open the sagas and do `work`; when the journal's disk fails, start again, as a supervisor would."""
    while True:
        try:
            async with open_app(world, *sagas) as app:
                return await work(app)
        except (JournalError, OSError) as error:
            world.note("main", f"the journal failed ({error}); the program is started again")
            await world.sleep(RESTART_S)


def saga_scenario(saga: Saga[Any], *, input: Any = None, runs: Mapping[str, Any] | None = None, id: str = "run-1",  # noqa: A002
                  name: str = "", **settings: Any) -> Scenario:
    """A program that starts one run (or several, by id) and waits for the result; it starts again after a power cut.

    Args:
        input: what the run starts with. runs: id → input, to start several.
        settings: of `Scenario`.

    Raises:
        ConfigError: neither `input` nor `runs`, and the saga takes one.
    """
    started = dict(runs) if runs is not None else {id: input}
    for each in started.values():
        if each is None and saga.input_type is not type(None):
            raise ConfigError(f"saga {saga.name!r} needs an input of type {saga.input_type!r}", do="pass input=... or runs={id: input}")

    async def main(world: World) -> Any:
        return await supervised(world, lambda app: _all(app, saga, started), saga)

    return Scenario(main, name=name or saga.name, **settings)


async def _all(app: App, saga: Saga[Any], started: Mapping[str, Any]) -> dict[str, str] | Any:
    handles = [await app.start(saga, value, id=key) for key, value in started.items()]
    if len(handles) == 1 and await handles[0].wait() is RunState.COMPLETED:
        return await handles[0].result()
    return {handle.id: str(await handle.wait()) for handle in handles}
