"""hedge: what a copy is sent for, who wins, and that losers leave nothing behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import events, runtime
from yaoki.errors import AttemptTimeoutError, ConfigError, DeclinedError, UsageError
from yaoki.policies import scope
from yaoki.policies.budget import Budget
from yaoki.policies.classify import THROTTLED, classify, nothing_happened
from yaoki.policies.hedge import hedge
from yaoki.policies.latency import LatencyQuantile
from yaoki.policies.pipeline import pipeline
from yaoki.policies.policy import Site


class Script:
    """Attempts that take given times and end in given ways; remembers what became of each."""

    def __init__(self, *plan):
        self.plan = plan
        self.ended = []
        self.calls = 0

    async def __call__(self):
        number = self.calls
        self.calls += 1
        wait_s, outcome = self.plan[min(number, len(self.plan) - 1)]
        try:
            await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            self.ended.append((number, "cancelled"))
            raise
        self.ended.append((number, "done"))
        if isinstance(outcome, Exception) or outcome is ConnectionResetError:
            raise outcome
        return outcome


def rich():
    return Budget(1.0, cap=1000, start=1000)


def test_a_quick_call_sends_no_copy_and_makes_no_task():
    script = Script((0.04, "first"))

    async def main():
        made = []
        asyncio.get_running_loop().set_task_factory(lambda loop, coro, **kw: made.append(coro) or asyncio.Task(coro, loop=loop, **kw))
        answer = await hedge(0.05, idempotent=True)(script)()
        assert not made
        return answer

    assert run(main()) == "first"
    assert script.calls == 1


def test_a_slow_call_gets_a_copy_and_the_copy_wins():
    script, clock = Script((10.0, "first"), (0.1, "copy")), Clock()
    seen = []
    with events.listen(seen.append):
        assert run(hedge(0.05, idempotent=True, budget=rich())(script)(), clock=clock) == "copy"
    assert clock.now - 1_000_003.7 == pytest.approx(0.15)
    assert script.ended == [(1, "done"), (0, "cancelled")]
    assert [type(each).__name__ for each in seen] == ["HedgeSent", "HedgeWon"]


def test_the_first_attempt_wins_although_a_copy_is_under_way():
    script = Script((0.08, "first"), (10.0, "copy"))
    assert run(hedge(0.05, idempotent=True, budget=rich())(script)()) == "first"
    assert script.ended == [(0, "done"), (1, "cancelled")]


def test_a_failure_worth_a_retry_sends_the_copy_at_once():
    script, clock = Script((0.01, ConnectionRefusedError()), (0.01, "copy")), Clock()
    assert run(hedge(5.0, idempotent=True, budget=rich())(script)(), clock=clock) == "copy"
    assert clock.now - 1_000_003.7 == pytest.approx(0.02)


def test_when_all_fail_the_first_error_is_raised_with_the_others_in_its_notes():
    first = ConnectionResetError("first")
    script = Script((0.06, first), (0.03, ConnectionResetError("copy")))
    with pytest.raises(ConnectionResetError, match="first") as raised:
        run(hedge(0.05, idempotent=True, budget=rich())(script)())
    assert "copy" in raised.value.__notes__[0]


class BusyError(Exception):
    """A service that says when to come back."""

    def __init__(self, after_s):
        super().__init__(after_s)
        self.after_s = after_s


classify.register(BusyError, lambda error: THROTTLED._replace(retry_after_s=error.after_s))


def test_a_service_that_asks_for_time_gets_it_and_one_that_asks_for_peace_too():
    script, clock = Script((0.01, BusyError(2.0)), (0.01, "copy")), Clock()
    assert run(hedge(5.0, idempotent=True, budget=rich())(script)(), clock=clock) == "copy"
    assert clock.now - 1_000_003.7 == pytest.approx(2.02)
    script = Script((0.01, BusyError(float("inf"))))
    with pytest.raises(BusyError):
        run(hedge(5.0, most=3, idempotent=True, budget=rich())(script)())
    assert script.calls == 1


def test_plain_functions_heed_it_as_well():
    for after_s, calls in ((0.001, 2), (float("inf"), 1)):
        made = []

        def attempt(made=made, after_s=after_s):
            made.append(1)
            raise BusyError(after_s)

        with pytest.raises(BusyError):
            hedge(5.0, idempotent=True, budget=rich())(attempt)()
        assert len(made) == calls


def test_an_answer_for_good_ends_the_race_whoever_gets_it():
    from yaoki.errors import DeclinedError

    script = Script((10.0, "first"), (0.01, DeclinedError("sold out")))
    with pytest.raises(DeclinedError):
        run(hedge(0.05, idempotent=True, budget=rich())(script)())
    assert script.ended == [(1, "done"), (0, "cancelled")]
    script = Script((0.07, DeclinedError("sold out")), (10.0, "copy"))
    with pytest.raises(DeclinedError):
        run(hedge(0.05, idempotent=True, budget=rich())(script)())
    assert script.ended == [(0, "done"), (1, "cancelled")]


def test_an_empty_budget_means_no_copy_and_no_error():
    script = Script((1.0, "first"))
    assert run(hedge(0.05, idempotent=True, budget=Budget(0.1, start=0))(script)()) == "first"
    assert script.calls == 1


def test_over_many_slow_calls_the_budget_bounds_the_copies():
    script, purse = Script((1.0, "slow")), Budget(0.1, cap=5, start=0)
    guarded = hedge(0.05, idempotent=True, budget=purse)(script)

    async def main():
        for _ in range(200):
            await guarded()

    run(main())
    assert script.calls <= 200 * 1.1 + 1


def test_a_result_that_is_not_acceptable_lets_the_copy_win():
    script = Script((0.01, None), (0.01, "copy"))
    assert run(hedge(5.0, idempotent=True, budget=rich(), accept=lambda result: result is not None)(script)()) == "copy"
    script = Script((0.01, None))
    assert run(hedge(5.0, idempotent=True, budget=rich(), accept=lambda result: result is not None)(script)()) is None
    assert script.calls == 2


def test_losers_that_answer_all_the_same_are_discarded():
    discarded = []

    calls = []

    async def stubborn():
        calls.append(1)
        if len(calls) == 1:
            await asyncio.sleep(0.06)
            return "first"
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
        return "late"

    assert run(hedge(0.05, idempotent=True, budget=rich(), discard=discarded.append)(stubborn)()) == "first"
    assert discarded == ["late"]


def test_a_first_attempt_that_swallows_its_cancellation_does_not_win():
    discarded, calls = [], []

    async def stubborn():
        calls.append(1)
        if len(calls) == 2:
            return "copy"
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "late"

    async def main():
        result = await hedge(0.05, idempotent=True, budget=rich(), discard=discarded.append)(stubborn)()
        assert asyncio.current_task().cancelling() == 0
        return result

    assert run(main()) == "copy"
    assert discarded == ["late"]


def test_no_race_is_left_to_the_garbage_collector():
    scripts = [Script((10.0, "first"), (0.1, "copy")), Script((0.08, "first"), (1.0, "copy")), Script((0.06, ConnectionResetError))]

    async def main():
        while scripts:
            try:
                await hedge(0.05, idempotent=True, budget=rich())(scripts.pop())()
            except ConnectionResetError:
                pass
        return sum(type(each).__name__ == "Race" for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        assert run(main()) == 0
    finally:
        gc.enable()


moments = st.floats(0.0, 0.5, allow_nan=False)


@settings(deadline=None)
@given(moments, st.lists(st.tuples(st.floats(0, 0.4), st.sampled_from(["ok", "fails", "declined"])), min_size=3, max_size=3))
def test_a_caller_cancelled_at_any_moment_leaves_no_task_and_is_seen_as_cancelled(moment, plan):
    from yaoki.errors import DeclinedError

    outcomes = {"ok": "ok", "fails": ConnectionResetError(), "declined": DeclinedError("no")}
    script = Script(*((wait_s, outcomes[what]) for wait_s, what in plan))

    async def main():
        async def caller():
            try:
                return await hedge(0.1, most=3, idempotent=True, budget=rich())(script)()
            except (ConnectionResetError, DeclinedError):
                return "error"

        task = asyncio.ensure_future(caller())
        await asyncio.sleep(moment)
        before = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or before
        assert len(script.ended) == script.calls

    run(main())  # and `run` checks that no task is left


@settings(deadline=None)
@given(st.floats(0.01, 0.3), st.floats(0.0, 0.3), st.floats(0.0, 0.3))
def test_a_timeout_around_the_race_is_still_a_timeout(limit_s, first_s, copy_s):
    script = Script((first_s, "first"), (copy_s, "copy"))

    async def main():
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(limit_s):
                await hedge(0.1, idempotent=True, budget=rich())(script)()
            quickest = min(first_s, 0.1 + copy_s)
            assert quickest <= limit_s + 1e-6
        except TimeoutError:
            assert asyncio.get_running_loop().time() - began == pytest.approx(limit_s)
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_context_variables_reach_every_attempt_and_the_first_one_shares_them():
    where, seen = contextvars.ContextVar("where"), []

    async def attempt():
        seen.append(where.get())
        if len(seen) == 1:
            where.set("set by the first attempt")
            await asyncio.sleep(10)
        return "copy"

    async def main():
        where.set("caller")
        await hedge(0.05, idempotent=True, budget=rich())(attempt)()
        return where.get()

    assert run(main()) == "set by the first attempt"
    assert seen == ["caller", "caller"]


def test_a_quantile_waits_until_enough_latencies_are_known():
    script = Script((0.1, "answer"))
    policy = hedge(quantile=0.9, idempotent=True, budget=rich())
    guarded = policy(script)

    async def main():
        for number in range(99):
            script.plan = ((0.001 * (number + 1), "quick"),)
            await guarded()
        for answer in ("slow", "copy"):  # the hundredth call is the last without a copy
            script.calls, script.plan = 0, ((5.0, "slow"), (0.01, "copy"))
            assert await guarded() == answer

    run(main())
    assert policy.latencies.value_s(1e9) == pytest.approx(0.09, abs=0.02)


@given(st.lists(st.floats(0.001, 10), min_size=20, max_size=400), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_quantile_is_the_value_of_that_rank_among_the_last(values, quantile):
    tracker = LatencyQuantile(quantile, size=100, minimum=20, refresh_s=0.0)
    for value in values:
        tracker.feed(value)
    last = sorted(values[-100:])
    found = tracker.value_s(0.0)
    assert sum(value <= found for value in last) >= quantile * len(last)
    assert sum(value < found for value in last) <= quantile * len(last)


def test_without_a_word_on_idempotence_there_is_no_hedge():
    with pytest.raises(UsageError, match="twice"):
        hedge(0.05)(Script((0, 1)))
    script = Script((1.0, "first"))
    policy = hedge(0.05)
    guarded = policy.wrap(script, Site(service="flights", is_async=True))
    assert guarded is script
    assert "not marked idempotent" in pipeline(policy).explain(Site(service="flights"))


@pytest.mark.parametrize("build", [
    hedge, lambda: hedge(0.1, quantile=0.9), lambda: hedge(0), lambda: hedge(quantile=1.0), lambda: hedge(0.1, most=1),
])
def test_bad_settings_are_refused(build):
    with pytest.raises(ConfigError):
        build()


# ── plain functions ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_slow_plain_function_gets_a_copy_in_a_thread():
    release, numbers, discarded = threading.Event(), itertools.count(1), []

    def attempt():
        if next(numbers) == 1:  # one of the two, whichever thread comes first
            release.wait(100)
            return "first"
        return "copy"

    assert hedge(0.005, idempotent=True, budget=rich(), discard=discarded.append)(attempt)() == "copy"
    release.set()
    for _ in range(20_000):
        if discarded:
            break
        threading.Event().wait(0.005)
    assert discarded == ["first"]


def test_plain_functions_fail_over_and_keep_the_first_error():
    calls = []

    def attempt():
        calls.append(1)
        raise ConnectionRefusedError(f"attempt {len(calls)}")

    with pytest.raises(ConnectionRefusedError, match="attempt 1") as raised:
        hedge(5.0, idempotent=True, budget=rich())(attempt)()
    assert len(calls) == 2
    assert "attempt 2" in raised.value.__notes__[0]


def test_a_plain_caller_waits_no_longer_than_its_deadline():
    release = threading.Event()
    guarded = hedge(0.005, idempotent=True, budget=rich())(lambda: release.wait(100))
    with scope.until(runtime.monotonic() + 0.03), pytest.raises(AttemptTimeoutError):
        guarded()
    release.set()


# ── did it happen? ───────────────────────────────────────────────────────────────────────────────────────────────────

REFUSED, SILENT, DECLINED = ConnectionRefusedError, ConnectionResetError, DeclinedError


@pytest.mark.parametrize(("first", "copy", "certain"), [
    ((0.1, REFUSED), (0.02, REFUSED), True),      # neither was ever sent
    ((0.1, REFUSED), (0.02, SILENT), False),      # the copy may have done it
    ((0.1, DECLINED), (9.0, "late"), False),      # the copy was cut off: it may have done it
    ((9.0, "late"), (0.02, DECLINED), False),     # the first attempt was cut off
])
def test_an_error_of_one_attempt_says_nothing_for_the_others(first, copy, certain):
    def fresh(plan):
        return plan[0], plan[1]("x") if isinstance(plan[1], type) else plan[1]

    with pytest.raises((REFUSED, DECLINED)) as failure:
        run(hedge(0.05, idempotent=True, budget=rich())(Script(fresh(first), fresh(copy)))())
    assert nothing_happened(failure.value) is certain


@pytest.mark.parametrize(("copy", "certain"), [(REFUSED, True), (SILENT, False)])
def test_nor_in_threads(copy, certain):
    sent = threading.Event()

    def ask():
        if not sent.is_set():
            sent.set()
            both.wait(30)
            raise REFUSED("first")
        both.set()
        raise copy("copy")

    both = threading.Event()
    with pytest.raises(REFUSED) as failure:
        hedge(0.001, idempotent=True, budget=rich())(ask)()
    assert nothing_happened(failure.value) is certain


def test_the_copy_that_won_is_called_by_its_number():
    seen = []
    with events.listen(seen.append, kinds=(events.HedgeWon,)):
        # The second copy has been sent as well when the first one answers.
        assert run(hedge(0.05, idempotent=True, most=3, budget=rich())(Script((9.0, "first"), (0.08, "second"), (9.0, "third")))()) == "second"
    assert [each.copy for each in seen] == [2]
