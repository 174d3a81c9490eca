"""Plain async code with the real policies: a service at the top of a module, its breaker, retries, bulkhead and timeout."""

from __future__ import annotations

from yaoki.errors import BreakerOpenError, InDoubtError, RefusedError
from yaoki.explore import FakeService, Scenario, explore
from yaoki.policies import breaker, bulkhead, deadline, pipeline, retry, timeout
from yaoki.service import Service

flights = FakeService("flights", timeout=None)
service = Service("flights", idempotent=True, policy=pipeline(
    deadline(30.0), retry(4, budget=None), breaker(failure_rate=0.5, window=30.0, minimum=3, open_for=10.0), bulkhead(2, queue=2), timeout(1.0)))


async def book(trip: str) -> str:
    return (await service.acall(flights.book, trip, key=trip)).id


async def three_trips() -> list[str]:
    said = []
    for trip in ("a", "b", "c"):
        try:
            said.append(await book(trip))
        except (RefusedError, InDoubtError, BreakerOpenError) as error:
            said.append(type(error).__name__)
    return said


def test_a_module_level_service_starts_afresh_in_every_execution():
    """Without it the breaker that one execution opened would refuse the calls of the next: not deterministic, and untrue."""
    report = explore(Scenario(three_trips, same_answer=False), faults=2, kinds=["call.reject", "call.timeout", "dep"], most=400)
    assert report.deterministic
    assert not report.unfired
    assert report.ok, report.text(matrix=False)
    assert service.numbers().calls == 0, "what the exploration did to it is undone"


def test_after_the_outage_everything_is_well_again():
    """No permit is leaked and the breaker closes again, whatever was cut off in the middle."""

    async def steady() -> None:
        await book("d")
        assert service.numbers().in_flight == 0

    report = explore(Scenario(three_trips, same_answer=False, steady=steady), faults=1,
                     kinds=["call.reject", "call.timeout", "dep", "proc.cancel", "call.lost_ack"])
    assert report.ok, report.text(matrix=False)


def test_a_service_around_a_plain_function_has_points_of_its_own():
    charged: list[str] = []

    @service(idempotent=True)
    async def charge(order: str) -> str:
        charged.append(order)
        return "paid"

    async def main() -> str:
        charged.clear()
        return await charge("order-7")

    report = explore(Scenario(main, invariants=[lambda world: "charged twice" if len(charged) > 1 else ""]), faults=1)
    assert report.points == 1
    assert report.executions > 10
    assert report.found, "a plain function is not idempotent: a lost reply makes the retry charge again"
    assert report.deterministic
    assert not report.unfired


def test_the_right_way_to_retry_is_found_right_and_the_wrong_one_wrong():
    def program(*, key: bool) -> Scenario:
        async def main() -> str:
            return (await service.acall(flights.book, "trip", key="trip" if key else None)).id

        return Scenario(main, same_answer=False)

    assert explore(program(key=True), faults=1).ok
    assert ("no_double_effect",) in explore(program(key=False), faults=1).signatures
