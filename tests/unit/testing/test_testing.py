"""yaoki.testing: virtual time that passes in order, and plans that tell what a policy would do."""

from __future__ import annotations

import asyncio

import pytest

from yaoki import runtime
from yaoki.errors import BreakerOpenError
from yaoki.policies import backoff, breaker, deadline, pipeline, remaining, retry, timeout
from yaoki.service import Service
from yaoki.testing import Clock, Fault, Took, faults, plan, run


def test_hours_take_no_time_and_things_happen_in_order() -> None:
    async def main() -> list[str]:
        order: list[str] = []

        async def say(after_s: float, what: str) -> None:
            await runtime.sleep(after_s)
            order.append(what)

        began = runtime.monotonic()
        await asyncio.gather(say(7200, "late"), say(1, "early"), say(3600, "middle"))
        assert runtime.monotonic() - began == pytest.approx(7200)
        assert asyncio.get_running_loop().time() == runtime.monotonic()
        return order

    assert run(main()) == ["early", "middle", "late"]


def test_a_thread_at_work_holds_virtual_time() -> None:
    async def main() -> float:
        began = runtime.monotonic()
        assert await runtime.run_blocking(lambda: 7) == 7
        assert await asyncio.to_thread(lambda: 8) == 8
        return runtime.monotonic() - began

    assert run(main()) == 0


def test_a_task_left_behind_fails_the_test_by_name() -> None:
    async def main() -> None:
        asyncio.get_running_loop().create_task(asyncio.sleep(9), name="forgotten")

    with pytest.raises(AssertionError, match="forgotten"):
        run(main())


def test_a_clock_is_scoped_and_seeded() -> None:
    with runtime.use(Clock(seed=3)) as clock:
        drawn = runtime.rng().random()
        runtime.sleep_blocking(2.5)
        assert clock.slept == [2.5]
    assert runtime.current() is runtime.REAL
    assert Clock(seed=3).rng.random() == drawn


def test_a_plan_tells_the_story_of_a_call_without_sleeping() -> None:
    policy = pipeline(deadline(5), retry(3, backoff.linear(1, cap=2, jitter="none")), breaker(), timeout(2))
    seen = plan(policy, [Took(1.5, ConnectionRefusedError()), ConnectionRefusedError(), "ok"])
    assert (seen.attempts, seen.waits, seen.result, seen.error) == (3, [1, 2], "ok", None)
    assert str(seen) == """\
  0.000  attempt 1: ConnectionRefusedError after 1.5 s
  1.500  wait 1 s
  2.500  attempt 2: ConnectionRefusedError
  2.500  wait 2 s
  4.500  attempt 3: 'ok'
  4.500  the call returned 'ok'"""


def test_a_plan_sees_what_the_callee_is_told_and_how_a_call_ends() -> None:
    assert plan(retry(2), [ConnectionResetError()]).attempts == 1
    assert plan(retry(2), [ConnectionResetError()], idempotent=True).attempts == 2
    tripped = breaker()
    tripped.trip("test")
    seen = plan(Service("hotel", policy=tripped), [])
    assert (seen.attempts, type(seen.error)) == (0, BreakerOpenError)
    with runtime.use(Clock()), deadline(3):
        assert remaining() == pytest.approx(3)


def test_faults_are_scripted_for_one_test_only() -> None:
    service = Service("hotel")
    with faults.use(lambda _: Fault(name="refused", refuse=ConnectionRefusedError)), pytest.raises(ConnectionRefusedError):
        service.call(lambda: 1)
    assert service.call(lambda: 1) == 1
