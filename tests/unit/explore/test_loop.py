"""The loop on virtual time: order, clock, what hangs, power cuts."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

import pytest

from yaoki.explore import FakeService, Scenario, World, explore
from yaoki.explore.loop import DeadlockError, LivelockError, VirtualLoop
from yaoki.explore.process import owner


def run(main, **settings):
    loop = VirtualLoop(owner, **settings)
    task = loop.create_task(main())
    task.add_done_callback(lambda _: setattr(loop, "finished", True))
    try:
        loop.run()
        return task.result()
    finally:
        loop.bury()


def test_a_day_of_sleep_takes_no_time_and_moves_the_clock():
    async def main():
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - began

    assert run(main) == pytest.approx(3600)


def test_call_soon_stays_first_in_first_out_whatever_the_order():
    async def main():
        seen = []
        loop = asyncio.get_running_loop()
        for number in range(20):
            loop.call_soon(seen.append, number)
        await asyncio.sleep(0)
        return seen

    assert run(main, order=Random(3)) == list(range(20))


def test_a_seeded_order_reorders_only_what_falls_due_together():
    async def main():
        seen = []

        async def one(number):
            await asyncio.sleep(1.0 if number < 10 else 2.0)
            seen.append(number)

        await asyncio.gather(*(one(number) for number in range(20)))
        return seen

    orders = {tuple(run(main, order=Random(seed))) for seed in range(1, 30)}
    assert len(orders) > 20
    assert all(set(order[:10]) == set(range(10)) for order in orders)
    assert run(main, order=Random(5)) == run(main, order=Random(5))


def test_timeouts_task_groups_and_queues_work():
    async def main():
        queue: asyncio.Queue[int] = asyncio.Queue()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await queue.get()
        async with asyncio.TaskGroup() as group:
            group.create_task(queue.put(7))
            got = group.create_task(queue.get())
        return got.result(), await asyncio.wait_for(asyncio.to_thread(lambda: 3), 1)

    assert run(main) == (7, 3)


def test_a_deadlock_names_who_waits_for_what():
    async def main():
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match=r"test_loop.py:\d+ in main waits for a Future that nobody"):
        run(main)


def test_a_loop_without_a_wait_is_a_livelock():
    async def main():
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(LivelockError, match=r"without the clock moving: .*in main"):
        run(main)


def test_waiting_for_ever_is_a_livelock():
    async def main():
        while True:  # noqa: ASYNC110
            await asyncio.sleep(60)

    with pytest.raises(LivelockError, match="still going after"):
        run(main, limit_s=3600)


def test_a_power_cut_runs_no_cleanup_and_the_process_starts_again_from_the_top():
    log = []
    shop = FakeService("shop")

    async def main(world: World):
        log.append("start")
        try:
            await shop.book("a", key="a")
            await shop.book("b", key="b")
        finally:
            log.append("cleanup" if world.process and world.process.life.alive else "cleanup of the dead")

    scenario = Scenario(main)
    scenario.execute()
    assert log == ["start", "cleanup"]
    log.clear()
    from yaoki.explore.plan import Planned

    scenario.execute((Planned("shop.book", 1, "crash.before_effect"),))
    # The dead life's clean-up runs only when the universe is over, and can reach nothing.
    assert log == ["start", "start", "cleanup", "cleanup of the dead"]


def test_a_dead_process_reaches_nothing_more():
    shop = FakeService("shop")

    def main():
        try:
            shop.book_blocking("a", key="a")
        finally:
            shop.book_blocking("from the grave", key="b")

    from yaoki.explore.plan import Planned

    run = Scenario(main).execute((Planned("shop.book", 0, "crash.after_effect"),))
    assert [point.site for point in run.points] == ["shop.book"] * 3  # once dead, then both after the restart
    assert run.effects == {("shop", "a"): 1, ("shop", "from the grave"): 1}


def test_a_leaked_task_is_named():
    async def main():
        asyncio.get_running_loop().create_task(asyncio.sleep(99), name="forgotten")

    report = explore(Scenario(main), faults=0)
    assert report.stories[0].violations[0][0] == "no_leak"
    assert "forgotten" in report.text()


def test_exploring_inside_a_running_loop_works():
    async def outer():
        return explore(Scenario(lambda: None, name="nothing"), faults=1).ok

    assert asyncio.run(outer())
