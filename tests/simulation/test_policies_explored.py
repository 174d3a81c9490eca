"""Plain async code with the real policies, and each row of their conformance table as a scenario (`policy_rows`)."""

from __future__ import annotations

import pytest

from simulation import policy_rows
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


# ── the conformance table ──

# The storms are sixty outages each; the first few begin at the first calls and last longest.
MOST = {name: 12 for name in policy_rows.ROWS if "storm" in name}


@pytest.mark.parametrize("row", policy_rows.ROWS)
def test_the_row_holds_whatever_fails(row):
    report = explore(policy_rows.ROWS[row](), faults=1, most=MOST.get(row))
    assert report.ok, report.text(matrix=False)
    assert report.fired


@pytest.mark.long
@pytest.mark.parametrize("row", [row for row in policy_rows.ROWS if row not in MOST])
def test_the_row_holds_under_pairs(row):
    report = explore(policy_rows.ROWS[row](), faults=2, budget=60.0)
    assert report.ok, report.text(matrix=False)


def no_budget(monkeypatch):
    monkeypatch.setattr(policy_rows, "budget", lambda *_args, **_settings: None)


def no_deadline(monkeypatch):
    real = policy_rows.deadline
    monkeypatch.setattr(policy_rows, "deadline", lambda _seconds: real(600.0))


def hurry_speaks_against_the_service(monkeypatch):
    """The caller's own time is put inside the breaker, as if it were the service's."""
    real = policy_rows.pipeline
    monkeypatch.setattr(policy_rows, "deadline", policy_rows.timeout)
    monkeypatch.setattr(policy_rows, "pipeline", lambda *policies: real(*reversed(policies)))


def every_caller_probes(monkeypatch):
    real = policy_rows.breaker
    monkeypatch.setattr(policy_rows, "breaker", lambda **settings: real(**{**settings, "probes": 50}))


def never_enough_calls(monkeypatch):
    real = policy_rows.breaker
    monkeypatch.setattr(policy_rows, "breaker", lambda **settings: real(**{**settings, "minimum": 1000}))


def nobody_waits_for_the_same_answer(monkeypatch):
    monkeypatch.setattr(policy_rows, "cache", lambda **_settings: lambda fn: fn)


def an_attempt_forgets_its_caller(monkeypatch):
    def forgetful(fn):
        async def call(*args):
            policy_rows.WHO.set("nobody")
            return await fn(*args)

        return call

    monkeypatch.setitem(policy_rows.ALONE, "retry", lambda: forgetful)


BROKEN = [
    (no_budget, "no retry storm, 1 client"), (no_deadline, "a cap of 0.2 s bounds the call"),
    (hurry_speaks_against_the_service, "an impatient caller does not open it for the others"),
    (every_caller_probes, "half-open: only the probe runs, and a lost one's place comes back"),
    (never_enough_calls, "90 % failures with a success in every tenth open it"),
    (nobody_waits_for_the_same_answer, "a waiter's leaving does not end the flight"),
    (an_attempt_forgets_its_caller, "context variables survive: retry"),
]


@pytest.mark.parametrize(("breaks", "row"), BROKEN)
def test_the_row_can_fail(monkeypatch, breaks, row):
    breaks(monkeypatch)
    assert explore(policy_rows.ROWS[row](), faults=1, most=12, most_broken=1).found, f"{row} holds although {breaks.__name__}"
