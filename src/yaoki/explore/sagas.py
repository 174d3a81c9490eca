"""Sagas in a universe: the real engine on a simulated journal, and a scenario of any saga."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from yaoki.app import App
from yaoki.errors import ConfigError, JournalError, RunBlockedError, RunUndoneError
from yaoki.explore.clock_reads import why_timed
from yaoki.explore.journal import Platter, SimJournal
from yaoki.explore.scenarios import Scenario
from yaoki.explore.world import World
from yaoki.saga.define import Saga
from yaoki.saga.journal.port import Journal

T = TypeVar("T")

# Seconds from a failed disk to the next start, as an operator or a supervisor would take.
RESTART_S = 5.0


def open_app(world: World, *sagas: Saga[Any], journal: str = "journal", storage: str = "memory", concurrency: int = 1000, grace: float = 10.0) -> App:
    """Make the app that `yaoki.open` makes, on a journal in this universe.

    Args:
        journal: its name; the same name is the same journal, also after a power cut.
        storage: "memory" (quickest), "sqlite" (the real journal, in memory) or "file" (the real journal, in a file that may be torn).

    Raises:
        ConfigError: another storage.
    """
    for platter in world.journals:
        if platter.name == journal:
            break
    else:
        platter = _new_platter(world, journal, storage)
        world.journals.append(platter)
    opened: Journal = SimJournal(world, platter) if isinstance(platter, Platter) else _on_sqlite(world, platter)
    app = App(opened, sagas, concurrency=concurrency, grace=grace)
    platter.sagas.update(app.engine.sagas)
    world.circular += (app.engine, app.journal)
    if world.clock_reads is not None:
        for saga in platter.sagas.values():
            world.decides_by_time(why_timed(saga))
    return app


def _new_platter(world: World, name: str, storage: str) -> Any:
    if storage == "memory":
        platter = Platter(name)
        world.circular.append(platter.kept)
        return platter
    from yaoki.explore.sqlite_journal import open_platter  # noqa: PLC0415  most explorations do without SQLite

    return open_platter(name, storage)


def _on_sqlite(world: World, platter: Any) -> Journal:
    from yaoki.explore.sqlite_journal import SimSqliteJournal  # noqa: PLC0415  as above

    return SimSqliteJournal(world, platter)


async def supervised(world: World, work: Callable[[App], Awaitable[T]], *sagas: Saga[Any], storage: str = "memory") -> T:
    """Open the sagas and do `work`; when the journal's disk fails, start again, as a supervisor would."""
    while True:
        try:
            async with open_app(world, *sagas, storage=storage) as app:
                return await work(app)
        except (JournalError, OSError) as error:
            world.note("main", f"the journal failed ({error}); the program is started again")
            await world.sleep(RESTART_S)


def saga_scenario(saga: Saga[Any], *, input: Any = None, runs: Mapping[str, Any] | None = None, id: str = "run-1",  # noqa: A002
                  name: str = "", storage: str = "memory", **settings: Any) -> Scenario:
    """A program that starts one run (or several, by id) and waits for the result; it starts again after a power cut.

    Args:
        input: what the run starts with. runs: id → input, to start several.
        storage: of the journal: see `open_app`.
        settings: of `Scenario`.

    Raises:
        ConfigError: neither `input` nor `runs`, and the saga takes one.
    """
    started = dict(runs) if runs is not None else {id: input}
    for each in started.values():
        if each is None and saga.input_type is not type(None):
            raise ConfigError(f"saga {saga.name!r} needs an input of type {saga.input_type!r}", do="pass input=... or runs={id: input}")

    async def main(world: World) -> Any:
        return await supervised(world, lambda app: _all(app, saga, started), saga, storage=storage)

    return Scenario(main, name=name or saga.name, **settings)


async def _all(app: App, saga: Saga[Any], started: Mapping[str, Any]) -> dict[str, str] | Any:
    handles = [await app.start(saga, value, id=key) for key, value in started.items()]
    if len(handles) == 1:
        try:
            return await handles[0].result()
        except (RunUndoneError, RunBlockedError):
            return {handles[0].id: str(await handles[0].wait())}
    return {handle.id: str(await handle.wait()) for handle in handles}
