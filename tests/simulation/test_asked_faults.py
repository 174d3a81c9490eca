"""The engine under the faults that are tried only when they are named: wrong clocks, resources that run out, a second instance, long pauses."""

from __future__ import annotations

import asyncio

import pytest

from simulation import sagas
from yaoki.chaos import faults
from yaoki.explore import Booking, FakeService, Scenario, explore, replay
from yaoki.explore.sagas import saga_scenario
from yaoki.saga.define import Saga

# Not these: an answer that is a no undoes a saga, or blocks an undo, as it should; cancellation: see below; the others need zones,
# queues, streams or HTTP.
ELSEWHERE = ("call.conflict:answer", "proc.cancel", "net.partition:zone", "msg", "stream", "payload", "read")
ASKED = [fault.id for fault in faults.CATALOGUE if fault.asked and not fault.id.startswith(ELSEWHERE)]


@pytest.mark.parametrize("name", ["chain that is declined", "diamond", "blocking", "cancelled"])
def test_the_engine_brings_every_saga_to_its_end_under_what_is_asked_for(name):
    report = explore(sagas.ALL[name](), faults=1, kinds=ASKED)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted


def hotel_that_cancels(times: int) -> Scenario:
    """A step whose own code awaits a task that somebody has cancelled, so often."""
    hotel, seen = FakeService("hotel"), []
    trip = Saga("trip", input=str)

    @trip.step
    async def room(who: str) -> Booking:
        booked = await hotel.book()
        seen.append(who)
        if len(seen) <= times:
            helper = asyncio.create_task(asyncio.sleep(10.0))
            helper.cancel()
            await helper
        return booked

    @room.undo
    async def cancel_room(who: str) -> None:
        await hotel.cancel()

    return saga_scenario(trip, input="ann", setup=lambda world: seen.clear())


@pytest.mark.parametrize(("times", "outcome"), [(1, "completed"), (1000, "undone")], ids=["once", "always"])
def test_a_step_that_awaits_what_is_cancelled_is_in_doubt_and_its_run_ends(times, outcome):
    run, story = replay(hotel_that_cancels(times), "yk1:none")
    assert run.outcome == outcome, story.text()
    assert not run.violations


def test_a_step_whose_own_task_is_cancelled_does_not_leave_its_run_alone():
    run, _ = replay(sagas.chain(), "yk1:hotel>hotel.book@0=proc.cancel")
    assert not run.violations
