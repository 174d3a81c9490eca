"""The brown-out table, a twentieth of its size: which clients let a service come back, and which keep it down.

The whole table, at its full size: `benchmarks/brownout.py`.
"""

from __future__ import annotations

import pytest

from simulation.brownout import PLANS, World

LOAD = 0.05
NEVER = 1000.0


def back(name, clients, *, horizon_s=110.0, seed=1):
    """Seconds from the end of the brown-out until the callers are served again."""
    found = World(PLANS[name], max(1, int(clients * LOAD)), load=LOAD, horizon_s=horizon_s, seed=seed).run()
    return NEVER if found is None else found


def test_without_retries_the_backlog_is_what_has_to_be_worked_off():
    # 15 s of 500 too many, less the second that callers wait, at 200 to spare: 32.5 s.
    assert back("no retry", 1000) == pytest.approx(33, abs=9)


@pytest.mark.parametrize("clients", [20, 1000, 100_000])
def test_plain_retries_keep_the_service_down_for_ever(clients):
    assert back("3 retries, full jitter", clients) == NEVER


@pytest.mark.parametrize("clients", [20, 1000])
def test_our_budget_costs_little_more_than_no_retry_at_all(clients):
    assert back("10 % budget, starts nearly empty (ours)", clients) <= 60


@pytest.mark.parametrize("clients", [20, 1000, 10_000, 100_000])
def test_with_tokens_that_fade_a_fleet_of_any_size_recovers_also_after_a_day_of_health(clients):
    """Without fading that fleet is the one whose buckets are full, and never recovers."""
    assert back("ours with fade=30, after a day without a failure", clients) <= 60


def test_many_sparse_clients_need_empty_buckets():
    assert back("10 % budget, starts empty", 100_000) <= 45
    assert back("10 % budget, bucket starts full", 100_000) == NEVER


@pytest.mark.parametrize("name", ["a floor of 10 retries/s per client", "botocore's quota", "gRPC A6"])
def test_peers_rules_do_not_hold_for_many_sparse_clients(name):
    assert back(name, 100_000) == NEVER


def test_a_breaker_of_its_own_helps_a_client_with_many_calls_and_not_one_with_few():
    assert back("breaker per client", 20) <= 60
    assert back("breaker per client", 100_000) == NEVER


def test_a_bounded_queue_or_shedding_at_the_server_helps_whatever_the_clients_do():
    assert back("3 retries and a server queue bounded at 0.5 s", 100_000) <= 4
    world = World(PLANS["3 retries and our load shedding"], 5000, load=LOAD, horizon_s=60.0)
    world.run()
    after = world.goodput[32:50]
    assert sum(after) / len(after) > 0.9


def test_a_run_can_be_repeated_exactly():
    plan = PLANS["10 % budget, starts nearly empty (ours)"]
    first, second = (World(plan, 50, load=LOAD, horizon_s=50.0, seed=7) for _ in range(2))
    first.run()
    second.run()
    assert (first.sent, first.goodput) == (second.sent, second.goodput)
