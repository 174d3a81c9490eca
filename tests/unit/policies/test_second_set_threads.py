"""Many threads through one policy object, switched as often as the interpreter can: no count is lost, and they run side by side."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from virtual_time import Clock
from yaoki import runtime
from yaoki.errors import RateLimitedError
from yaoki.policies import Budget, adaptive_limit, cache, failover, fallback, hedge, rate_limit, single_flight, throttle
from yaoki.policies import bulkhead as bulkhead_
from yaoki.policies.vegas import Vegas

THREADS, CALLS = 8, 400


@pytest.fixture(autouse=True)
def _switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def hammer(fn, *, clock=None):
    """Call `fn(number)` from all threads; gives the results, with the type of what was raised in place of a value."""
    def work(first):
        found = []
        with runtime.use(clock or runtime.REAL):
            for number in range(first, THREADS * CALLS, THREADS):
                try:
                    found.append(fn(number))
                except Exception as error:
                    found.append(type(error))
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        return [each for found in pool.map(work, range(THREADS)) for each in found]


def test_a_rate_limit_lets_exactly_its_burst_through():
    results = hammer(rate_limit(1, burst=1000)(lambda number: number), clock=Clock())
    assert results.count(RateLimitedError) == THREADS * CALLS - 1000


def test_a_rate_limit_with_keys_does_too():
    results = hammer(rate_limit(1, burst=50, key=lambda number: number % 16)(lambda number: number), clock=Clock())
    assert results.count(RateLimitedError) == THREADS * CALLS - 16 * 50


def test_a_throttle_counts_every_call():
    policy = throttle()
    hammer(policy(lambda number: number), clock=Clock())
    assert (policy.decider.requests, policy.decider.accepts) == (THREADS * CALLS, THREADS * CALLS)


def test_an_adaptive_limit_loses_no_permit():
    policy = adaptive_limit(Vegas(initial=THREADS))
    assert len(hammer(policy(lambda number: number))) == THREADS * CALLS
    assert policy.in_flight == 0


def test_failover_counts_what_is_under_way():
    policy = failover(["a", "b", "c"], idempotent=True, eject_s=0.001)

    @policy
    def ask(number):
        if number % 7 == 0:
            raise ConnectionResetError
        return number

    hammer(ask)
    assert [each.in_flight for each in policy.endpoints.endpoints] == [0, 0, 0]
    assert policy.endpoints.outs == sum(each.out for each in policy.endpoints.endpoints)


def test_a_cache_fetches_each_answer_once():
    fetched = []

    @cache(ttl=60, early=0)
    def ask(key):
        fetched.append(key)
        return -key

    assert sorted(hammer(lambda number: ask(number % 20), clock=Clock())) == sorted(-(number % 20) for number in range(THREADS * CALLS))
    assert sorted(fetched) == list(range(20))


def test_single_flight_gives_everybody_the_right_answer():
    ask = single_flight(key=lambda number: number % 5)(lambda number: number % 5)
    assert sorted(hammer(ask)) == sorted(number % 5 for number in range(THREADS * CALLS))


def test_a_fallback_and_its_practice_leave_the_bulkhead_empty():
    policy = fallback(lambda number: number, bulkhead=bulkhead_(4), share=0.2)

    @policy
    def ask(number):
        if number % 3 == 0:
            raise ConnectionRefusedError
        return number

    results = hammer(ask)
    assert {each for each in results if isinstance(each, type)} <= {ConnectionRefusedError}
    for _ in range(20_000):
        if not policy.bulkhead.places.in_use:
            break
        threading.Event().wait(0.005)
    assert policy.bulkhead.places.in_use == 0


def test_threads_pass_side_by_side():
    together = threading.Barrier(4)
    for policy in (rate_limit(1000), throttle(), adaptive_limit(), failover(["a", "b"]), cache(ttl=60), single_flight(),
                   hedge(600.0, idempotent=True, budget=Budget())):
        guarded = policy(lambda number: together.wait(100))
        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(guarded, range(4))) == [0, 1, 2, 3]  # all four were inside at the same time
