"""throttle and adaptive_limit around real callables: what counts, what does not, and what is left after a cancellation."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import events, runtime
from yaoki.errors import BulkheadFullError, DeclinedError, ThrottledError
from yaoki.policies.adaptive import adaptive_limit
from yaoki.policies.gradient import Gradient2
from yaoki.policies.pipeline import pipeline
from yaoki.policies.retry import retry
from yaoki.policies.throttle import throttle
from yaoki.policies.timeout import timeout
from yaoki.policies.vegas import Vegas


def call_many(guarded, count):
    outcomes = []
    for _ in range(count):
        try:
            outcomes.append(guarded())
        except Exception as error:
            outcomes.append(type(error).__name__)
    return outcomes


@pytest.mark.parametrize(("error", "throttles"), [
    (ConnectionRefusedError(), True),   # did not take it
    (TimeoutError(), True),             # did not answer
    (DeclinedError("no"), False),       # took it, and answered
    (BulkheadFullError("full"), False),  # was never asked
])
def test_only_what_the_service_did_not_take_throttles(error, throttles):
    policy, seen = throttle(), []

    @policy
    def ask():
        raise error

    with runtime.use(Clock()), events.listen(seen.append):
        outcomes = call_many(ask, 500)
    assert (outcomes.count("ThrottledError") > 350) is throttles
    assert len(seen) == outcomes.count("ThrottledError")


def test_a_throttled_call_is_not_sent():
    policy, sent = throttle(), []

    @policy
    def ask():
        sent.append(1)
        raise ConnectionRefusedError

    with runtime.use(Clock()):
        outcomes = call_many(ask, 500)
    assert len(sent) == outcomes.count("ConnectionRefusedError") < 150


@settings(deadline=None)
@given(st.floats(0.0, 0.3), st.sampled_from(["throttle", "limit"]))
def test_a_cancellation_at_any_moment_leaves_the_counters_as_found(moment, which):
    policy = throttle() if which == "throttle" else adaptive_limit()
    decider = policy.decider

    def counters():
        return (decider.requests, decider.accepts) if which == "throttle" else (decider.in_flight, decider._answered)

    @policy
    async def ask():
        await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)

    async def main():
        before = counters()
        task = asyncio.ensure_future(ask())
        await asyncio.sleep(moment)
        task.cancel()
        await asyncio.wait([task])
        assert counters() == before or not task.cancelled()
        await asyncio.sleep(1)

    run(main())


def test_beyond_the_limit_calls_are_refused_and_none_is_lost():
    policy = adaptive_limit(Vegas(initial=5, maximum=5))
    release = asyncio.Event

    async def main():
        gate = release()

        @policy
        async def ask():
            await gate.wait()
            return "answer"

        tasks = [asyncio.ensure_future(ask()) for _ in range(8)]
        await asyncio.sleep(0)
        assert policy.in_flight == 5
        gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes[:5] == ["answer"] * 5
        assert [type(each) for each in outcomes[5:]] == [BulkheadFullError] * 3
        assert policy.in_flight == 0
        await asyncio.sleep(1)

    run(main())


def test_timeouts_lower_the_limit_and_it_says_so():
    policy, seen = adaptive_limit(Gradient2(initial=50), window=0.1, minimum=1), []
    @pipeline(policy, timeout(0.05))
    async def ask():
        await asyncio.sleep(10)

    async def main():
        for _ in range(20):
            await asyncio.gather(*(ask() for _ in range(10)), return_exceptions=True)
        await asyncio.sleep(1)

    with events.listen(seen.append, kinds=(events.LimitChanged,)):
        run(main())
    assert policy.limit < 20
    assert seen[0].before == 50
    assert all(each.after < each.before for each in seen)


def test_the_heartbeat_stops_when_no_call_is_under_way():
    policy = adaptive_limit()

    @policy
    async def ask():
        await asyncio.sleep(0.5)

    async def main():
        await ask()
        await asyncio.sleep(1.0)
        heart = next(iter(policy._hearts.values()))
        assert not heart.armed

    run(main())


def test_threads_do_not_lose_a_permit():
    policy = adaptive_limit(Vegas(initial=20))
    done, refused = [], []

    @policy
    def ask():
        return 1

    def work():
        for _ in range(2000):
            try:
                done.append(ask())
            except BulkheadFullError:  # what a machine that stands still for a moment is rightly taken for
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert policy.in_flight == 0
    assert len(done) + len(refused) == 8000
    assert done


def test_the_lint_says_what_is_out_of_order():
    text = pipeline(throttle(), retry(3)).explain()
    assert "sees calls, not attempts" in text
    text = pipeline(adaptive_limit(), retry(3)).explain()
    assert "nothing bounds a call in time" in text
    assert "adaptive_limit(gradient2" in text


def test_throttled_error_tells_the_chance():
    policy = throttle(most=0.5)
    with runtime.use(Clock()):
        call_many(policy(lambda: (_ for _ in ()).throw(ConnectionRefusedError())), 200)
        assert policy.chance(runtime.monotonic()) == 0.5
        with pytest.raises(ThrottledError) as refused:
            for _ in range(50):
                policy.call(lambda: None)
    assert refused.value.chance == 0.5
