"""failover: good endpoints get the calls, sick ones probes, all of them something."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import events, runtime
from yaoki.errors import ConfigError, DeclinedError, RefusedError, UsageError
from yaoki.policies import nothing_happened, pipeline, timeout
from yaoki.policies.budget import Budget
from yaoki.policies.endpoints import Endpoint, Endpoints
from yaoki.policies.failover import endpoint, failover
from yaoki.runtime import Random


def drive(endpoints, *, calls, latency, rng, fails=lambda target, now: False, start=0.0, rate_per_s=100.0):
    """Calls at a rate to endpoints of given latencies. Returns how many each got."""
    got, now, under_way = Counter(), start, []
    for _ in range(calls):
        now += rng.expovariate(rate_per_s)
        for end, lease, failed in [each for each in under_way if each[0] <= now]:
            (endpoints.failed if failed else endpoints.succeeded)(lease, end)
        under_way = [each for each in under_way if each[0] > now]
        lease = endpoints.choose(now, rng)
        target = lease.endpoint.target
        got[target] += 1
        under_way.append((now + latency(target) * rng.uniform(0.8, 1.2), lease, fails(target, now)))
    return got


def several(*targets, **settings):
    return Endpoints([Endpoint(each) for each in targets], **settings)


def test_equal_endpoints_get_equal_shares():
    got = drive(several("a", "b", "c", "d"), calls=8000, latency=lambda _: 0.05, rng=Random(1))
    assert all(share == pytest.approx(2000, rel=0.12) for share in got.values())


def test_a_slower_endpoint_gets_less_but_is_never_cold():
    got = drive(several("a", "b", "slow"), calls=6000, latency=lambda target: 0.2 if target == "slow" else 0.02, rng=Random(1))
    assert got["slow"] < got["a"] / 2
    assert got["slow"] >= 6  # in a minute, with ten seconds as the longest rest


def test_weights_are_heeded():
    endpoints = Endpoints([Endpoint("big", weight=3.0), Endpoint("small")])
    got = drive(endpoints, calls=8000, latency=lambda _: 0.1, rng=Random(2), rate_per_s=400)
    assert got["big"] > 1.8 * got["small"]


def test_a_dead_endpoint_is_ejected_probed_ever_more_rarely_and_comes_back():
    endpoints, rng = several("a", "b", "dead", eject_s=1.0), Random(3)
    got = drive(endpoints, calls=6000, latency=lambda _: 0.02, rng=rng, fails=lambda target, _: target == "dead")
    assert got["dead"] < 40
    dead = endpoints.endpoints[2]
    assert dead.out
    got = drive(endpoints, calls=20_000, latency=lambda _: 0.02, rng=rng, start=60.0)
    assert not dead.out
    assert got["dead"] > 3000


def test_when_all_are_sick_not_all_are_left_out():
    endpoints = several(*"abcdef", most_ejected=0.5)
    drive(endpoints, calls=3000, latency=lambda _: 0.02, rng=Random(4), fails=lambda *_: True)
    assert sum(each.out for each in endpoints.endpoints) == 3


def test_an_endpoint_far_worse_than_the_others_is_ejected_though_it_never_fails_five_times_in_a_row():
    endpoints, rng = several(*"abcd", eject_s=1000.0), Random(5)
    drive(endpoints, calls=6000, latency=lambda _: 0.02, rng=rng, fails=lambda target, _: target == "d" and rng.random() < 0.6)
    assert [each.target for each in endpoints.endpoints if each.out] == ["d"]


def test_the_own_zone_is_preferred_and_the_others_are_kept_warm():
    zones = [Endpoint("h1", "home"), Endpoint("h2", "home"), Endpoint("f1", "far"), Endpoint("f2", "far")]
    endpoints, rng = Endpoints(zones, zone="home", crossing=0.05), Random(6)
    got = drive(endpoints, calls=10_000, latency=lambda _: 0.02, rng=rng)
    assert (got["f1"] + got["f2"]) / 10_000 == pytest.approx(0.05, abs=0.01)
    zones[0].out, zones[0].probe_at, endpoints.outs = True, 1e9, 1  # half of the home zone is lost: half of its share flows over
    got = drive(endpoints, calls=10_000, latency=lambda _: 0.02, rng=rng, start=200.0)
    assert (got["f1"] + got["f2"]) / 10_000 == pytest.approx(0.525, abs=0.03)


def test_one_probe_at_a_time_and_one_that_hangs_is_not_the_last():
    endpoints, rng = several("a", "b", eject_s=10.0), Random(0)
    sick = endpoints.endpoints[1]
    sick.out, sick.ejections, sick.probe_at, endpoints.outs = True, 1, 100.0, 1
    first = endpoints.choose(100.0, rng)
    assert (first.endpoint, first.probe) == (sick, True)
    assert not any(endpoints.choose(100.0 + 0.1 * n, rng).probe for n in range(50))
    second = endpoints.choose(110.0, rng)
    assert second.probe
    endpoints.dropped(second)
    assert endpoints.choose(110.1, rng).probe  # a cancelled probe frees the next one


@given(st.lists(st.tuples(st.sampled_from(["choose", "succeeded", "failed", "dropped"]), st.floats(0, 5)), max_size=150),
       st.integers(1, 5), st.randoms(use_true_random=False))
def test_whatever_happens_there_is_an_endpoint_and_the_counts_are_right(plan, count, rng):
    endpoints, held, now = several(*range(count), failures=2, eject_s=1.0), [], 0.0
    for what, pause in plan:
        now += pause
        if what == "choose":
            held.append(endpoints.choose(now, rng))
        elif held:
            lease = held.pop(rng.randrange(len(held)))
            endpoints.dropped(lease) if what == "dropped" else getattr(endpoints, what)(lease, now)
        assert sum(each.in_flight for each in endpoints.endpoints) == len(held)
        assert sum(each.out for each in endpoints.endpoints) == endpoints.outs <= count / 2
        assert all(0 <= each.health <= 1 for each in endpoints.endpoints)


def test_those_tried_before_are_not_chosen_again():
    endpoints = several("a", "b", "c")
    for _ in range(50):
        assert endpoints.choose(0.0, Random(1), but=["a", "c"]).endpoint.target == "b"
    with pytest.raises(RefusedError, match="tried"):
        endpoints.choose(0.0, Random(1), but=["a", "b", "c"])


# ── the shells ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_async", [True, False])
def test_a_failed_attempt_goes_on_to_another_endpoint(is_async):
    seen, policy = [], failover(["up", "down"], arg="host", idempotent=True)

    def plain(n, *, host):
        assert host == endpoint()
        seen.append(host)
        if host == "down":
            raise ConnectionResetError("down")
        return n

    async def coroutine(n, *, host):
        return plain(n, host=host)

    async def main():
        ask = policy(coroutine if is_async else plain)
        for number in range(50):
            assert (await ask(number) if is_async else ask(number)) == number

    run(main())
    assert 0 < seen.count("down") < 25


def test_what_may_have_happened_is_not_sent_elsewhere_unless_that_is_harmless():
    for idempotent, calls in ((None, 1), (True, 2)):
        seen = []

        @failover(["a", "b"], idempotent=idempotent)
        def ask(seen=seen):
            seen.append(endpoint())
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            ask()
        assert len(seen) == len(set(seen)) == calls


def test_a_silent_endpoint_costs_one_attempt_timeout():
    clock = Clock()

    @pipeline(failover(["silent", "up"], idempotent=True), timeout(0.1))
    async def ask():
        if endpoint() == "silent":
            await asyncio.sleep(100)
        return "answer"

    async def main():
        for _ in range(100):
            began = clock.now
            assert await ask() == "answer"
            assert clock.now - began <= 0.1001
            await asyncio.sleep(0.01)

    run(main(), clock=clock)


def test_the_budget_bounds_what_goes_on():
    sent = []

    @failover(["a", "b"], budget=Budget(0.1, start=0, cap=5), idempotent=True)
    def ask():
        sent.append(1)
        raise ConnectionResetError

    for _ in range(100):
        with pytest.raises(ConnectionResetError):
            ask()
    assert len(sent) == 100


def test_an_answer_for_good_is_no_fault_of_the_endpoint():
    policy = failover(["a", "b"], failures=2)

    @policy
    def ask():
        raise DeclinedError("no")

    for _ in range(50):
        with pytest.raises(DeclinedError):
            ask()
    assert not any(each.out or each.failures for each in policy.endpoints.endpoints)


def test_ejection_and_return_are_events():
    clock, seen, sick = Clock(), [], [True]
    policy = failover(["a", "b"], idempotent=True, eject_s=5.0)

    @policy
    def ask():
        if endpoint() == "b" and sick[0]:
            raise ConnectionResetError
        return 1

    with runtime.use(clock), events.listen(seen.append):
        while not any(each.out for each in policy.endpoints.endpoints):
            ask()
            clock.now += 1.0
        sick[0] = False
        clock.now += 10
        for _ in range(20):
            ask()
    assert [type(each).__name__ for each in seen] == ["EndpointEjected", "EndpointReturned"]
    assert seen[0].endpoint == "b"


@settings(deadline=None)
@given(st.floats(0.0, 0.4))
def test_a_cancellation_at_any_moment_leaves_every_endpoint_as_found(moment):
    policy = failover(["a", "b", "c"], idempotent=True, attempts=3)

    @policy
    async def ask():
        await asyncio.sleep(0.1)
        raise ConnectionResetError

    async def main():
        task = asyncio.ensure_future(ask())
        await asyncio.sleep(moment)
        task.cancel()
        await asyncio.wait([task])
        assert [each.in_flight for each in policy.endpoints.endpoints] == [0, 0, 0]

    run(main())


def test_endpoints_can_be_replaced_and_those_that_stay_are_remembered():
    policy = failover(["a", "b"])
    policy.endpoints.endpoints[0].health = 0.25
    policy.replace(["c", "a"])
    assert [(each.target, each.health) for each in policy.endpoints.endpoints] == [("c", 1.0), ("a", 0.25)]
    with pytest.raises(ConfigError):
        policy.replace([])


def test_bad_settings_and_places_are_refused():
    for build in (lambda: failover([]), lambda: failover(["a", "a"]), lambda: failover(["a"], attempts=0),
                  lambda: failover(["a"], crossing=2)):
        with pytest.raises(ConfigError):
            build()
    with pytest.raises(UsageError, match="outside"):
        endpoint()
    assert "nothing to fail over to" in pipeline(failover(["a"])).explain()


def test_what_the_first_endpoint_may_have_done_stays_in_doubt_when_the_second_refuses():
    for last in (ConnectionRefusedError("down"), DeclinedError("sold out"), RefusedError("full")):
        failures = [TimeoutError("silent"), last]
        clock = Clock()
        with runtime.use(clock), pytest.raises(type(last)) as failure:
            failover(["a", "b"], idempotent=True).call(lambda failures=failures: (_ for _ in ()).throw(failures.pop(0)))
        assert failures == []
        assert not nothing_happened(failure.value)


def test_when_no_endpoint_can_have_done_it_that_is_certain():
    with runtime.use(Clock()), pytest.raises(ConnectionRefusedError) as failure:
        failover(["a", "b"]).call(lambda: (_ for _ in ()).throw(ConnectionRefusedError("down")))
    assert nothing_happened(failure.value)
