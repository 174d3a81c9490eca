"""Vegas and Gradient2 against a simulated server: they find its capacity, follow it, and do not drift."""

from __future__ import annotations

from heapq import heappop, heappush
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki.errors import BulkheadFullError, ConfigError
from yaoki.policies.adaptation import AdaptiveDecider, LoopLag, Summary
from yaoki.policies.gradient import Gradient2
from yaoki.policies.vegas import Vegas


def drive(decider, *, workers, service_s, offered_per_s, seconds, rng, changes=None):
    """A first-in-first-out server of some workers under Poisson load, behind the limit. Returns limits by the second."""
    now, limits, next_report = 0.0, [], 1.0
    free_at = [0.0] * workers
    ends: list[tuple[float, int, object]] = []
    count = 0
    while now < seconds:
        now += rng.expovariate(offered_per_s)
        while ends and ends[0][0] <= now:
            at, _, permit = heappop(ends)
            decider.succeeded(permit, at, rng)
        while next_report <= now:
            limits.append(decider.algorithm.limit)
            next_report += 1.0
        if changes and now >= changes[0]:
            service_s, changes = changes[1], None
        try:
            permit = decider.admit(now)
        except BulkheadFullError:
            continue
        start = max(now, min(free_at))
        free_at[free_at.index(min(free_at))] = start + service_s * rng.uniform(0.8, 1.2)
        count += 1
        heappush(ends, (start + service_s, count, permit))
    return limits


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("algorithm", [Vegas, Gradient2])
def test_under_overload_the_limit_settles_near_what_the_server_bears(algorithm):
    decider = AdaptiveDecider(algorithm(), window_s=0.1)
    limits = drive(decider, workers=10, service_s=0.05, offered_per_s=600, seconds=120, rng=Random(1))
    assert 8 <= mean(limits[60:]) <= 40  # 10 workers; the queue allowed on top is the price of finding out


def test_without_its_guard_gradient2_drifts_to_the_maximum():
    free = AdaptiveDecider(Gradient2(drift=float("inf")), window_s=0.1)
    limits = drive(free, workers=10, service_s=0.05, offered_per_s=600, seconds=120, rng=Random(1))
    assert mean(limits[110:]) > 100  # why the guard exists: ten workers, and ten times as many calls let through


@pytest.mark.parametrize("algorithm", [Vegas, Gradient2])
def test_a_server_that_becomes_slower_for_good_is_not_taken_for_a_queue_for_ever(algorithm):
    decider = AdaptiveDecider(algorithm(), window_s=0.1)
    limits = drive(decider, workers=40, service_s=0.02, offered_per_s=300, seconds=120, rng=Random(2), changes=(40.0, 0.08))
    # 300/s of 80 ms each need 24 under way: the limit must come to allow them.
    assert mean(limits[100:]) >= 20


@pytest.mark.parametrize("algorithm", [Vegas, Gradient2])
def test_a_limit_that_is_not_used_does_not_grow(algorithm):
    decider = AdaptiveDecider(algorithm(), window_s=0.1)
    limits = drive(decider, workers=50, service_s=0.01, offered_per_s=100, seconds=60, rng=Random(3))
    assert max(limits) <= 22


@given(st.lists(st.tuples(st.floats(1e-4, 10), st.floats(0, 1), st.integers(0, 2000), st.booleans()), max_size=60),
       st.sampled_from([Vegas, Gradient2]))
def test_the_limit_stays_between_its_bounds_whatever_is_measured(windows, algorithm):
    limit, rng = algorithm(initial=5, minimum=2, maximum=50, reprobe_every=5), Random(0)
    for rtt_s, share, in_flight, dropped in windows:
        limit.update(Summary(rtt_s, rtt_s * share or rtt_s, in_flight, dropped), rng)
        assert 2 <= limit.allowed <= 50
        assert 2 <= limit.limit <= 50


@given(st.lists(st.sampled_from(["admit", "succeeded", "failed", "dropped"]), max_size=200))
def test_the_calls_under_way_are_the_permits_without_an_end(plan):
    decider, rng, held, now = AdaptiveDecider(Vegas(initial=4, maximum=8), window_s=0.1, minimum=1), Random(0), [], 0.0
    for what in plan:
        now += 0.03
        if what == "admit":
            if decider.in_flight < decider.algorithm.allowed:
                held.append(decider.admit(now))
            else:
                with pytest.raises(BulkheadFullError):
                    decider.admit(now)
        elif held:
            permit = held.pop(0)
            if what == "dropped":
                decider.dropped(permit)
            else:
                getattr(decider, what)(permit, now, rng)
        assert decider.in_flight == len(held)


def test_a_cancelled_call_moves_nothing():
    decider = AdaptiveDecider(Gradient2(), window_s=0.1, minimum=1)
    before = {name: getattr(decider, name) for name in decider.__slots__}
    decider.dropped(decider.admit(5.0))
    after = {name: getattr(decider, name) for name in decider.__slots__}
    assert after | {"_max_in_flight": 0} == before | {"_max_in_flight": 0}


@pytest.mark.parametrize(("beats", "at", "late_s"), [
    ([], 0.5, 0.48),            # the heartbeat is overdue: the loop has been busy since
    ([0.02], 0.03, 0.0),        # it came in time
    ([0.12], 0.13, 0.10),       # it came late, just before the call ended
    ([0.12], 0.20, 0.0),        # it came late, but long ago
])
def test_lag_is_what_delays_the_end_of_a_call(beats, at, late_s):
    lag = LoopLag(every_s=0.02)
    lag.arm(0.0)
    for beat in beats:
        lag.beat(beat)
    assert lag.lag_s(at) == pytest.approx(late_s)


def test_lag_taken_out_keeps_a_busy_process_from_lowering_its_own_limit():
    def lowest(*, lag_known):
        decider, rng, now, limits = AdaptiveDecider(Gradient2(initial=50, maximum=50), window_s=0.1), Random(0), 0.0, []
        for number in range(600):
            busy_s = 0.4 if number > 300 else 0.0  # from then on this process itself resumes late
            permits = [decider.admit(now) for _ in range(min(45, decider.algorithm.allowed))]
            now += 0.05 + busy_s
            for permit in permits:
                decider.succeeded(permit, now, rng, lag_s=busy_s if lag_known else 0.0)
            limits.append(decider.algorithm.limit)
        return min(limits)

    assert lowest(lag_known=True) >= 50
    assert lowest(lag_known=False) < 25


@pytest.mark.parametrize("build", [
    lambda: Vegas(initial=5, minimum=6), lambda: Gradient2(maximum=10), lambda: Gradient2(tolerance=0.5),
    lambda: Gradient2(smoothing=0), lambda: AdaptiveDecider(Vegas(), window_s=0), lambda: AdaptiveDecider(Vegas(), minimum=0),
])
def test_bad_settings_are_refused(build):
    with pytest.raises(ConfigError):
        build()
