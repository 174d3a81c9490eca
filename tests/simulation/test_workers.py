"""Two workers on one journal, with leases: power cuts and pauses longer than the lease, with and without the fence."""

from __future__ import annotations

import pytest

from simulation.fleet import ends
from yaoki.explore import Booking, FakeService, Scenario, World, explore
from yaoki.explore.shared import open_worker
from yaoki.saga.define import Saga

# Both ends of a worker's life: gone at once, and back from the dead.
DEATHS = ["crash", "proc.pause", "proc.pause:sent"]
FAULTS = [*DEATHS, "call.lost_ack", "call.timeout:none", "dep.outage:call.reject"]


def two_workers(*, fencing: bool = True, declines: bool = False) -> Scenario:
    """One of the two starts a run; whoever lives brings it to its end."""
    hotel, payment = FakeService("hotel"), FakeService("payment", declines=declines)
    trip = Saga("trip", input=str)

    @trip.step
    async def room(who: str) -> Booking:
        return await hotel.book()

    @room.undo
    async def cancel(who: str, room: Booking | None) -> None:
        await hotel.cancel()

    @trip.step
    async def pay(who: str, room: Booking) -> Booking:
        return await payment.book()

    @pay.undo
    async def refund(who: str, pay: Booking | None) -> None:
        await payment.cancel()

    async def work(world: World, name: str, starts: bool) -> str:
        async with open_worker(world, name, trip, fencing=fencing) as app:
            if starts:
                await app.start(trip, "ann", id="run-1")
            (state,) = await ends(app, trip, world, "run-1")
            return state

    async def main(world: World) -> str:
        one = world.start("one", work, world, "one", True)
        two = world.start("two", work, world, "two", False)
        while not (one.done and two.done):
            await world.sleep(5.0)
        for process in (one, two):
            if process.error is not None:
                raise process.error
        return f"{one.result} {two.result}"

    return Scenario(main, name="two_workers", faults=FAULTS, timed=True, same_answer=False)


def test_a_run_is_taken_over_and_ends_once_whatever_happens_to_one_worker():
    report = explore(two_workers(), faults=1)
    assert report.ok, report.text(matrix=False)
    report = explore(two_workers(declines=True), faults=1)
    assert report.ok, report.text(matrix=False)


def test_power_is_cut_and_the_worker_stands_still_at_every_await_of_both():
    """Before what it awaits is sent, while it is answered, and once it is done: of every call, commit and claim."""
    seen: dict[str, set[str]] = {}
    scenario = two_workers(declines=True)
    execute = scenario.execute

    def noted(plan=(), *args, **settings):
        run = execute(plan, *args, **settings)
        if len(plan) == 1 and run.fired >= 0:
            struck = run.points[run.fired]
            seen.setdefault(struck.site, set()).add(plan[0].fault)
            both.update(point.process for point in run.points)
        return run

    both: set[str] = set()
    scenario.execute = noted  # type: ignore[method-assign]
    report = explore(scenario, faults=1, kinds=DEATHS, reduce=False)
    assert report.ok, report.text(matrix=False)
    assert {"one", "two"} <= both
    calls = {"room>hotel.book", "pay>payment.book", "room!undo>hotel.cancel"}
    commits = {"journal.start", "journal.claim", "journal.done:room", "journal.failed:pay", "journal.undone:room"}
    assert calls | commits <= set(seen)
    for site, faults in seen.items():
        after = "crash.after_effect" if site in calls else "crash.after_checkpoint"
        assert {"crash.before_effect", after, "proc.pause", "proc.pause:sent"} <= faults, site


def test_every_pair_of_deaths():
    report = explore(two_workers(), faults=2, kinds=DEATHS)
    assert report.ok, report.text(matrix=False)
    assert report.by_depth[2] > 200


@pytest.mark.long
@pytest.mark.parametrize("declines", [False, True])
def test_every_pair_of_faults(declines):
    report = explore(two_workers(declines=declines), faults=2)
    assert report.ok, report.text(matrix=False)


def test_without_the_fence_a_zombie_breaks_the_run():
    report = explore(two_workers(fencing=False), faults=1)
    assert report.found, "the fence is not needed?"
    # Nothing but a worker that comes back from the dead needs it.
    assert report.stories
    assert all("proc.pause" in story.token for story in report.stories), report.text(matrix=False)
