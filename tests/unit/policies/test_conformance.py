"""The conformance table: what every policy must do under concurrency, cancellation and load. One row, one test or more."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import runtime
from yaoki.errors import AttemptTimeoutError, BreakerOpenError, BulkheadFullError, DeadlineError, ThrottledError
from yaoki.policies import (
    Breaker,
    Bulkhead,
    Policy,
    adaptive_limit,
    backoff,
    breaker,
    budget,
    bulkhead,
    deadline,
    failover,
    pipeline,
    remaining,
    retry,
    scope,
    throttle,
    timeout,
)

STEP = backoff.fixed(1.0)


async def never() -> None:
    await asyncio.Event().wait()


def everything(made: Policy) -> dict[str, Any]:
    """All that a policy counts or holds, so that two moments can be compared."""
    found: dict[str, Any] = {}
    for index, policy in enumerate(made.policies):
        if isinstance(policy, Bulkhead):
            found[f"{index} places"] = (policy.in_use, policy.queued)
        if isinstance(policy, Breaker):
            circuit = policy.circuit
            found[f"{index} circuit"] = (circuit.state, circuit.window.total, circuit.window.failed, len(circuit._leases))
        timers = getattr(policy, "_timers", None)
        if timers is not None:
            found[f"{index} timers"] = timers.under_way()
    return found


# ── cancellation × policy × moment ───────────────────────────────────────────────────────────────────────────────────

ALONE: dict[str, Callable[[], Policy]] = {
    "retry": lambda: retry(3, STEP, on=Exception, idempotent=True, budget=budget(start=5)),
    "breaker": lambda: breaker(minimum=2),
    "bulkhead": lambda: bulkhead(1, queue=2, max_wait=60),
    "deadline": lambda: deadline(60),
    "timeout": lambda: timeout(60),
    "all": lambda: pipeline(deadline(60), retry(3, STEP, on=Exception, idempotent=True, budget=budget(start=5)), breaker(minimum=2),
                            bulkhead(1, queue=2, max_wait=60), timeout(50)),
}


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("moment_s", [0.0, 0.5, 10.0])
def test_a_cancelled_attempt_leaves_everything_as_found_and_is_not_repeated(name: str, moment_s: float) -> None:
    calls = 0

    async def main() -> None:
        nonlocal calls
        policy = ALONE[name]()

        async def hang() -> None:
            nonlocal calls
            calls += 1
            await never()

        before = everything(policy)
        task = asyncio.ensure_future(policy(hang)())
        await asyncio.sleep(moment_s)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert everything(policy) == before
        assert task.cancelling() == 1

    run(main())
    assert calls == 1


@pytest.mark.parametrize("name", ["retry", "all"])
def test_a_call_cancelled_between_attempts_leaves_everything_as_found(name: str) -> None:
    async def main() -> None:
        policy = ALONE[name]()

        async def fail() -> None:
            raise ConnectionResetError

        task = asyncio.ensure_future(policy(fail)())
        await asyncio.sleep(0.5)  # the first attempt has failed, the second comes after 1 s
        during = everything(policy)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert everything(policy) == during

    run(main())


@pytest.mark.parametrize("granted", [False, True])
def test_a_call_cancelled_while_it_queues_leaves_the_queue_as_found(granted: bool) -> None:
    async def main() -> None:
        policy = bulkhead(1, queue=1, max_wait=60)
        release = asyncio.Event()
        first = asyncio.ensure_future(policy(release.wait)())
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(policy(never)())
        await asyncio.sleep(0)
        assert (policy.in_use, policy.queued) == (1, 1)
        if granted:
            # The place is handed over and the cancellation comes in the same instant.
            release.set()
            await first
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        if not granted:
            assert (policy.in_use, policy.queued) == (1, 0)
            release.set()
            await first
        assert (policy.in_use, policy.queued) == (0, 0)

    run(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_not_an_exception_is_never_an_outcome(kind: type[BaseException]) -> None:
    calls = 0
    policy = ALONE["all"]()
    before = everything(policy)

    def stop() -> None:
        nonlocal calls
        calls += 1
        raise kind

    with pytest.raises(kind):
        policy(stop)()
    assert calls == 1
    assert everything(policy) == before


# ── half-open ────────────────────────────────────────────────────────────────────────────────────────────────────────


def opened(**settings: Any) -> tuple[Breaker, Clock]:
    """A breaker that has just opened."""
    clock = Clock()
    policy = breaker(minimum=2, open_for=10, **settings)

    def fail() -> None:
        raise ConnectionResetError

    with runtime.use(clock):
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                policy.call(fail)
    assert policy.state == "open"
    return policy, clock


@pytest.mark.parametrize("probes", [1, 3])
def test_of_fifty_calls_at_the_half_open_moment_exactly_the_probes_run(probes: int) -> None:
    policy, clock = opened(probes=probes)
    ran = 0

    async def main() -> None:
        async def work() -> None:
            nonlocal ran
            ran += 1
            await asyncio.sleep(1)

        await asyncio.sleep(10)
        outcomes = await asyncio.gather(*(policy(work)() for _ in range(50)), return_exceptions=True)
        assert Counter(type(each) for each in outcomes) == {type(None): probes, BreakerOpenError: 50 - probes}

    run(main(), clock=clock)
    assert ran == probes
    assert policy.state == "closed"


def test_a_probe_that_hangs_gives_its_place_to_another() -> None:
    policy, clock = opened(probe_lease=5)

    async def main() -> None:
        async def ok() -> str:
            return "ok"

        await asyncio.sleep(10)
        hanging = asyncio.ensure_future(policy(never)())
        await asyncio.sleep(1)
        with pytest.raises(BreakerOpenError) as refused:
            await policy(ok)()
        assert refused.value.retry_after == pytest.approx(4)
        await asyncio.sleep(4)
        assert await policy(ok)() == "ok"
        assert policy.state == "closed"
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert policy.state == "closed"

    run(main(), clock=clock)


def test_a_cancelled_probe_gives_its_place_to_another_and_decides_nothing() -> None:
    policy, clock = opened()

    async def main() -> None:
        async def ok() -> str:
            return "ok"

        await asyncio.sleep(10)
        probe = asyncio.ensure_future(policy(never)())
        await asyncio.sleep(0)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert policy.state == "half_open"
        assert await policy(ok)() == "ok"
        assert policy.state == "closed"

    run(main(), clock=clock)


def test_a_late_result_of_before_the_opening_changes_nothing() -> None:
    async def main() -> None:
        policy = breaker(minimum=2, open_for=10)
        release = asyncio.Event()

        async def fail() -> None:
            raise ConnectionResetError

        async def late() -> None:
            await release.wait()
            raise ConnectionResetError

        slow = [asyncio.ensure_future(policy(late)()) for _ in range(3)]
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await policy(fail)()
        await asyncio.sleep(10)
        await policy(asyncio.sleep)(0)  # the probe
        assert policy.state == "closed"
        release.set()
        await asyncio.gather(*slow, return_exceptions=True)
        assert (policy.state, policy.circuit.window.total) == ("closed", 0)

    run(main())


# ── what opens, and what must not ────────────────────────────────────────────────────────────────────────────────────


def test_ninety_percent_failures_open_the_breaker_although_every_tenth_call_succeeds() -> None:
    clock = Clock()
    policy = breaker(failure_rate=0.5, minimum=20)

    def flaky(number: int) -> None:
        if number % 10:
            raise ConnectionResetError

    with runtime.use(clock):
        for number in range(100):
            clock.now += 0.1
            try:
                policy.call(flaky, number)
            except ConnectionResetError:
                pass
            except BreakerOpenError:
                break
    assert policy.state == "open"
    assert number == 20


def test_the_expiry_of_an_impatient_callers_deadline_does_not_open_it_for_the_others() -> None:
    async def main() -> None:
        policy = pipeline(breaker(minimum=2, slow_after=3.0), timeout(5.0))
        for _ in range(20):
            with pytest.raises(AttemptTimeoutError):
                async with deadline(0.1):
                    await policy.call(never)
        assert policy.policies[0].state == "closed"  # type: ignore[attr-defined]
        # A caller that was patient enough to judge counts.
        for _ in range(2):
            with pytest.raises(AttemptTimeoutError):
                async with deadline(4.0):
                    await policy.call(never)
        assert policy.policies[0].state == "open"  # type: ignore[attr-defined]

    run(main())


def test_nor_does_a_deadline_in_the_same_pipeline_that_is_shorter_than_the_attempt() -> None:
    async def main() -> None:
        guard = breaker(minimum=2, slow_after=3.0)
        for length, state in ((0.1, "closed"), (4.0, "open")):
            for _ in range(2):
                with pytest.raises(AttemptTimeoutError) as failure:
                    await pipeline(deadline(length), guard, timeout(5.0)).call(never)
                assert failure.value.by == "deadline"
            assert guard.state == state

    run(main())


def test_nor_does_it_where_a_client_keeps_to_it_by_a_timeout_of_its_own() -> None:
    """Plain functions: the client is told `remaining()`, and raises whatever it raises when that is over."""
    def ask() -> None:
        runtime.sleep_blocking(min(5.0, remaining()))
        raise TimeoutError("read timed out")

    guard = breaker(minimum=2, slow_after=3.0)
    with runtime.use(Clock()):
        for length, state in ((0.1, "closed"), (4.0, "open")):
            for _ in range(2):
                with deadline(length), pytest.raises(TimeoutError, match="read"):
                    guard.call(ask)
            assert guard.state == state
        guard.reset()
        for _ in range(2):
            with deadline(60.0), pytest.raises(TimeoutError, match="read"):
                guard.call(ask)
        assert guard.state == "open", "the service itself did not answer"


async def _impatiently(policy: Policy, calls: int, patience_s: float) -> None:
    """Calls that are never answered, by callers with little time: a server's, say, whose own callers told it how long they wait."""
    for _ in range(calls):
        with scope.until(runtime.monotonic() + patience_s), pytest.raises((AttemptTimeoutError, ThrottledError, BulkheadFullError)):
            await pipeline(policy, timeout(60.0)).call(never)


def test_nor_does_it_lower_a_limit_throttle_the_others_or_eject_an_endpoint() -> None:
    async def main() -> None:
        limit, share, endpoints = adaptive_limit(minimum=1, window=0.1), throttle(), failover(["a", "b"], idempotent=True)
        for policy in (limit, share, endpoints):
            for _ in range(30):
                await policy.call(answered_in, 0.1)
            before = limit.limit
            await _impatiently(policy, 30, 0.05)
        assert limit.limit == before
        assert share.chance(runtime.monotonic()) == 0.0
        assert [(each.out, each.health, each.in_flight) for each in endpoints.endpoints.endpoints] == [(False, 1.0, 0)] * 2

    run(main())


def test_callers_that_waited_much_longer_than_usual_are_believed() -> None:
    async def main() -> None:
        limit, endpoints = adaptive_limit(minimum=1, window=0.1), failover(["a", "b", "c"], idempotent=True)
        for policy in (limit, endpoints):
            for _ in range(30):
                await policy.call(answered_in, 0.1)
        before = limit.limit
        for policy in (limit, endpoints):
            await _impatiently(policy, 30, 0.5)
        assert limit.limit < before
        slow = [each for each in endpoints.endpoints.endpoints if each.latency_s >= 0.5]
        assert slow, "and so gets less to do"
        assert all(each.health < 1.0 for each in slow)

    run(main())


async def answered_in(seconds: float) -> None:
    await asyncio.sleep(seconds)


def test_a_services_own_timeouts_open_it() -> None:
    async def main() -> None:
        policy = pipeline(breaker(minimum=2), timeout(5.0))
        for _ in range(2):
            with pytest.raises(AttemptTimeoutError):
                await policy.call(never)
        with pytest.raises(BreakerOpenError):
            await policy.call(never)

    run(main())


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=6), st.floats(0, 0.3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_cap_of_two_tenths_bounds_the_call_backoff_and_slow_attempts_included(took: list[float], wait: float, inner: bool) -> None:
    async def main() -> None:
        durations = iter(took)

        async def slow() -> None:
            await asyncio.sleep(next(durations, 0.0))
            raise ConnectionResetError

        parts: list[Policy] = [deadline(0.2), retry(6, backoff.fixed(wait), idempotent=True)]
        policy = pipeline(*parts, timeout(0.15)) if inner else pipeline(*parts)
        began = runtime.monotonic()
        with pytest.raises((ConnectionResetError, AttemptTimeoutError, DeadlineError)):
            await policy.call(slow)
        assert runtime.monotonic() - began <= 0.2 + 1e-6

    run(main())


@given(st.floats(0.01, 5), st.floats(0.01, 5))
def test_an_inner_deadline_never_outlives_the_outer_one(outer: float, inner: float) -> None:
    clock = Clock()
    with runtime.use(clock), deadline(outer):
        with deadline(inner):
            assert remaining() == pytest.approx(min(outer, inner))
        assert remaining() == pytest.approx(outer)
    assert remaining() == float("inf")


# ── no retry storm ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("clients", [1, 1000])
def test_over_ten_seconds_at_most_a_tenth_more_calls_reach_a_dead_service_than_are_asked_for(clients: int) -> None:
    clock = Clock()
    sent = 0

    def dead() -> None:
        nonlocal sent
        sent += 1
        raise ConnectionRefusedError

    asked = 20_000
    start = 1.0
    # A thousand processes, each with its own bucket, ask for as much together as one does alone.
    policies = [retry(4, backoff.exponential(0.01), budget=budget(0.1, start=start)) for _ in range(clients)]
    with runtime.use(clock):
        for number in range(asked):
            clock.now += 10 / asked
            with pytest.raises(ConnectionRefusedError):
                policies[number % clients].call(dead)
    assert sent <= asked * 1.1 + start * clients
    assert sent >= asked


def test_a_healthy_service_may_be_retried_by_a_tenth() -> None:
    clock = Clock()
    sent = 0

    def flaky() -> None:
        nonlocal sent
        sent += 1
        if clock.rng.random() < 0.05:
            raise ConnectionRefusedError

    policy = retry(4, backoff.NONE, budget=0.1)
    failed = 0
    with runtime.use(clock):
        for _ in range(5000):
            try:
                policy.call(flaky)
            except ConnectionRefusedError:
                failed += 1
    assert failed < 25, "a twentieth of failures is within the budget, so nearly every call must get through"
    assert sent < 5000 * 1.1


# ── threads, contexts ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [breaker, lambda: bulkhead(4), ALONE["all"]])
def test_four_threads_are_inside_one_policy_at_the_same_time(make: Callable[[], Policy]) -> None:
    policy = make() if make is not ALONE["all"] else pipeline(deadline(600), retry(2), breaker(), bulkhead(4))
    together = threading.Barrier(4)  # nobody passes it alone

    def work() -> int:
        return together.wait(timeout=100)

    guarded = policy(work)
    threads = [threading.Thread(target=guarded) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not together.broken


def test_threads_hammering_one_pipeline_leave_it_as_found() -> None:
    policy = pipeline(retry(2, backoff.NONE, on=ValueError, budget=False), breaker(failure_rate=1.0, minimum=10_000), bulkhead(3, queue=64, max_wait=600))
    inside = most = 0
    lock = threading.Lock()
    outcomes: Counter[str] = Counter()

    def work(number: int) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            if number % 7 == 0:
                raise ValueError(number)
        finally:
            with lock:
                inside -= 1

    def hammer(offset: int) -> None:
        for number in range(400):
            try:
                policy.call(work, number + offset)
                outcome = "ok"
            except ValueError:
                outcome = "failed"
            with lock:  # to add one is to read and to write
                outcomes[outcome] += 1

    threads = [threading.Thread(target=hammer, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert sum(outcomes.values()) == 3200
    assert most <= 3
    places = policy.policies[2]
    assert isinstance(places, Bulkhead)
    assert (places.in_use, places.queued) == (0, 0)
    circuit = policy.policies[1].circuit  # type: ignore[attr-defined]
    assert circuit.window.failed == 2 * outcomes["failed"]


user: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.mark.parametrize("name", [*ALONE, "thread"])
def test_context_variables_survive_every_policy_both_ways(name: str) -> None:
    policy = timeout(30, thread=True) if name == "thread" else ALONE[name]()

    async def aio() -> str:
        seen = user.get()
        user.set("set inside")
        return seen

    def plain() -> str:
        return user.get()

    async def main() -> None:
        token = user.set("ann")
        assert await policy(aio)() == "ann"
        assert user.get() == "set inside"
        user.reset(token)

    run(main())
    token = user.set("bob")
    assert policy(plain)() == "bob"
    user.reset(token)


# ── drawn pipelines ──────────────────────────────────────────────────────────────────────────────────────────────────

PARTS: list[Callable[[], Policy]] = [
    lambda: deadline(3), lambda: retry(3, backoff.exponential(0.1), idempotent=True), lambda: breaker(minimum=3, open_for=1),
    lambda: bulkhead(2, queue=2, max_wait=0.5), lambda: timeout(0.7), lambda: retry(2, backoff.NONE, on=ValueError),
]

Outcome = tuple[float, str]
outcomes = st.tuples(st.sampled_from([0.0, 0.1, 0.69, 1.0, 5.0]), st.sampled_from(["ok", "reset", "value", "refused"]))
ERRORS: dict[str, type[Exception]] = {"reset": ConnectionResetError, "value": ValueError, "refused": ConnectionRefusedError}


@given(order=st.permutations(range(len(PARTS))), length=st.integers(1, 6), script=st.lists(outcomes, min_size=1, max_size=12),
       calls=st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.4]), st.sampled_from([0.0, 0.2, 1.5, 100.0])), min_size=1, max_size=8))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_pipeline_under_any_script_ends_every_call_and_leaves_nothing_behind(
        order: list[int], length: int, script: list[Outcome], calls: list[tuple[float, float]]) -> None:
    """Policies, their order, outcomes, overlaps and cancellations are drawn; the clock is virtual."""
    policy = pipeline(*(PARTS[index]() for index in order[:length]))
    answers = iter(script)

    async def service() -> str:
        took_s, what = next(answers, (0.0, "ok"))
        await asyncio.sleep(took_s)
        if what != "ok":
            raise ERRORS[what]
        return "ok"

    guarded: Callable[[], Awaitable[str]] = policy(service)
    allowed = (*ERRORS.values(), BreakerOpenError, BulkheadFullError, DeadlineError, AttemptTimeoutError, asyncio.CancelledError)

    async def main() -> None:
        tasks = []
        for pause_s, patience_s in calls:
            await asyncio.sleep(pause_s)
            task = asyncio.ensure_future(guarded())
            asyncio.get_running_loop().call_later(patience_s, task.cancel)
            tasks.append(task)
        for task in tasks:
            try:
                assert await task == "ok"
            except allowed:
                pass
        left = everything(policy)
        assert all(places == (0, 0) for name, places in left.items() if "places" in name)
        assert all(timers == 0 for name, timers in left.items() if "timers" in name)
        assert all(circuit[3] == 0 for name, circuit in left.items() if "circuit" in name)
        assert scope.current.get() == scope.NOTHING

    run(main())
