"""Both forms of a saga behind one face: orchestrated by the engine, and choreographed over each kind of road.

A test gets `form`, a function from a world (what happens in it, and the saga made of it) to an open form:

    async with form(world) as saga:
        await saga.start("trip-1", Trip("ana"))
        assert await saga.wait("trip-1") is RunState.COMPLETED
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import pytest

import yaoki
from contracts.messages_world import until
from yaoki import runtime
from yaoki.messages import Messages, Pace, open_broker
from yaoki.messages.choreography import Monitor, cancel, participate, resolve, signal, start
from yaoki.saga.define import Saga
from yaoki.saga.records import Resolution, RunState


class Orchestrated:
    """The engine in charge."""

    def __init__(self, app: yaoki.App, saga: Saga) -> None:
        self.app = app
        self.saga = saga

    async def start(self, run: str, given: object) -> None:
        self.run = await self.app.start(self.saga, given, id=run)

    async def wait(self, run: str) -> RunState:
        return await asyncio.wait_for(self.run.wait(), 100)

    async def is_late(self, run: str) -> bool:
        """It begins nothing more, and waits for what is under way."""
        return runtime.unix_time() > (await self.run.stored()).header.deadline_at

    async def cancel(self, run: str) -> None:
        await self.run.cancel()

    async def resolve(self, run: str, step: str, decision: str) -> None:
        await self.run.resolve(step, decision)

    async def signal(self, run: str, step: str, answer: object) -> None:
        await self.run.signal(step, answer)

    async def result(self, run: str) -> object:
        return await self.run.result()


class Choreographed:
    """Nobody in charge, and a monitor that watches."""

    def __init__(self, app: Messages, saga: Saga, monitor: Monitor) -> None:
        self.app = app
        self.saga = saga
        self.monitor = monitor

    async def start(self, run: str, given: object) -> None:
        await start(self.app, self.saga, given, id=run)

    async def wait(self, run: str) -> RunState:
        return await self.monitor.wait(run, timeout=100)

    async def is_late(self, run: str) -> bool:
        return self.monitor.state(run) not in {None, RunState.RUNNING}

    async def cancel(self, run: str) -> None:
        await cancel(self.app, self.saga, run)

    async def resolve(self, run: str, step: str, decision: str) -> None:
        await resolve(self.app, self.saga, run, step, Resolution(decision))
        await until(lambda: self.monitor.state(run) is not RunState.BLOCKED)

    async def signal(self, run: str, step: str, answer: object) -> None:
        await signal(self.app, self.saga, run, step, answer)

    async def result(self, run: str) -> object:
        last = self.saga.steps[self.saga.graph.names[-1]]
        return last.result.decode(self.monitor.result(run))


@contextlib.asynccontextmanager
async def orchestrated(saga: Saga, tmp_path):
    async with yaoki.open(f"sqlite:///{tmp_path}/journal.db", sagas=[saga]) as app:
        yield Orchestrated(app, saga)


@contextlib.asynccontextmanager
async def choreographed(saga: Saga, services: Mapping[str, Sequence[str]], road: str, tmp_path, request):
    pace = Pace(lease_s=15.0, drain_s=2.0)
    async with contextlib.AsyncExitStack() as stack:
        brokers = []

        async def app_of(service: str) -> Messages:
            if road == "shared":
                return Messages(service, f"sqlite:///{tmp_path}/all.db", pace=pace)
            if road == "postgres":
                return Messages(service, url, pace=pace)
            broker = await open_broker(*address)
            brokers.append(broker)
            stack.push_async_callback(broker.close)
            return Messages(service, f"sqlite:///{tmp_path}/{service}.db", broker=broker, pace=pace)

        url = request.getfixturevalue("postgres").new_database() if road == "postgres" else ""
        address = (f"sqlite:///{tmp_path}/broker.db",) if road == "own stores" else (request.getfixturevalue("nats_url"),) if road == "nats" else ()
        apps = {service: await app_of(service) for service in services}
        for service, steps in services.items():
            participate(saga, steps=steps, app=apps[service])
        apps["desk"] = await app_of("desk")
        monitor = Monitor(saga, apps["desk"])
        for app in apps.values():
            await stack.enter_async_context(app)
        yield Choreographed(apps["desk"], saga, monitor)


FORMS = ["orchestrated", "shared", "own stores",
         pytest.param("postgres", marks=[pytest.mark.live, pytest.mark.long]),
         pytest.param("nats", marks=[pytest.mark.live, pytest.mark.long])]


_numbers = iter(range(10_000))


def new_run() -> str:
    """Brokers are shared by tests, so runs have names of their own."""
    return f"trip-{next(_numbers)}"
