"""What reductions may not overlook: clocks that are read, limits that run, what policies remember. Each is a bug that needs two faults."""

from __future__ import annotations

import asyncio
import time

import pytest

from simulation.kit import retried
from yaoki import Service, breaker
from yaoki.errors import BreakerOpenError, InDoubtError, RefusedError
from yaoki.explore import Booking, FakeService, FakeStore, Scenario, World, audit_reduction, explore
from yaoki.explore.sagas import saga_scenario
from yaoki.saga.define import Saga


def both_or_none(world: World) -> str:
    held = {name for name, state in world.services.items() if state.net.get("order")}
    return "" if len(held) != 1 else f"only {held} is booked"


def impatient(look, **settings) -> Scenario:
    """Gives up half way when a refusal comes late: seen only by a pause first and a refusal then."""
    hotel, flight = FakeService("hotel"), FakeService("flight")

    async def main() -> None:
        began = look()
        await hotel.book("order", key="hotel")
        while True:
            try:
                await flight.book("order", key="flight")
                break
            except RefusedError:
                if look() - began > 60.0:
                    break

    return Scenario(main, invariants=[both_or_none], same_answer=False, faults=["proc.pause", "call.reject"], **settings)


# Looked up when called: what is there then is the universe's.
LOOKS = {"time.time": lambda: time.time(), "time.monotonic": lambda: time.monotonic(),  # noqa: PLW0108
         "loop.time": lambda: asyncio.get_running_loop().time()}


@pytest.mark.parametrize("look", LOOKS)
def test_a_program_that_looks_at_a_clock_has_the_time_in_its_states(look):
    lost, reduced, full = audit_reduction(impatient(LOOKS[look]), faults=2)
    assert ("both_or_none",) in full.signatures
    assert not lost
    assert reduced.clock.startswith("test_reductions.py:")
    assert "time decides here" in reduced.summary()


def test_without_it_the_bug_is_lost_so_the_audit_can_tell():
    lost, reduced, _ = audit_reduction(impatient(LOOKS["time.time"], timed=False), faults=2)
    assert lost == {("both_or_none",)}
    assert reduced.pruned["history"]


def test_a_program_that_never_looks_does_without():
    hotel = FakeService("hotel")

    async def main() -> Booking:
        while True:
            try:
                return await hotel.book("order", key="hotel")
            except (RefusedError, InDoubtError):
                await asyncio.sleep(0.5)

    report = explore(Scenario(main), faults=2)
    assert report.ok
    assert not report.clock
    assert report.pruned


def test_a_look_that_only_comes_after_a_fault_begins_the_exploration_again():
    hotel = FakeService("hotel")

    async def main() -> float:
        try:
            await hotel.book("order", key="hotel")
        except (RefusedError, InDoubtError):
            return time.time()
        return 0.0

    report = explore(Scenario(main, same_answer=False), faults=1)
    full = explore(Scenario(main, same_answer=False), faults=1, reduce=False)
    assert report.clock
    assert (report.outcomes, report.by_depth[1]) == (full.outcomes, full.by_depth[1])


def test_jobs_agree_about_the_time():
    one = explore(impatient(LOOKS["time.time"]), faults=2)
    two = explore(impatient(LOOKS["time.time"]), faults=2, jobs=2)
    assert two.clock == one.clock
    assert set(two.signatures) == set(one.signatures)
    assert not two.stopped


def test_what_is_left_of_a_running_limit_is_part_of_the_state():
    """The first answer of two that share a limit is slow, so that the second one has less time than it needs."""
    hotel, flight = FakeService("hotel", timeout=None), FakeService("flight", timeout=None)

    async def main() -> None:
        async with asyncio.timeout(150.0):
            await hotel.book("order", key="hotel")
            await flight.book("order", key="flight")

    def twice(**settings) -> Scenario:
        return Scenario(main, invariants=[both_or_none], same_answer=False, faults=["proc.pause"], timed=False, **settings)

    lost, _, full = audit_reduction(twice(), faults=2)
    assert ("both_or_none",) in full.signatures
    assert not lost


def test_what_policies_remember_is_part_of_the_state():
    """A breaker that opens at the second failure, and a program that takes an open one for a yes."""
    bank = FakeService("bank")
    guarded = Service("bank-guarded", policy=breaker(failure_rate=0.6, window=3600.0, minimum=3, open_for=60.0))

    async def pay(key: str) -> None:
        async def book() -> None:
            await bank.book(key, key=key)

        for attempt in (1, 2):
            try:
                return await guarded.call(book)
            except BreakerOpenError:
                return None
            except InDoubtError:
                if attempt == 2:
                    raise

    saga = Saga("two-payments", input=str)

    @saga.step(retry=1)
    async def first(who: str) -> None:
        await pay("first")

    @first.undo
    async def give_back(who: str) -> None:
        await bank.cancel("first", key="first")

    @saga.step(undo=None, retry=1)
    async def second(who: str, first: None) -> None:
        await pay("second")

    def both_or_none_paid(world: World) -> str:
        state = world.services.get("bank")
        paid = [name for name, net in state.net.items() if net] if state is not None else []
        return f"only {paid[0]} is paid" if len(paid) == 1 else ""

    def scenario() -> Scenario:
        return saga_scenario(saga, input="ann", invariants=[both_or_none_paid], faults=["call.error"], timed=False)

    lost, reduced, full = audit_reduction(scenario(), faults=2)
    assert ("both_or_none_paid",) in full.signatures
    assert not lost
    assert not reduced.clock


def begun_and_booked(world: World) -> str:
    """Who says that an order is begun has it booked in the end."""
    begun = (notes := world.services.get("notes")) is not None and "order" in notes.rows
    state = world.services.get("hotel")
    return "" if not begun or (state is not None and state.net.get("order")) else "the order is begun, and nothing is booked"


def test_what_a_power_cut_leaves_are_also_the_other_processes():
    """Whoever starts again leaves the rest to the other one, who has given up: neither fault shows it alone."""
    hotel, notes = FakeService("hotel"), FakeStore("notes")

    async def helper(world: World) -> None:
        try:
            await notes.get("my-job")
        except RefusedError:
            return  # it helps no more, and says so to nobody
        while await retried(lambda: notes.get("order")) is None:
            await world.sleep(0.5)
        await world.sleep(5.0)
        await retried(lambda: hotel.book("order", key="order"))

    async def shop() -> None:
        if await retried(lambda: notes.get("order")):
            return  # the helper does it
        await retried(lambda: notes.put("order", "begun"))
        await retried(lambda: hotel.book("order", key="order"))

    async def main(world: World) -> None:
        world.start("helper", helper, world)
        started = world.start("shop", shop)
        while not started.done:
            await world.sleep(1.0)

    scenario = Scenario(main, invariants=[begun_and_booked], same_answer=False, faults=["call.reject", "crash.before_effect"], timed=False)
    lost, _, full = audit_reduction(scenario, faults=2)
    assert ("begun_and_booked",) in full.signatures
    assert not lost


def test_a_request_that_will_be_refused_is_not_one_that_will_arrive():
    """It is under way when the power fails: the program, started again, takes it for done."""
    hotel, flight, notes = FakeService("hotel"), FakeService("flight"), FakeStore("notes")

    async def main() -> None:
        if await retried(lambda: notes.get("order")):
            return
        await retried(lambda: notes.put("order", "begun"))
        booking = asyncio.ensure_future(hotel.book("order", key="order"))
        await asyncio.sleep(0)  # it is sent first
        await retried(lambda: flight.book("order", key="order"))
        try:
            await booking
        except RefusedError:
            await hotel.book("order", key="order")

    scenario = Scenario(main, invariants=[begun_and_booked], same_answer=False, faults=["call.reject", "crash.before_effect"], timed=False)
    lost, _, full = audit_reduction(scenario, faults=2)
    assert any("begun_and_booked" in each for each in full.signatures)
    assert not lost
