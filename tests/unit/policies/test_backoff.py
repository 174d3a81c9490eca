"""Back-off: the published formulas, checked as distributions, because a range would also admit everybody in step."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki.errors import ConfigError
from yaoki.policies import backoff
from yaoki.policies.backoff import Backoff

DRAWS = 20_000


def draw(schedule: Backoff, failed: int, draws: int = DRAWS) -> list[float]:
    """Delays after attempt number `failed`, each at the end of a series of its own."""
    rng = Random(7)
    found = []
    for _ in range(draws):
        previous = 0.0
        for number in range(1, failed + 1):
            previous = schedule.delay(number, previous, rng)
        found.append(previous)
    return found


# (schedule, number of the attempt that failed, mean of the delay): B = 0.1, C = 5, as in AWS's simulator
MEANS = [
    (backoff.exponential(0.1, cap=5, jitter="none"), 1, 0.1), (backoff.exponential(0.1, cap=5, jitter="none"), 9, 5.0),
    (backoff.exponential(0.1, cap=5), 1, 0.05), (backoff.exponential(0.1, cap=5), 5, 0.80), (backoff.exponential(0.1, cap=5), 9, 2.50),
    (backoff.exponential(0.1, cap=5, jitter="equal"), 1, 0.075), (backoff.exponential(0.1, cap=5, jitter="equal"), 9, 3.75),
    (backoff.decorrelated(0.1, cap=5), 1, 0.20), (backoff.linear(0.1, cap=5, jitter="none"), 4, 0.4),
    (backoff.fibonacci(0.1, cap=5, jitter="none"), 6, 0.8), (backoff.fibonacci(0.1, cap=5, jitter="none"), 60, 5.0),
    (backoff.fixed(0.3), 50, 0.3), (backoff.custom(lambda n: n * n, cap=100, jitter="none"), 7, 49.0),
    (backoff.exponential(0.1, cap=5, factor=1.0, jitter="none"), 9, 0.1),
]


@pytest.mark.parametrize(("schedule", "failed", "expected"), MEANS, ids=repr)
def test_the_mean_delay_is_the_formulas(schedule: Backoff, failed: int, expected: float) -> None:
    draws = 1 if schedule.jitter == "none" and schedule.name != "decorrelated" else DRAWS
    assert mean(draw(schedule, failed, draws)) == pytest.approx(expected, rel=0.02)


JITTERED = [backoff.exponential(0.1, cap=5), backoff.exponential(0.1, cap=5, jitter="equal"), backoff.decorrelated(0.1, cap=5),
            backoff.fibonacci(0.1, cap=5), backoff.linear(0.1, cap=5)]


@pytest.mark.parametrize("schedule", JITTERED, ids=repr)
def test_at_the_cap_nobody_is_in_step(schedule: Backoff) -> None:
    """In most libraries the jitter comes before the cap, and at the tenth attempt everybody sleeps exactly the cap."""
    delays = draw(schedule, 60, 1000)
    assert max(delays) <= 5.0
    assert sum(delay == 5.0 for delay in delays) == 0
    assert len(set(delays)) == len(delays)
    assert max(delays) - min(delays) > 2


@given(st.sampled_from(JITTERED), st.integers(1, 10_000), st.floats(0, 100), st.integers(0, 2**32))
def test_a_delay_is_between_zero_and_the_cap_at_any_attempt(schedule: Backoff, failed: int, previous: float, seed: int) -> None:
    delay = schedule.delay(failed, previous, Random(seed))
    assert 0 <= delay <= schedule.cap_s
    assert delay <= schedule.longest_s(failed) or schedule.name == "decorrelated"


@pytest.mark.parametrize("make", [
    lambda: backoff.exponential(0), lambda: backoff.exponential(-1), lambda: backoff.exponential(3, cap=2), lambda: backoff.exponential(factor=0.5),
    lambda: backoff.exponential(jitter="some"), lambda: backoff.fixed(float("nan")), lambda: backoff.custom("2"), lambda: backoff.linear(True),
])
def test_a_wrong_setting_is_refused_with_its_name_and_what_to_do(make: Callable[[], Backoff]) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert refused.value.do
