"""cache and single_flight: one fetch for many, fresh, stale or early, and nobody's cancellation is another's."""

from __future__ import annotations

import asyncio
import math
import threading
import traceback

import pytest

from virtual_time import Clock, run
from yaoki import events, runtime
from yaoki.errors import AttemptTimeoutError, ConfigError, DeclinedError, UsageError
from yaoki.policies import scope
from yaoki.policies.cache import cache
from yaoki.policies.freshness import Entries, Freshness
from yaoki.policies.pipeline import pipeline
from yaoki.policies.retry import retry
from yaoki.policies.single_flight import Landed, single_flight
from yaoki.runtime import Random


class Source:
    """Something slow to ask. `answers` are given in turn; the last one for ever."""

    def __init__(self, *answers, takes_s=0.1):
        self.answers = answers
        self.takes_s = takes_s
        self.calls = 0
        self.cancelled = 0

    def next(self):
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        return answer

    async def __call__(self, *_args, **_kwargs):
        answer = self.next()
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def plain(self, *_args, **_kwargs):
        answer = self.next()
        runtime.sleep_blocking(self.takes_s)
        if isinstance(answer, Exception):
            raise answer
        return answer


# ── single flight ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_calls_that_overlap_become_one_and_others_do_not():
    source = Source("a", "b")
    ask = single_flight()(source)

    async def main():
        first = await asyncio.gather(*(ask("x") for _ in range(100)))
        return first, await ask("x")

    assert run(main()) == (["a"] * 100, "b")
    assert source.calls == 2


def test_the_leaders_cancellation_does_not_reach_the_others():
    source = Source("a")
    ask = single_flight()(source)

    async def main():
        leader = asyncio.ensure_future(ask(1))
        await asyncio.sleep(0.01)
        waiter = asyncio.ensure_future(ask(1))
        await asyncio.sleep(0.01)
        leader.cancel()
        assert await waiter == "a"
        assert leader.cancelled()

    run(main())
    assert (source.calls, source.cancelled) == (1, 0)


def test_when_the_last_waiter_goes_the_flight_goes_with_it():
    source = Source("a")
    ask = single_flight()(source)

    async def main():
        tasks = [asyncio.ensure_future(ask(1)) for _ in range(3)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert source.cancelled == 1
        assert await ask(1) == "a"  # and the next caller starts anew

    run(main())
    assert source.calls == 2


def test_an_error_is_shared_without_its_traceback_growing():
    ask = single_flight()(Source(ConnectionResetError("no")))
    depths = []

    async def one():
        try:
            await ask(1)
        except ConnectionResetError as error:
            depths.append(len(traceback.extract_tb(error.__traceback__)))

    async def main():
        await asyncio.gather(*(one() for _ in range(50)))

    run(main())
    assert len(depths) == 50
    assert max(depths) <= min(depths) + 1


def test_every_caller_waits_no_longer_than_its_own_deadline():
    source = Source("a", takes_s=1.0)
    ask = single_flight()(source)

    async def hurried():
        with scope.until(runtime.monotonic() + 0.3), pytest.raises(AttemptTimeoutError):
            await ask(1)
        return "gave up"

    async def main():
        leader = asyncio.ensure_future(hurried())
        await asyncio.sleep(0.1)
        return await ask(1), await leader

    assert run(main()) == ("a", "gave up")  # the leader's short deadline did not end the flight
    assert source.calls == 1


def test_a_call_that_waits_for_itself_is_an_error_and_not_a_hang():
    @single_flight()
    async def loop(n):
        return await loop(n)

    with pytest.raises(UsageError, match="itself"):
        run(loop(1))

    @single_flight()
    def plain(n):
        return plain(n)

    with pytest.raises(UsageError, match="itself"):
        plain(1)


def test_one_policy_object_keeps_functions_apart():
    flight = single_flight()

    @flight
    async def one(n):
        await asyncio.sleep(0.1)
        return "one"

    @flight
    async def two(n):
        await asyncio.sleep(0.1)
        return "two"

    async def main():
        return await asyncio.gather(one(1), two(1), flight.call(one, 1), flight.call(two, 1))

    assert run(main()) == ["one", "two", "one", "two"]


def test_threads_share_one_call_and_one_takes_over_from_an_interrupted_leader():
    entered, go, calls = threading.Event(), threading.Event(), []

    @single_flight()
    def ask(n):
        calls.append(n)
        entered.set()
        if len(calls) == 1:
            go.wait(100)
            raise KeyboardInterrupt
        return "answer"

    results = []

    def leader():
        try:
            ask(1)
        except KeyboardInterrupt:
            results.append("interrupted")

    threads = [threading.Thread(target=leader)]
    threads[0].start()
    assert entered.wait(100)
    threads += [threading.Thread(target=lambda: results.append(ask(1))) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(100)
    assert sorted(results) == ["answer"] * 3 + ["interrupted"]


def test_a_hundred_raises_of_one_landed_error_keep_its_traceback_short():
    try:
        raise ValueError("x")  # noqa: TRY301
    except ValueError as error:
        landed = Landed(None, error, error.__traceback__)
    for _ in range(100):
        with pytest.raises(ValueError, match="x"):
            landed.get()
    assert len(traceback.extract_tb(landed.error.__traceback__)) <= 3


# ── cache ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_async", [True, False])
def test_an_answer_is_kept_for_its_time_and_not_longer(is_async):
    source, clock = Source("a", "b"), Clock()
    policy = cache(ttl=60, early=0)
    ask = policy(source if is_async else source.plain)

    async def main():
        async def get():
            return await ask(1) if is_async else ask(1)

        seen = [await get(), await get()]
        await asyncio.sleep(59.8)
        seen.append(await get())
        await asyncio.sleep(0.3)
        seen.append(await get())
        return seen

    assert run(main(), clock=clock) == ["a", "a", "a", "b"]
    assert source.calls == 2


@pytest.mark.parametrize("is_async", [True, False])
def test_an_old_answer_stands_in_for_a_failed_fetch_while_it_is_not_too_old(is_async):
    source, seen = Source("a", ConnectionResetError("down")), []
    ask = cache(ttl=10, stale_if_error=100, early=0)(source if is_async else source.plain)

    async def main():
        async def get():
            return await ask() if is_async else ask()

        assert await get() == "a"
        await asyncio.sleep(50)
        assert await get() == "a"
        await asyncio.sleep(70)
        with pytest.raises(ConnectionResetError):
            await get()

    with events.listen(seen.append):
        run(main())
    assert [type(each).__name__ for each in seen] == ["StaleServed"]
    assert seen[0].age_s == pytest.approx(50, abs=1)


def test_a_no_is_not_papered_over_with_an_old_yes():
    source = Source("a", DeclinedError("withdrawn"))
    ask = cache(ttl=10, stale_if_error=100, early=0)(source)

    async def main():
        assert await ask() == "a"
        await asyncio.sleep(50)
        with pytest.raises(DeclinedError):
            await ask()

    run(main())


@pytest.mark.parametrize("is_async", [True, False])
def test_there_is_none_is_an_answer_that_can_be_kept(is_async):
    source = Source(KeyError("nobody"), "found")
    ask = cache(ttl=60, negative=(KeyError,), negative_ttl=5, early=0)(source if is_async else source.plain)

    async def main():
        async def get():
            return await ask(7) if is_async else ask(7)

        for _ in range(3):
            with pytest.raises(KeyError):
                await get()
        assert source.calls == 1
        await asyncio.sleep(6)
        assert await get() == "found"

    run(main())


def test_misses_at_the_same_time_are_one_fetch():
    source = Source("a")
    ask = cache(ttl=60)(source)

    async def main():
        return await asyncio.gather(*(ask(1) for _ in range(50)))

    assert run(main()) == ["a"] * 50
    assert source.calls == 1


def test_an_early_refresh_serves_the_caller_at_once_and_renews_the_answer_beside():
    source, clock = Source("a", "b", takes_s=2.0), Clock(seed=3)
    ask = cache(ttl=10, early=1.0)(source)

    async def main():
        await ask()
        slowest, refreshed_at = 0.0, None
        for _ in range(2000):
            began = clock.now
            answer = await ask()
            slowest = max(slowest, clock.now - began)
            if answer == "b" and refreshed_at is None:
                refreshed_at = clock.now
            await asyncio.sleep(0.005)
        await asyncio.sleep(3.0)  # a refresh under way lands
        return slowest, refreshed_at

    slowest, refreshed_at = run(main(), clock=clock)
    assert slowest == 0.0          # expiry was no stampede, and not even one caller waited
    assert refreshed_at is not None


def test_early_refreshes_come_as_often_as_the_formula_says():
    rules, rng = Freshness(100.0, early=1.0), Random(5)
    entry = rules.value("x", 0.0, fetch_s=4.0)
    for left_s in (2.0, 4.0, 12.0):
        early = sum(rules.state(entry, 100.0 - left_s, rng) == "early" for _ in range(20_000)) / 20_000
        assert early == pytest.approx(math.exp(-left_s / 4.0), abs=0.015)


def test_the_number_of_answers_is_bounded_and_one_can_be_forgotten():
    source = Source("a")
    policy = cache(ttl=60, max_keys=10, key=lambda n, **_: n)
    ask = policy(source)

    async def main():
        for number in range(25):
            await ask(number, colour="red")
        assert len(policy) == 10
        policy.forget(24)
        assert len(policy) == 9
        policy.clear()
        assert len(policy) == 0

    run(main())


@pytest.mark.parametrize("forget", [lambda policy: policy.forget("x"), lambda policy: policy.clear()])
def test_an_answer_under_way_when_it_is_forgotten_is_not_kept_nor_given_to_who_asks_later(forget):
    """A write made it wrong while it was read: reading, writing, forgetting, answered is an order of events as good as any."""
    policy = cache(ttl=60)
    source = Source("old", "new")
    ask = policy(source)

    async def main():
        before = asyncio.ensure_future(ask("x"))
        await asyncio.sleep(0.05)
        forget(policy)
        after = asyncio.ensure_future(ask("x"))
        return await before, await after, await ask("x")

    assert run(main()) == ("old", "new", "new")
    assert source.calls == 2


def test_what_was_forgotten_does_not_stand_in_for_the_fetch_after_it():
    policy = cache(ttl=1, stale_if_error=60)
    source = Source("old", ConnectionResetError("down"))
    ask = policy(source)

    async def main():
        await ask("x")
        await asyncio.sleep(2)
        again = asyncio.ensure_future(ask("x"))
        await asyncio.sleep(0.05)
        policy.forget("x")
        with pytest.raises(ConnectionResetError):
            await again

    run(main())


def test_in_threads_too_an_answer_under_way_is_not_kept_when_it_is_forgotten():
    policy = cache(ttl=60)
    asked, written = threading.Event(), threading.Event()

    @policy
    def ask(key):
        if asked.is_set():
            return "new"
        asked.set()
        written.wait(30)
        return "old"

    answers = []
    reader = threading.Thread(target=lambda: answers.append(ask("x")))
    reader.start()
    assert asked.wait(30)
    policy.forget("x")
    assert ask("x") == "new", "it does not wait for the old one"
    written.set()
    reader.join()
    assert answers == ["old"]
    assert ask("x") == "new"


def test_the_least_recently_used_goes_first():
    entries: Entries[int, str] = Entries(2)
    rules = Freshness(1.0)
    for key in (1, 2):
        entries.put(key, rules.value("x", 0.0, 0.0))
    entries.get(1)
    entries.put(3, rules.value("x", 0.0, 0.0))
    assert [entries.get(key) is not None for key in (1, 2, 3)] == [True, False, True]


def test_inside_a_pipeline_only_misses_reach_what_is_further_in():
    source = Source(ConnectionRefusedError(), "a", takes_s=0.0)
    ask = pipeline(cache(ttl=60), retry(3, idempotent=True))(source)

    async def main():
        return [await ask(1), await ask(1)]

    assert run(main()) == ["a", "a"]
    assert source.calls == 2
    assert "cache" in pipeline(retry(3), cache(ttl=1)).explain()


@pytest.mark.parametrize("build", [
    lambda: cache(ttl=0), lambda: cache(ttl=1, stale_if_error=-1), lambda: cache(ttl=1, early=-1),
    lambda: cache(ttl=1, negative=(KeyError,)), lambda: cache(ttl=1, max_keys=0)(len),
])
def test_bad_settings_are_refused(build):
    with pytest.raises(ConfigError):
        build()
