"""Sagas that deal with time and the world outside, to be explored: locks, tokens, heartbeats, schedules."""

from __future__ import annotations

import asyncio
from typing import Any

from simulation.fleet import ends
from yaoki import Effect, heartbeat
from yaoki.app import App
from yaoki.errors import JournalError, TooLateError
from yaoki.explore import Booking, FakeService, Scenario, World
from yaoki.explore.sagas import supervised
from yaoki.explore.shared import open_worker
from yaoki.saga.define import Saga
from yaoki.saga.schedule import desk
from yaoki.saga.schedule.book import Book

WORKER_FAULTS = ["crash", "proc.pause", "call.lost_ack", "call.timeout:none"]
ENDS = {"completed", "undone", "cancelled"}


async def both(world: World, work: Any) -> str:
    """Two worker processes, until both have ended."""
    one, two = world.start("one", work, world, "one", True), world.start("two", work, world, "two", False)
    while not (one.done and two.done):
        await world.sleep(5.0)
        if one.done and two.done:
            await world.sleep(120.0)  # a power cut in the very moment in which one ends starts it again
    for process in (one, two):
        if process.error is not None:
            raise process.error
    return f"{one.result} {two.result}"


def locked(*, broken: bool = False) -> Scenario:
    """Two runs want the same seat, on two workers. Whoever has it has it to the end of his run.

    broken: without the lock, to see that the check finds it.
    """
    seat, payment = FakeService("seat"), FakeService("payment", declines=lambda subject, item: subject.startswith("a/"))
    saga: Saga[str] = Saga("trip", input=str, lock=None if broken else lambda who: "seat")

    def mine(world: World, run: str) -> None:
        outcomes = world.journals[0].outcomes()
        had: dict[str, None] = world.disk.setdefault("had", {})
        for other in had:
            assert other == run or outcomes[other] in ENDS, f"run {run} touches the seat while {other} is {outcomes[other]}"
        had[run] = None

    def made(world: World) -> None:
        @saga.step
        async def hold(who: str, effect: Effect) -> Booking:
            mine(world, effect.run)
            return await seat.book()

        @hold.undo
        async def free(who: str, effect: Effect) -> None:
            mine(world, effect.run)
            await seat.cancel()

        @saga.step(undo=None)
        async def pay(who: str, hold: Booking, effect: Effect) -> Booking:
            mine(world, effect.run)
            return await payment.book()

    async def work(world: World, name: str, starts: bool) -> str:
        async with open_worker(world, name, saga) as app:
            if starts:
                for run in ("a", "b"):
                    await app.start(saga, run, id=run)
            return " ".join(await ends(app, saga, world, "a", "b"))

    async def main(world: World) -> str:
        saga.steps.clear()
        saga.changed()
        made(world)
        return await both(world, work)

    return Scenario(main, name="locked", faults=WORKER_FAULTS, timed=True, same_answer=False)


def external(*, silent: bool = False) -> Scenario:
    """A printer that is asked for a ticket, and says later, by the token, that it is done.

    silent: it says nothing the first time, and the step is asked again.
    """
    hotel, printer = FakeService("hotel"), FakeService("printer")
    saga: Saga[str] = Saga("print", input=str)

    async def main(world: World) -> str:
        tokens: list[str] = world.disk.setdefault("tokens", [])
        saga.steps.clear()
        saga.changed()

        @saga.step
        async def room(who: str) -> Booking:
            return await hotel.book()

        @room.undo
        async def leave(who: str) -> None:
            await hotel.cancel()

        @saga.external(str, heartbeat=60.0 if silent else None)
        async def ticket(who: str, room: Booking, effect: Effect) -> None:
            await printer.book()
            if effect.token not in tokens:
                tokens.append(effect.token)

        @ticket.undo
        async def tear_up(who: str) -> None:
            await printer.cancel()

        async def work(app: App) -> str:
            run = await app.start(saga, "ann", id="run-1")
            said = asyncio.ensure_future(outside(app))
            try:
                return (await run.wait()).value
            finally:
                said.cancel()
                await asyncio.wait([said])

        async def outside(app: App) -> None:
            while len(tokens) < 1 + silent:
                await world.sleep(1.0)
            while True:
                try:
                    if await app.complete(tokens[-1], "T-1", wait=30.0):
                        return
                except (TooLateError, JournalError):
                    return  # the run undoes itself; or this program ends, and the next one says it again

        return await supervised(world, work, saga)

    return Scenario(main, name="external", timed=True)


def late(at_s: float, seen: set[str]) -> Scenario:
    """What is done outside knows no keys, and is done when the run's time is nearly over, or just over.

    Whoever is told that it came too late takes it back, unless the run does. seen: how it ended, over all executions.
    """
    hotel = FakeService("hotel")
    saga: Saga[str] = Saga("late", input=str, deadline=10.0)

    async def main(world: World) -> str:
        asked: list[str] = world.disk.setdefault("asked", [])
        ink: set[str] = world.disk.setdefault("ink", set())
        saga.steps.clear()
        saga.changed()

        @saga.step
        async def room(who: str) -> Booking:
            return await hotel.book()

        @room.undo
        async def leave(who: str) -> None:
            await hotel.cancel()

        @saga.external(str)
        async def ticket(who: str, effect: Effect) -> None:
            asked.append(effect.token)

        @ticket.undo
        async def scrape_off(who: str, ticket: str | None) -> None:
            await world.sleep(0.5)
            if ticket is not None:
                ink.discard("T-1")

        async def work(app: App) -> str:
            run = await app.start(saga, "ann", id="run-1")
            said = asyncio.ensure_future(outside(app))
            try:
                state = (await run.wait()).value
                await said
                return state
            finally:
                said.cancel()
                await asyncio.wait([said])

        async def outside(app: App) -> None:
            while not asked:
                if await app.run(saga, "run-1").state() in ENDS:
                    return
                await world.sleep(0.1)
            if "T-1" not in world.disk.setdefault("printed", []):
                await world.sleep(max(0.0, at_s - world.now))
                ink.add("T-1")
                world.disk["printed"].append("T-1")
            while True:
                try:
                    if await app.complete(asked[-1], "T-1", wait=30.0):
                        seen.add("in time")
                        return
                except TooLateError as error:
                    if not error.taken_back:
                        ink.discard("T-1")
                    seen.add("taken back by the run" if error.taken_back else "taken back outside")
                    return

        return await supervised(world, work, saga)

    def no_ink_without_a_trip(world: World) -> None:
        (state,) = world.journals[0].outcomes().values()
        assert world.disk["ink"] == ({"T-1"} if state == "completed" else set()), f"{state}, with {world.disk['ink']}"

    return Scenario(main, name=f"late at {at_s:g}", timed=True, same_answer=False, invariants=[no_ink_without_a_trip])


def silent() -> Scenario:
    """A service that may never answer, and a step that is watched: it is given up, and repeated with the same key."""
    hotel, payment = FakeService("hotel", timeout=None), FakeService("payment", timeout=None)
    saga: Saga[str] = Saga("watched", input=str)

    @saga.step(heartbeat=30.0)
    async def room(who: str, effect: Effect) -> Booking:
        heartbeat({"asked": effect.attempt})
        return await hotel.book()

    @room.undo(timeout=20.0)
    async def leave(who: str, room: Booking | None) -> None:
        await hotel.cancel()

    @saga.step(heartbeat=30.0, undo=None)
    async def pay(who: str, room: Booking) -> Booking:
        return await payment.book()

    async def main(world: World) -> str:
        async def work(app: App) -> str:
            run = await app.start(saga, "ann", id="run-1")
            return (await run.wait()).value

        return await supervised(world, work, saga)

    return Scenario(main, name="silent", timed=True, faults=["crash", "call.timeout:none", "call.lost_ack", "call.reject"])


def scheduled() -> Scenario:
    """Two workers keep one schedule. Whoever lives starts the run of each instant; none is started twice."""
    mail = FakeService("mail")
    saga: Saga[str] = Saga("report", input=str)

    @saga.step(undo=None)
    async def send(of: str, effect: Effect) -> Booking:
        return await mail.book()

    async def work(world: World, name: str, starts: bool) -> str:
        async with open_worker(world, name, saga) as app:
            app.schedule("often", saga, every=20.0, input="x", overlap="allow")
            await world.sleep(45.0)
            while len(world.journals[0].outcomes()) < 2:
                await world.sleep(5.0)
            await desk.pause(Book(app.journal), "often", "the day is over")
            while any(state not in ENDS for state in world.journals[0].outcomes().values()) or await pending(app):
                await world.sleep(5.0)
        return "ended"

    async def pending(app: App) -> bool:
        return any(entry.plan.pending for entry in (await Book(app.journal).read()).values())

    def once_each(world: World) -> None:
        runs = world.journals[0].outcomes()
        assert all(state == "completed" for state in runs.values()), runs
        instants = sorted(run.partition("@")[2] for run in runs)
        assert len(instants) >= 2, runs
        net = mail._state_in(world).net
        assert all(units == 1 for units in net.values()), net

    async def main(world: World) -> str:
        return await both(world, work)

    return Scenario(main, name="scheduled", faults=WORKER_FAULTS, timed=True, same_answer=False, invariants=[once_each])
