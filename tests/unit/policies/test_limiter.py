"""rate_limit: the schedule GCRA allows, whatever is reserved, given back or forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import events, runtime
from yaoki.errors import ConfigError, RateLimitedError, UsageError
from yaoki.policies import scope
from yaoki.policies.gcra import Gcra, KeyedGcra, Rate
from yaoki.policies.limiter import rate_limit

# ── the decider ──────────────────────────────────────────────────────────────────────────────────────────────────────


def conforms(times: list[float], rate_per_s: float, burst: float) -> bool:
    """Would plain GCRA, asked at these instants, have let every one through?"""
    tat = float("-inf")
    for at in sorted(times):
        tat = max(tat, at) + 1 / rate_per_s
        if tat - burst / rate_per_s > at + 1e-6:
            return False
    return True


steps = st.lists(st.tuples(st.floats(0, 2), st.sampled_from(["reserve", "reserve", "reserve", "back"]), st.integers(0, 50)),
                 max_size=80)


@given(steps, st.sampled_from([0.7, 3.0, 10.0]), st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from([0.0, 0.4, 3.0]))
def test_what_goes_is_always_a_schedule_that_gcra_allows(plan, rate_per_s, burst, max_wait_s):
    limit = Gcra(Rate(rate_per_s, burst, max_wait_s))
    now, held = 100.0, []
    for pause, what, which in plan:
        now += pause
        if what == "reserve":
            try:
                place = limit.reserve(now)
            except RateLimitedError as error:
                assert error.retry_after > max_wait_s  # noqa: PT017
                continue
            assert now <= place.at <= now + max_wait_s + 1e-9
            held.append(place)
        elif waiting := [place for place in held if place.at > now]:
            place = waiting[which % len(waiting)]
            held.remove(place)
            limit.give_back(place, now)
    assert conforms([place.at for place in held], rate_per_s, burst)


@given(st.integers(1, 12), st.randoms(use_true_random=False), st.floats(0.1, 5))
def test_giving_every_place_back_leaves_the_limit_as_it_was_found(count, rng, rate_per_s):
    limit = Gcra(Rate(rate_per_s, 1.0, 1e9))
    limit.reserve(50.0)
    before = limit.tat
    places = [limit.reserve(50.0) for _ in range(count)]
    rng.shuffle(places)
    for place in places:
        limit.give_back(place, 50.0)
    assert limit.tat == before
    assert not limit._returned


@given(st.floats(0.5, 100), st.floats(1, 20))
def test_a_rested_limit_lets_a_whole_burst_through_at_once_and_not_one_more(rate_per_s, burst):
    limit = Gcra(Rate(rate_per_s, burst))
    for _ in range(int(burst)):
        assert limit.reserve(7.0).at == 7.0
    if burst == int(burst):
        with pytest.raises(RateLimitedError):
            limit.reserve(7.0)


def test_the_long_run_rate_is_met_exactly():
    limit, now, went = Gcra(Rate(10.0, 1.0, 0.0)), 0.0, 0
    while now < 100.0:
        try:
            limit.reserve(now)
            went += 1
        except RateLimitedError:
            pass
        now += 0.003
    assert 990 - 40 <= went <= 1001  # asking every 3 ms wastes up to 3 ms of each 100


def test_a_place_given_back_is_taken_by_the_next_one_to_come():
    limit = Gcra(Rate(1.0, 1.0, 10.0))
    places = [limit.reserve(0.0) for _ in range(4)]
    limit.give_back(places[1], 0.5)
    assert limit.reserve(0.6).at == places[1].at
    assert limit.reserve(0.6).at == places[3].at + 1


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5)), max_size=120), st.sampled_from([0.0, 0.5]))
def test_a_limit_with_keys_decides_as_one_limit_for_each_key_would(calls, max_wait_s):
    rate = Rate(2.0, 3.0, max_wait_s)
    keyed: KeyedGcra[int] = KeyedGcra(rate)
    alone = {key: Gcra(rate) for key in range(6)}
    now = 10.0
    for pause, key in calls:
        now += pause
        outcomes = []
        for reserve in (lambda key=key, now=now: keyed.reserve(key, now), lambda key=key, now=now: alone[key].reserve(now)):
            try:
                outcomes.append(reserve().at)
            except RateLimitedError as error:
                outcomes.append(-error.retry_after)
        assert outcomes[0] == pytest.approx(outcomes[1])


def test_idle_keys_are_forgotten_and_memory_is_bounded():
    keyed: KeyedGcra[int] = KeyedGcra(Rate(10.0, 10.0), max_keys=3000)
    for key in range(20_000):
        keyed.reserve(key, 5.0)
        assert len(keyed) <= 3000
    for call in range(4000):  # the same few keys, over time
        keyed.reserve(call % 7, 10.0 + call)
    assert len(keyed) <= 14


@pytest.mark.long
def test_a_million_keys_are_held_and_given_up_without_a_pause():
    keyed: KeyedGcra[int] = KeyedGcra(Rate(1.0, 1.0), max_keys=3_000_003)
    for key in range(1_000_000):
        keyed.reserve(key, 0.5)
    assert len(keyed) == 1_000_000
    for call in range(1_100_000):
        keyed.reserve(-1 - call % 3, 10.0 + 2.0 * call)
    assert len(keyed) < 10


@pytest.mark.parametrize(("build", "names"), [
    (lambda: Rate(0, 1), "rate"), (lambda: Rate(1, 0.5), "burst"), (lambda: Rate(1, 1, -1), "max_wait"),
    (lambda: KeyedGcra(Rate(1, 1), max_keys=0), "max_keys"), (lambda: rate_limit(10, per=0), "per"),
    (lambda: Gcra(Rate(1, 2)).reserve(0.0, cost=3), "burst"),
])
def test_bad_settings_are_named(build, names):
    with pytest.raises(ConfigError, match=names):
        build()


# ── the shells ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plain_function_waits_for_its_place():
    clock = Clock()
    limit = rate_limit(10, burst=1, max_wait=1.0)
    guarded = limit(lambda: clock.now)
    with runtime.use(clock):
        times = [guarded() for _ in range(5)]
    assert clock.slept == pytest.approx([0.1] * 4)
    assert times[-1] - times[0] == pytest.approx(0.4)


def test_calls_of_one_loop_go_in_order_of_arrival():
    limit = rate_limit(10, burst=2, max_wait=10.0)
    went = []

    @limit
    async def call(number):
        went.append((number, round(asyncio.get_running_loop().time() - start[0], 6)))

    start = []

    async def main():
        start.append(asyncio.get_running_loop().time())
        await asyncio.gather(*(call(number) for number in range(6)))

    run(main())
    assert went == [(0, 0), (1, 0), (2, 0.1), (3, 0.2), (4, 0.3), (5, 0.4)]


def test_a_call_cancelled_while_it_waits_gives_its_place_back():
    limit = rate_limit(1, burst=1, max_wait=100.0)

    @limit
    async def call():
        pass

    async def main():
        await call()
        before = limit._one.tat
        waiting = [asyncio.ensure_future(call()) for _ in range(3)]
        await asyncio.sleep(0.25)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert all(task.cancelled() for task in waiting)
        assert limit._one.tat == before

    run(main())


def test_a_wait_beyond_the_ambient_deadline_is_refused_at_once():
    clock, limit = Clock(), rate_limit(1, burst=1, max_wait=100.0)
    with runtime.use(clock):
        limit.call(lambda: None)
        with scope.until(clock.now + 0.5), pytest.raises(RateLimitedError) as refused:
            limit.call(lambda: None)
        assert clock.slept == []
        assert refused.value.retry_after == pytest.approx(1.0)


def test_each_key_has_its_own_limit_and_a_refusal_is_an_event():
    seen, served = [], Counter()
    limit = rate_limit(2, burst=2, key=lambda tenant, **_: tenant)

    @limit
    def call(tenant, *, colour):
        served[tenant] += 1

    with runtime.use(Clock()), events.listen(seen.append):
        for tenant in "aabab":
            try:
                call(tenant, colour="red")
            except RateLimitedError:
                pass
    assert served == {"a": 2, "b": 2}
    assert [type(event).__name__ for event in seen] == ["CallRejected"]
    assert seen[0].policy == "rate"


def test_a_block_waits_too_but_cannot_have_a_key():
    clock, limit = Clock(), rate_limit(10, burst=1, max_wait=1.0)
    with runtime.use(clock):
        for _ in range(2):
            with limit:
                pass
        assert clock.slept == pytest.approx([0.1])
        with pytest.raises(UsageError, match="block"), rate_limit(1, key=lambda: 1):
            pass
