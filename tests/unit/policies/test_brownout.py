"""What retries do to a service that was slow for a quarter of a minute: our own deciders on virtual time.

200 calls a second on a server that can do 250; for 15 s it can do only 75. A caller gives up after 1 s, the server does
the work all the same (it cannot know), and the queue in front of it is first come, first served. Measured: seconds from
the end of the brown-out until 85 calls in a hundred are answered in time again. The number of clients goes from ten, busy ones,
to 25 000 that make a call in two minutes each; a quarter of the published scenario's load, for the sake of the test's time.

Without retries the queue has to drain: 1 900 waiting calls at a surplus of 50 a second. Everything that adds calls makes
that longer, or for ever. Source of the scenario: M. Brooker, "Metastable failures and retries".
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

import pytest

from yaoki.errors import AttemptTimeoutError
from yaoki.policies import Budget, backoff
from yaoki.policies.circuit import Circuit, Refusal
from yaoki.policies.classify import classify
from yaoki.policies.retry import Attempts, RetryDecider
from yaoki.policies.scope import NOTHING
from yaoki.policies.window import TimeWindow

ASKED_PER_S, CAPACITY_PER_S, BROWN_PER_S = 200, 250, 75
WARM_S, BROWN_S, PATIENCE_S = 10.0, 15.0, 1.0
NEVER = float("inf")


class Server:
    """First come, first served; `longest_s`: turns away what would wait longer."""

    def __init__(self, longest_s: float = NEVER) -> None:
        self.free_at = 0.0
        self.longest_s = longest_s
        self.scale = 1.0

    def send(self, now: float) -> float | None:
        """When the answer comes, or None: turned away at once."""
        begins = max(now, self.free_at)
        if begins - now > self.longest_s:
            return None
        rate = BROWN_PER_S if WARM_S <= begins < WARM_S + BROWN_S else CAPACITY_PER_S
        self.free_at = begins + 1 / (rate * self.scale)
        return self.free_at


class Client:
    """One process: its retry decider, its bucket, its breaker."""

    def __init__(self, attempts: int, budget: Budget | None, circuit: Circuit | None = None) -> None:
        self.decider = RetryDecider(attempts, backoff.exponential(0.05, cap=2.0), on=None, idempotent=True, nested=False)
        self.budget = budget
        self.circuit = circuit


def recovery_s(clients: int, make: Callable[[], Client], *, horizon_s: float = 120.0, server: Server | None = None,
               scale: float = 1.0) -> tuple[float, float]:
    """Seconds until calls are answered again, and calls sent for each call asked for during and after the brown-out."""
    rng, server, asked_per_s = Random(5), server or Server(), ASKED_PER_S * scale
    server.scale = scale
    fleet: dict[int, Client] = {}
    timeout = AttemptTimeoutError("x")
    failure = classify(timeout)
    # (when, order, what happens): a new call, an answer, or giving up on an attempt
    events: list[tuple[float, int, Callable[[float], None]]] = []
    order, sent, asked = 0, 0, 0
    answered: dict[int, int] = {}
    end_s = WARM_S + BROWN_S + horizon_s

    def at(when: float, then: Callable[[float], None]) -> None:
        nonlocal order
        order += 1
        heappush(events, (when, order, then))

    def attempt(client: Client, past: Attempts, asked_at: float, now: float) -> None:
        nonlocal sent
        permit = 0
        if client.circuit is not None:
            try:
                permit = client.circuit.admit(now)  # type: ignore[assignment]
            except Refusal:
                return
        sent += now >= WARM_S
        comes = server.send(now)
        past.made += 1

        def succeeded(later: float) -> None:
            answered[int(asked_at)] = answered.get(int(asked_at), 0) + 1
            if client.budget is not None:
                client.budget.deposit()
            if client.circuit is not None:
                client.circuit.succeeded(permit, later, 0.0, rng)

        def failed(later: float) -> None:
            if client.circuit is not None:
                client.circuit.failed(permit, later, rng)
            if not client.decider.after(past, timeout, failure, now=later, scope=NOTHING, budget=client.budget, rng=rng):
                at(later + past.delay_s, lambda then: attempt(client, past, asked_at, then))

        if comes is None:
            at(now, failed)
        elif comes - now <= PATIENCE_S:
            at(comes, succeeded)
        else:
            at(now + PATIENCE_S, failed)

    def new_call(now: float) -> None:
        nonlocal asked
        asked += now >= WARM_S
        client = fleet.setdefault(int(rng.random() * clients), make())
        attempt(client, Attempts(now), now, now)
        at(now + rng.expovariate(asked_per_s), new_call)

    at(0.0, new_call)
    while events[0][0] < end_s:
        when, _, then = heappop(events)
        then(when)
    over = int(WARM_S + BROWN_S)
    well = [second for second in range(over, int(end_s) - 5) if all(answered.get(each, 0) >= 0.85 * asked_per_s for each in range(second, second + 3))]
    return (float(well[0] - over) if well else NEVER), sent / asked


def bucket(**settings: float) -> Callable[[], Client]:
    return lambda: Client(4, Budget(0.1, **settings))


@pytest.mark.long
def test_the_table_of_the_documentation() -> None:
    """At the published scenario's own load: docs/reference/policies/retry.md."""
    def row(make: Callable[[], Client], *clients: int) -> list[float]:
        return [recovery_s(each, make, horizon_s=90, scale=4)[0] for each in clients]

    def about(*seconds: float) -> object:
        return pytest.approx(seconds, abs=2)

    assert row(lambda: Client(1, None), 10) == about(34)
    assert row(lambda: Client(4, None), 10) == about(NEVER)
    assert row(bucket(start=0.0), 10, 1000, 10_000, 100_000) == about(33, 35, 33, 33)
    assert row(bucket(), 10, 1000, 10_000, 100_000) == about(33, 37, 33, 33)
    assert row(bucket(start=1.0), 10, 1000, 10_000, 100_000) == about(33, 39, 83, NEVER)
    assert row(bucket(start=10), 10_000) == about(NEVER)


@pytest.fixture(scope="module")
def without_retries() -> float:
    return recovery_s(10, lambda: Client(1, None))[0]


def test_without_retries_the_queue_drains_in_half_a_minute(without_retries: float) -> None:
    assert 28 <= without_retries <= 45


def test_three_retries_without_a_budget_keep_it_down_for_ever() -> None:
    seconds, ratio = recovery_s(10, lambda: Client(4, None), horizon_s=45)
    assert seconds == NEVER
    assert ratio > 3.5


@pytest.mark.parametrize("clients", [10, 250, 2_500, 25_000])
def test_with_the_default_budget_it_comes_back_with_any_number_of_clients(clients: int, without_retries: float) -> None:
    seconds, ratio = recovery_s(clients, bucket(), horizon_s=80)
    assert seconds <= 2 * without_retries, f"{ratio:.3f} calls sent for each"
    assert ratio <= 1.1


def test_one_retry_for_free_is_already_too_much_for_very_many_sparse_clients() -> None:
    assert recovery_s(25_000, bucket(start=1.0), horizon_s=60)[0] == NEVER


def test_a_bucket_that_starts_full_keeps_it_down_when_clients_are_many() -> None:
    assert recovery_s(2_500, bucket(start=10), horizon_s=60)[0] == NEVER


def test_a_server_that_bounds_its_own_queue_is_back_at_once_whatever_the_clients_do() -> None:
    assert recovery_s(10, lambda: Client(4, None), horizon_s=30, server=Server(longest_s=0.5))[0] <= 2


def test_a_breaker_in_each_of_few_clients_helps_more_than_any_budget(without_retries: float) -> None:
    def make() -> Client:
        return Client(4, None, Circuit(TimeWindow(10.0), minimum=20, failure_rate=0.5, slow_s=None, slow_rate=1.0, open_for_s=5.0,
                                       open_cap_s=20.0, probes=1, probe_lease_s=2.0))

    assert recovery_s(10, make, horizon_s=80)[0] < without_retries
