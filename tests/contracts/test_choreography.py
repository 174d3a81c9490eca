"""One suite over both forms of a saga: orchestrated by the engine, and choreographed over each kind of road."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import msgspec
import pytest

from contracts.choreography_world import choreographed, new_run
from contracts.messages_world import until, until_so
from yaoki import events
from yaoki.errors import DeclinedError, DefinitionError, InDoubtError
from yaoki.messages import Messages
from yaoki.messages.choreography import Monitor, participate, start
from yaoki.messages.choreography.told import Run, Told
from yaoki.saga.define import Saga
from yaoki.saga.records import RunState


class Trip(msgspec.Struct):
    who: str


class World:
    """Three services' effects by key, and what goes wrong on purpose."""

    def __init__(self) -> None:
        self.effects: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.undone: list[str] = []
        self.given: dict[str, object] = {}
        self.wrong: dict[str, object] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def do(self, step: str) -> str:
        self.calls[step] += 1
        fault = self.wrong.get(step)
        if fault == "wait":
            await self.gate.wait()
        elif fault == "doubt" or (fault == "doubt once" and self.calls[step] == 1):  # it happens, and the answer is lost, every time
            self.effects.add(step)
            raise InDoubtError("no answer")
        elif fault == "bug" or (fault == "slow pivot" and self.calls[step] < 3):
            raise KeyError("a bug") if fault == "bug" else ConnectionResetError("not now")
        elif fault == "decline":
            await asyncio.sleep(0.02)
            raise DeclinedError("sold out")
        self.effects.add(step)
        return f"{step}-ok"

    async def undo(self, step: str, result: object) -> None:
        self.given[step] = result
        self.undone.append(step)
        self.effects.discard(step)


def made_saga(world: World, *, deadline: float | None = None) -> Saga[Trip]:
    saga: Saga[Trip] = Saga("book-trip", input=Trip, deadline=deadline, brake=None)

    @saga.step
    async def hotel(trip: Trip) -> str:
        return await world.do("hotel")

    @hotel.undo
    async def cancel_hotel(trip: Trip, hotel: str | None) -> None:
        await world.undo("hotel", hotel)

    @saga.step
    async def flight(trip: Trip) -> str:
        return await world.do("flight")

    @flight.undo
    async def cancel_flight(trip: Trip, flight: str | None) -> None:
        await world.undo("flight", flight)

    @saga.step
    async def seat(trip: Trip, flight: str) -> str:
        assert flight == "flight-ok"
        return await world.do("seat")

    @seat.undo
    async def cancel_seat(trip: Trip, seat: str | None) -> None:
        await world.undo("seat", seat)

    @saga.step(pivot=True)
    async def payment(trip: Trip, hotel: str, seat: str) -> str:
        return await world.do("payment")

    @payment.undo
    async def refund(trip: Trip, payment: str | None) -> None:
        await world.undo("payment", payment)

    @saga.step
    async def letter(trip: Trip, payment: str) -> str:
        return await world.do("letter")

    return saga


SERVICES = {"hotels": ["hotel"], "flights": ["flight", "seat"], "bank": ["payment", "letter"]}


ALL = {"hotel", "flight", "seat", "payment", "letter"}
async def test_all_steps_are_done_once_each_after_what_it_needs(form):
    world, run = World(), new_run()
    async with form(made_saga(world), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.COMPLETED
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.COMPLETED
    assert world.effects == ALL
    assert set(world.calls.values()) == {1}
    assert world.undone == []


@pytest.mark.parametrize("failing", ["hotel", "flight", "seat", "payment"])
async def test_a_declined_step_undoes_the_others_in_reverse_order(form, failing):
    world, run = World(), new_run()
    world.wrong[failing] = "decline"
    async with form(made_saga(world), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.UNDONE
    assert world.effects == set()
    assert failing not in world.undone, "what was declined left nothing to undo"
    assert len(world.undone) == len(set(world.undone))
    if {"seat", "flight"} <= set(world.undone):
        assert world.undone.index("seat") < world.undone.index("flight")


async def test_a_step_in_doubt_is_undone_with_none(form):
    world, run = World(), new_run()
    world.wrong["seat"] = "doubt"
    async with form(made_saga(world), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.UNDONE
    assert world.effects == set()
    assert world.given == {"seat": None, "flight": "flight-ok", "hotel": "hotel-ok"}


async def test_a_lost_answer_is_asked_for_again_and_the_run_goes_on(form):
    world, run = World(), new_run()
    world.wrong["seat"] = "doubt once"
    async with form(made_saga(world), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.COMPLETED
    assert world.effects == ALL


async def test_after_the_pivot_a_step_is_tried_until_it_succeeds(form):
    world, run = World(), new_run()
    world.wrong["letter"] = "slow pivot"
    async with form(made_saga(world), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.COMPLETED
    assert world.calls["letter"] == 3


async def test_a_bug_blocks_the_run_until_a_person_decides(form):
    world, run = World(), new_run()
    world.wrong["seat"] = "bug"
    async with form(made_saga(world), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.BLOCKED
        assert "payment" not in world.effects
        world.wrong.clear()
        await saga.resolve(run, "seat", "retry")
        await until(lambda: world.effects == ALL)


async def test_a_cancelled_run_waits_for_what_is_under_way_and_undoes_it(form):
    world, run = World(), new_run()
    world.wrong["seat"] = "wait"
    world.gate.clear()
    async with form(made_saga(world), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        await until(lambda: world.calls["seat"] and {"hotel", "flight"} <= world.effects)
        await asyncio.sleep(0.1)
        await saga.cancel(run)
        await asyncio.sleep(0.1)
        assert world.undone == []
        world.gate.set()
        assert await saga.wait(run) is RunState.CANCELLED
    assert world.effects == set()
    assert sorted(world.undone) == ["flight", "hotel", "seat"]


async def test_a_run_whose_deadline_passes_undoes_itself(form):
    for deadline_s in (0.6, 10.0, 60.0):  # until the machine has not stood still for so long
        world, run = World(), new_run()
        world.wrong["seat"] = "wait"
        world.gate.clear()
        async with form(made_saga(world, deadline=deadline_s), SERVICES) as saga:
            await saga.start(run, Trip("ana"))
            await until_so(lambda saga=saga, run=run: saga.is_late(run))
            await asyncio.sleep(1.0)  # ample time for everybody to hear of it
            world.gate.set()
            assert await saga.wait(run) is RunState.UNDONE
        assert world.effects == set()
        if world.calls["seat"]:
            return
    raise AssertionError("the deadline never passed while a step was under way")


# ── choreography alone ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_monitor_sees_what_a_run_waits_for_and_alarms_over_what_was_begun(tmp_path, request):
    world, stuck = World(), []
    world.wrong["seat"] = "wait"
    world.gate.clear()
    async with choreographed(made_saga(world), SERVICES, "shared", tmp_path, request) as saga:
        await saga.start("trip-1", Trip("ana"))
        await until(lambda: saga.monitor.remaining("trip-1") == ["seat"] and "seat" in saga.monitor.runs["trip-1"].begun)
        (edge,) = saga.monitor.edges()
        assert (edge.action, edge.begun) == ("seat", True)
        assert saga.monitor.overdue(edge.since + 29) == []
        assert saga.monitor.overdue(edge.since + 31) == [edge]
        saga.monitor.overdue_s = 0.0
        with events.listen(stuck.append, kinds=(events.RunStuck,)):
            await saga.monitor.look()
            await saga.monitor.look()
        assert [each.waiting_for for each in stuck] == ["seat"], "one alarm for one edge"
        world.gate.set()
        assert await saga.wait("trip-1") is RunState.COMPLETED


async def test_what_nobody_began_is_nudged_and_taken_up(tmp_path, request):
    world = World()
    saga_of = made_saga(world)
    store = f"sqlite:///{tmp_path}/all.db"
    desk = Messages("desk", store)
    monitor = Monitor(saga_of, desk, overdue=0.0)
    async with desk:
        await start(desk, saga_of, Trip("ana"), id="trip-1")
        await until(lambda: monitor.remaining("trip-1") == ["hotel", "flight"])
        await monitor.look()
        # The services come later, and begin at the end of the log, as after a lost message: only the nudge tells them.
        apps = {service: Messages(service, store) for service in SERVICES}
        for service, steps in SERVICES.items():
            participate(saga_of, steps=steps, app=apps[service])
        async with contextlib.AsyncExitStack() as stack:
            for app in apps.values():
                await stack.enter_async_context(app)
            await monitor.look()
            assert await monitor.wait("trip-1") is RunState.COMPLETED
    assert world.effects == ALL


def test_a_step_that_the_saga_does_not_have_is_refused():
    with pytest.raises(DefinitionError, match="hotle"):
        participate(made_saga(World()), steps=["hotle"], app=Messages("hotels", "sqlite:///unused.db"))


def test_participants_that_hear_the_same_words_conclude_the_same():
    saga = made_saga(World())
    words = [Told("started", data=msgspec.Raw(b'{"who":"ana"}')), Told("done", "flight", msgspec.Raw(b'"flight-ok"')),
             Told("failed", "hotel", msgspec.Raw(b'{"error":"Declined"}'))]
    run = Run(saga, "trip-1")
    for word in words:
        run.hear(word)
    assert run.next_actions == ["seat"], "it may have been begun, so its owner is waited for"
    run.hear(Told("failed", "seat", msgspec.Raw(b'{"error":"NotStarted"}')))
    assert run.next_actions == ["flight:undo"]
    run.hear(Told("cancel", data=msgspec.Raw(b'{"reason":"too late"}')))
    run.hear(Told("undone", "flight"))
    assert run.machine.state is RunState.UNDONE
