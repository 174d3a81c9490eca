"""Service: its numbers, its registry and its fault point."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from virtual_time import Clock, run
from yaoki import effect, events, runtime, service
from yaoki.errors import BreakerOpenError, ConfigError, RefusedError
from yaoki.policies import backoff, breaker, pipeline, retry, timeout
from yaoki.service import Fault, Point, Service, faults


def fail() -> None:
    raise ConnectionResetError


def test_calls_are_counted_by_outcome_attempts_and_latency() -> None:
    clock = Clock()
    made = Service("hotel", policy=pipeline(retry(2, backoff.NONE, budget=False), breaker(minimum=5)), idempotent=True)
    answers = iter([None, ConnectionResetError(), None, ConnectionResetError(), ConnectionResetError()])

    def work() -> None:
        clock.now += 0.25
        if (error := next(answers)) is not None:
            raise error

    with runtime.use(clock):
        made.call(work)
        made.call(work)
        with pytest.raises(ConnectionResetError):
            made.call(work)
        with pytest.raises(BreakerOpenError):
            made.call(work)
    numbers = made.numbers()
    assert numbers.outcomes == {"ok": 1, "ok_after_retry": 1, "failed_after_retry": 1, "rejected_breaker": 1}
    assert (numbers.calls, numbers.attempts, numbers.in_flight) == (4, 6, 0)
    assert (numbers.p50_s, numbers.p99_s) == (0.25, 0.25)


def test_a_cancelled_call_is_counted_as_that_and_not_in_flight_any_more() -> None:
    async def main() -> None:
        made = Service("hotel")
        task = asyncio.ensure_future(made.call(asyncio.sleep, 9))
        await asyncio.sleep(1)
        assert made.numbers().in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert made.numbers().outcomes["cancelled"] == 1
        assert made.numbers().in_flight == 0

    run(main())


def test_services_are_found_by_name_as_long_as_somebody_uses_them() -> None:
    made = Service("hotel")
    assert service.named("hotel") is made
    assert made in service.services()
    del made
    gc.collect()
    with pytest.raises(ConfigError, match="There is no service 'hotel'"):
        service.named("hotel")


@pytest.mark.parametrize("make", [lambda: Service(""), lambda: Service(3), lambda: Service("x", policy=3), lambda: Service("x", policy=retry)])
def test_a_wrong_service_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        make()


def test_a_service_decorates_and_says_for_whom() -> None:
    made = Service("hotel", policy=retry(2, backoff.NONE, budget=False))
    calls = []

    @made
    def careful() -> None:
        calls.append("careful")
        fail()

    @made(idempotent=True)
    async def harmless() -> None:
        calls.append("harmless")
        fail()

    with pytest.raises(ConnectionResetError):
        careful()
    with pytest.raises(ConnectionResetError):
        asyncio.run(harmless())
    assert calls == ["careful", "harmless", "harmless"]


def test_what_check_takes_for_a_failure_is_one_for_the_policy() -> None:
    answers = iter([503, 200])

    def check(status: int) -> None:
        if status == 503:
            raise ConnectionRefusedError

    made = Service("hotel", policy=retry(2, backoff.NONE, budget=False))
    assert made.call(lambda: next(answers), check=check) == 200


# ── the fault point ──────────────────────────────────────────────────────────────────────────────────────────────────


class Hotel:
    """Counts what really happened. Sync or async, called through a service with one retry."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self.bookings = 0
        self.service = Service("hotel", policy=pipeline(retry(2, backoff.NONE, budget=False), timeout(5)), idempotent=True)

    def book(self) -> int:
        self.bookings += 1
        return self.bookings

    def call(self, *plan: Fault | None) -> Any:
        script = list(plan)
        points: list[Point] = []

        def decide(point: Point) -> Fault | None:
            points.append(point)
            return script.pop(0) if script else None

        async def book() -> int:
            return self.book()

        async def main() -> Any:
            with faults.use(decide):
                return await self.service.call(book)

        if self.is_async:
            return run(main()), points
        with faults.use(decide), runtime.use(Clock()):
            return self.service.call(self.book), points


@pytest.fixture(params=["sync", "async"])
def hotel(request: pytest.FixtureRequest) -> Hotel:
    return Hotel(is_async=request.param == "async")


def test_a_refused_attempt_has_no_effect(hotel: Hotel) -> None:
    result, points = hotel.call(Fault(name="refused", refuse=ConnectionRefusedError))
    assert (result, hotel.bookings) == (1, 1)
    assert [(point.service, point.attempt) for point in points] == [("hotel", 1), ("hotel", 2)]
    assert points[0].operation.endswith("book")


def test_a_lost_reply_has_its_effect_and_the_retry_repeats_it(hotel: Hotel) -> None:
    result, _ = hotel.call(Fault(name="lost", lose=ConnectionResetError))
    assert (result, hotel.bookings) == (2, 2)


def test_a_duplicate_is_delivered_as_often_as_told(hotel: Hotel) -> None:
    hotel.call(Fault(name="twice", deliveries=3))
    assert hotel.bookings == 3


def test_a_reply_may_be_replaced_and_delayed(hotel: Hotel) -> None:
    result, _ = hotel.call(Fault(name="wrong", delay_before_s=0.5, delay_after_s=0.5, replace=lambda result: -result))
    assert result == -1


def test_a_delay_beyond_the_timeout_is_an_attempt_in_doubt_with_its_effect() -> None:
    hotel = Hotel(is_async=True)
    result, _ = hotel.call(Fault(name="slow", delay_after_s=60))
    assert (result, hotel.bookings) == (2, 2)


def test_faults_are_scoped_to_their_task_or_installed_for_all_and_end() -> None:
    made = Service("hotel")

    async def neighbour() -> str:
        await asyncio.sleep(1)
        return await made.call(ok)

    async def ok() -> str:
        return "ok"

    async def main() -> None:
        other = asyncio.ensure_future(neighbour())
        with faults.use(lambda _: Fault(name="x", refuse=ConnectionRefusedError)):
            with pytest.raises(ConnectionRefusedError):
                await made.call(ok)
            await asyncio.sleep(2)
            assert await other == "ok"
        assert await made.call(ok) == "ok"
        remove = faults.install(lambda point: Fault(name="x", refuse=lambda: RefusedByTestError("x")) if point.service == "hotel" else None)
        with pytest.raises(RefusedByTestError):
            await made.call(ok)
        assert await Service("other").call(ok) == "ok"
        remove()
        remove()
        assert await made.call(ok) == "ok"

    run(main())
    assert faults.active == 0


class RefusedByTestError(RefusedError):
    code = "YK-1199"


def test_what_a_call_calls_in_turn_has_a_name_of_its_own() -> None:
    seen: list[tuple[str, str]] = []
    front, back = Service("front"), Service("back")

    def pay() -> None:
        """Called by the front, at another service."""

    with faults.use(lambda point: seen.append((point.service, point.operation.rpartition(".")[2]))):
        front.call(lambda: back.call(pay), operation="POST /orders")
    assert seen == [("front", "POST /orders"), ("back", "pay")]


def test_a_fault_is_told_with_where_it_was_and_whose_step() -> None:
    made = Service("hotel")
    heard: list[events.FaultInjected] = []
    seen: list[Point] = []
    under_way = effect.Effect("trip-1", "book-trip", "hotel")
    token = effect.current.set(under_way)
    try:
        with faults.use(lambda point: seen.append(point) or Fault(name="slow")), events.listen(heard.append, kinds=(events.FaultInjected,)):
            made.call(lambda: None, operation="POST /bookings")
    finally:
        effect.current.reset(token)
    assert [(each.service, each.fault, each.where) for each in heard] == [("hotel", "slow", "POST /bookings")]
    assert seen == [Point("hotel", "POST /bookings", under_way, 1)]
