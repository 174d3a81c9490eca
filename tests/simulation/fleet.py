"""Several workers on one journal, with queues that have limits, pauses, and lives that end while something is being claimed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from simulation.compound import served
from yaoki.app import App
from yaoki.errors import JournalError, RunNotFoundError
from yaoki.explore import FakeService, Scenario, World
from yaoki.explore.shared import SharedPlatter, open_worker
from yaoki.saga.define import Saga
from yaoki.saga.queue import Queue

# Both ends of a worker's life: gone at once, and back from the dead.
DEATHS = ["crash", "proc.pause", "proc.pause:sent"]
# A worker that was told to begin nothing more has looked by then, in seconds.
KNOWS_S = 2.0


def platter_of(world: World) -> SharedPlatter:
    return world.journals[0]


async def supervised(world: World, make: Callable[[], App], work: Callable[[App], Awaitable[Any]]) -> Any:
    """Open a worker and do `work`; when the journal does not answer, begin again, as a supervisor would."""
    while True:
        try:
            async with make() as app:
                return await work(app)
        except JournalError as error:
            world.note("supervisor", f"starts the worker again: {error}")
            await world.sleep(1.0)


async def ends(app: App, saga: Saga[Any], world: World, *runs: str) -> list[str]:
    """Wait until these runs have ended, wherever they are driven, and whenever they are started."""
    states = []
    for run in runs:
        while True:
            try:
                states.append((await app.run(saga, run).wait()).value)
                break
            except RunNotFoundError:
                await world.sleep(1.0)
    return states


def fleet(work: dict[str, Callable[[World], Awaitable[Any]]], **settings: Any) -> Scenario:
    """A process for each worker; over when all have ended."""

    async def main(world: World) -> str:
        started = [world.start(name, each, world) for name, each in work.items()]
        while not all(each.done for each in started):
            await world.sleep(5.0)
        for each in started:
            if each.error is not None:
                raise each.error
        return " ".join(str(each.result) for each in started)

    return Scenario(main, timed=True, same_answer=False, **settings)


def queued(*, runs: int = 3, places: int = 1, kinds: list[str] | None = None) -> Scenario:
    """Two workers, and a queue with fewer places than runs."""
    press, mail = FakeService("press"), FakeService("mail")
    job = Saga("job", input=str, queue=Queue("print", concurrency=places))
    served(job, press)
    served(job, mail, after=["press"])
    names = [f"run-{number}" for number in range(1, runs + 1)]

    async def start_and_work(world: World) -> list[str]:
        async def work(app: App) -> list[str]:
            for name in names:
                await app.start(job, "ann", id=name)
            return await ends(app, job, world, *names)

        return await supervised(world, lambda: open_worker(world, "one", job), work)

    async def only_work(world: World) -> list[str]:
        return await supervised(world, lambda: open_worker(world, "two", job), lambda app: ends(app, job, world, *names))

    def no_more_than_places(world: World) -> str:
        """As the journal's owners say it: whoever has a run and lives is at work on it."""
        if not world.journals:
            return ""
        platter = platter_of(world)
        under_way = [no for no in platter.owners if not platter.kept._headers[no].state.is_end]
        return "" if len(under_way) <= places else f"{len(under_way)} runs are under way in a queue with {places} place{'s' if places > 1 else ''}"

    return fleet({"one": start_and_work, "two": only_work}, name="queued", faults=kinds or DEATHS, always=[no_more_than_places],
                 invariants=[no_more_than_places])


def paused(what: str = "saga", *, kinds: list[str] | None = None) -> Scenario:
    """Two workers; one of them pauses the saga, the queue or one run while it is under way, and resumes it after 20 seconds."""
    press, mail = FakeService("press"), FakeService("mail")
    job = Saga("job", input=str)
    served(job, press)
    served(job, mail, after=["press"])
    names = ["run-1", "run-2"]
    named = {"saga": "job", "queue": "default", "run": "run-1"}[what]

    async def operate(world: World) -> list[str]:
        async def work(app: App) -> list[str]:
            for name in names:
                await app.start(job, "ann", id=name)
            await app.journal.pause(what, named, who="ada")
            await app.engine.gates.look_now()
            await world.sleep(20.0)
            await app.journal.resume(what, named, who="ada")
            await app.engine.gates.look_now()
            return await ends(app, job, world, *names)

        return await supervised(world, lambda: open_worker(world, "one", job), work)

    async def only_work(world: World) -> list[str]:
        return await supervised(world, lambda: open_worker(world, "two", job), lambda app: ends(app, job, world, *names))

    def nothing_begins_while_paused(world: World) -> str:
        """The last call of a step is told the moment it was made; a process that stood still made it before."""
        if not world.journals or any(fault.startswith("proc.pause") for _, _, fault in world.fired):
            return ""
        since = [each.at for each in platter_of(world).kept._desk.turns.pauses]
        point = next((each for each in reversed(world.points) if each.service in {"press", "mail"}), None)
        if not since or point is None or (what == "run" and _run_of(world, point.site) != named):
            return ""
        late = point.time_s + world.runtime.wall_offset_s - since[0]
        return "" if late <= KNOWS_S else f"{point.site} was called {late:.1f} s after the {what} was paused"

    return fleet({"one": operate, "two": only_work}, name=f"paused {what}", faults=kinds or DEATHS, always=[nothing_begins_while_paused])


def _run_of(world: World, site: str) -> str:
    """Sites of the first run that calls anything go without its name."""
    return site.partition("/")[0] if "/" in site else world._first_run


def reborn() -> Scenario:
    """One worker that takes up a run of a limited queue, then plain ones; and a front that starts them, and looks who is dead.

    While the worker stands still between its two claims it is declared dead: the second claim is under way when it starts again.
    """
    press = FakeService("press")
    limited = Saga("limited", input=str, queue=Queue("print", concurrency=1))
    served(limited, press)
    plain = Saga("plain", input=str)
    served(plain, FakeService("mail"))

    async def start_only(world: World) -> list[str]:
        async def work(app: App) -> list[str]:
            await app.start(limited, "ann", id="run-1")
            await app.start(plain, "ann", id="run-2")
            return [*await ends(app, limited, world, "run-1"), *await ends(app, plain, world, "run-2")]

        return await supervised(world, lambda: open_worker(world, "front", limited, plain, work=False), work)

    async def only_work(world: World) -> list[str]:
        async def work(app: App) -> list[str]:
            return [*await ends(app, limited, world, "run-1"), *await ends(app, plain, world, "run-2")]

        return await supervised(world, lambda: open_worker(world, "one", limited, plain), work)

    return fleet({"front": start_only, "one": only_work}, name="reborn", faults=DEATHS, limit=900.0)
