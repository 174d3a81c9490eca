"""throttle: the published formula, over a sliding window, and cancelled calls that never were."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki.errors import ConfigError, ThrottledError
from yaoki.policies.throttling import Throttle


def offer(throttle, *, rate_per_s, seconds, bears_per_s, rng, start=0.0):
    """Calls at a rate to a service that accepts so many a second. Returns (sent, accepted)."""
    sent = accepted = 0
    room, last = 0.0, start
    for number in range(int(rate_per_s * seconds)):
        now = start + number / rate_per_s
        room, last = min(bears_per_s, room + (now - last) * bears_per_s), now  # a second of queue
        try:
            throttle.admit(now, rng)
        except ThrottledError:
            continue
        sent += 1
        if room >= 1.0 or bears_per_s >= rate_per_s:
            room -= 1.0
            throttle.accepted()
            accepted += 1
        else:
            throttle.refused()
    return sent, accepted


@pytest.mark.parametrize(("bears_per_s", "k"), [(50, 2.0), (100, 1.2), (20, 2.0), (40, 1.5)])
def test_in_the_long_run_k_times_what_is_accepted_is_sent(bears_per_s, k):
    throttle, rng = Throttle(k=k, window_s=10.0), Random(7)
    offer(throttle, rate_per_s=200, seconds=60, bears_per_s=bears_per_s, rng=rng)
    sent, accepted = offer(throttle, rate_per_s=200, seconds=100, bears_per_s=bears_per_s, rng=rng, start=60.0)
    assert accepted == pytest.approx(bears_per_s * 100, rel=0.2)
    assert sent / accepted == pytest.approx(k, rel=0.1)


def test_a_healthy_service_is_never_throttled():
    throttle, rng = Throttle(), Random(1)
    assert offer(throttle, rate_per_s=50, seconds=300, bears_per_s=50, rng=rng) == (15_000, 15_000)


def test_a_dead_service_gets_little_and_is_found_again_within_two_windows():
    throttle, rng = Throttle(window_s=10.0, most=0.9), Random(1)
    offer(throttle, rate_per_s=100, seconds=10, bears_per_s=0.0, rng=rng)
    sent, _ = offer(throttle, rate_per_s=100, seconds=30, bears_per_s=0.0, rng=rng, start=10.0)
    assert sent == pytest.approx(300, rel=0.2)
    offer(throttle, rate_per_s=100, seconds=20, bears_per_s=100, rng=rng, start=40.0)
    sent, _ = offer(throttle, rate_per_s=100, seconds=10, bears_per_s=100, rng=rng, start=60.0)
    assert sent > 990


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["accepted", "refused", "cancelled"])), max_size=150))
def test_the_chance_is_the_published_formula_over_what_the_window_holds(plan):
    throttle, rng, now, seen = Throttle(window_s=10.0, buckets=10), Random(0), 50.0, []
    for pause, outcome in plan:
        now += pause
        try:
            throttle.admit(now, rng)
        except ThrottledError:
            outcome = "refused"  # noqa: PLW2901
        else:
            if outcome == "cancelled":
                continue
            throttle.accepted() if outcome == "accepted" else throttle.refused()
        seen.append((now, outcome))
    inside = [outcome for at, outcome in seen if int(at) > int(now) - 10]
    requests, accepts = len(inside), inside.count("accepted")
    assert throttle.chance(now) == pytest.approx(min(0.9, max(0.0, (requests - 2 * accepts) / (requests + 1))))


def test_calls_that_begin_together_are_not_taken_for_refused_ones():
    throttle, rng = Throttle(), Random(0)
    for _ in range(1000):
        throttle.admit(5.0, rng)
    assert throttle.chance(5.0) == 0.0


@pytest.mark.parametrize("settings", [{"k": 0.9}, {"window_s": 0}, {"buckets": 1}, {"most": 1.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        Throttle(**settings)
