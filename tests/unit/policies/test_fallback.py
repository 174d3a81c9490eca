"""fallback: answers in need, practises in peace, tells when it cannot be trusted."""

from __future__ import annotations

import asyncio
import operator
from concurrent.futures import wait

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import events, runtime
from yaoki.errors import AttemptTimeoutError, ConfigError, DeclinedError, UsageError
from yaoki.policies import bulkhead, nothing_happened, pipeline, retry, sync, timeout
from yaoki.policies.exercise import Exercise
from yaoki.policies.fallback import fallback
from yaoki.policies.sync import submit

DOWN = ConnectionRefusedError("down")


def names(seen):
    return [type(each).__name__ for each in seen]


def test_a_value_answers_when_the_call_fails():
    seen = []
    with events.listen(seen.append):
        assert fallback(value=[])(lambda: (_ for _ in ()).throw(DOWN))() == []

        @fallback(value=0)
        async def ask():
            raise DOWN

        assert run(ask()) == 0
    assert names(seen) == ["FallbackUsed", "FallbackUsed"]


def test_an_answer_and_a_bug_are_not_fallen_back_from():
    for error in (DeclinedError("no"), TypeError("a bug")):
        with pytest.raises(type(error)):
            fallback(value=1)(lambda error=error: (_ for _ in ()).throw(error))()


def test_on_names_what_is_fallen_back_from():
    assert fallback(value=1, on=KeyError)(lambda: {}["x"])() == 1
    assert fallback(value=1, on=lambda error: "x" in str(error))(lambda: {}["x"])() == 1
    with pytest.raises(ConnectionRefusedError):
        fallback(value=1, on=KeyError)(lambda: (_ for _ in ()).throw(DOWN))()


def test_what_may_have_happened_does_not_happen_elsewhere_too():
    async def other(_seat):
        return "other"

    async def slow(_seat):
        await asyncio.sleep(10)

    def guarded(**settings):
        return pipeline(fallback(other, bulkhead=bulkhead(5), share=0, **settings), timeout(0.1))(slow)

    with pytest.raises(AttemptTimeoutError):
        run(guarded()(1))
    assert run(guarded(idempotent=True)(1)) == "other"


def test_the_real_error_is_raised_when_the_fallback_fails_as_well_and_keeps_its_cause():
    cause = ValueError("why")

    def ask():
        raise DOWN from cause

    def other():
        raise RuntimeError("other is down")

    seen = []
    with events.listen(seen.append), pytest.raises(ConnectionRefusedError) as raised:
        fallback(other, bulkhead=bulkhead(1))(ask)()
    assert raised.value.__cause__ is cause
    assert "other is down" in raised.value.__notes__[-1]
    assert names(seen) == ["FallbackFailed"]
    assert seen[0].exercise is False


def test_the_bulkhead_keeps_the_load_of_an_outage_from_the_fallback():
    busy = []

    async def other():
        busy.append(1)
        await asyncio.sleep(1)
        busy.pop()
        return "other"

    @fallback(other, bulkhead=bulkhead(3))
    async def ask():
        raise DOWN

    async def main():
        outcomes = await asyncio.gather(*(ask() for _ in range(10)), return_exceptions=True)
        assert outcomes.count("other") == 3
        assert sum(isinstance(each, ConnectionRefusedError) for each in outcomes) == 7

    run(main())


def test_a_share_of_healthy_calls_runs_it_too_and_nobody_waits_for_that():
    clock, ran, seen = Clock(), [], []

    async def other(n):
        await asyncio.sleep(5)
        ran.append(n)
        return n if n % 100 else -1

    @fallback(other, bulkhead=bulkhead(100), share=0.05, compare=operator.eq)
    async def ask(n):
        return n

    async def main():
        began = clock.now
        for number in range(1, 1001):
            await ask(number)
        assert clock.now == began
        await asyncio.sleep(10)

    with events.listen(seen.append):
        run(main(), clock=clock)
    assert len(ran) == 50
    assert names(seen) == ["FallbackDiffered"] * len([n for n in ran if n % 100 == 0])
    assert seen


def test_practice_runs_in_the_bulkhead_and_steps_back_when_it_is_full():
    busy, most = [], []

    async def other():
        busy.append(1)
        most.append(len(busy))
        await asyncio.sleep(1)
        busy.pop()

    policy = fallback(other, bulkhead=bulkhead(2), share=1.0)

    @policy
    async def ask():
        return 1

    async def main():
        await asyncio.gather(*(ask() for _ in range(50)))
        await asyncio.sleep(2)

    run(main())
    assert max(most) == 2
    assert policy.exercise.failed == 0  # not run is not failed


def test_a_fallback_that_fails_in_practice_is_told_and_then_alarmed_once():
    clock, seen = Clock(), []

    async def other():
        raise RuntimeError("password rotated")

    @fallback(other, bulkhead=bulkhead(2), share=0.1, window=100)
    async def ask():
        return 1

    async def main():
        for _ in range(300):
            await ask()
            await asyncio.sleep(1)

    with events.listen(seen.append):
        run(main(), clock=clock)
    assert names(seen).count("FallbackFailed") == 30
    assert names(seen).count("FallbackUnproven") == 1
    assert "password rotated" in seen[0].error


def test_rare_calls_still_practise_within_the_window(monkeypatch):
    clock, ran, practices = Clock(), [], []
    monkeypatch.setattr(sync, "submit", lambda fn, *args: practices.append(submit(fn, *args)))

    @fallback(lambda: ran.append(clock.now), bulkhead=bulkhead(2), share=0.001, window=3600)
    def ask():
        return 1

    with runtime.use(clock):
        for _ in range(48):  # one call every half hour, one in a thousand: without the window, once in three weeks
            ask()
            wait(practices, 100)  # in half an hour a thread comes to an end, and leaves its place
            clock.now += 1800
    assert len(ran) >= 23


def test_check_tells_of_a_fallback_nobody_has_called():
    clock, seen = Clock(), []
    policy = fallback(lambda: 1, bulkhead=bulkhead(1), window=60, share=0.0001)
    with runtime.use(clock), events.listen(seen.append):
        policy(lambda: 1)()
        assert policy.check()
        clock.now += 61
        assert not policy.check()
        assert not policy.check()
    assert names(seen) == ["FallbackUnproven"]
    assert "lambda" in seen[0].service  # says whose fallback it is


@given(st.floats(0.001, 1.0), st.integers(1, 500))
def test_practice_is_spread_evenly(share, calls):
    exercise = Exercise(share, 1e9)
    ran = sum(exercise.is_due(float(number) / 1000) for number in range(calls))
    assert abs(ran - share * calls) <= 1


def test_call_gives_the_fallback_the_arguments_without_the_callee():
    policy = fallback(lambda a, b: a + b, bulkhead=bulkhead(1))

    def down(a, b):
        raise DOWN

    assert policy.call(down, 2, b=3) == 5


def test_a_cancelled_call_is_not_fallen_back_from():
    ran = []

    @fallback(value=1)
    async def ask():
        try:
            await asyncio.sleep(10)
        finally:
            ran.append(1)

    async def main():
        task = asyncio.ensure_future(ask())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())


def test_explain_says_what_is_risky():
    text = pipeline(retry(3), fallback(len, bulkhead=bulkhead(7), share=0)).explain()
    assert "never exercised" in text
    assert "inside a retry" in text
    assert "not marked idempotent" in text
    assert "bulkhead(7)" in text
    assert "compared with nothing" in pipeline(fallback(len, bulkhead=bulkhead(7))).explain()


@pytest.mark.parametrize(("build", "error"), [
    (fallback, ConfigError), (lambda: fallback(len, value=1), ConfigError), (lambda: fallback(3), ConfigError),
    (lambda: fallback(len), ConfigError), (lambda: fallback(len, bulkhead=bulkhead(1), share=2), ConfigError),
    (lambda: fallback(len, bulkhead=bulkhead(1), window=0), ConfigError),
    (lambda: fallback(len, bulkhead=bulkhead(1))(asyncio.sleep), UsageError),
])
def test_bad_settings_are_refused(build, error):
    with pytest.raises(error):
        build()


@pytest.mark.parametrize(("second", "certain"), [(ConnectionRefusedError, True), (ConnectionResetError, False)])
def test_what_the_fallback_may_have_done_leaves_the_services_error_in_doubt(second, certain):
    def other():
        raise second("other")

    def ask():
        raise ConnectionRefusedError("down")

    async def other_async():
        other()

    async def ask_async():
        ask()

    for call in (fallback(other, bulkhead=bulkhead(1))(ask), lambda: run(fallback(other_async, bulkhead=bulkhead(1))(ask_async)())):
        with pytest.raises(ConnectionRefusedError, match="down") as failure:
            call()
        assert nothing_happened(failure.value) is certain


def test_a_doubt_of_an_earlier_call_keeps_no_later_one_from_its_fallback():
    """One error object raised again and again, as `Mock(side_effect=error)` does."""
    answers = [ConnectionResetError("other"), "other"]

    def other():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    kept = ConnectionRefusedError("down")
    ask = fallback(other, bulkhead=bulkhead(1))(lambda: (_ for _ in ()).throw(kept))
    with pytest.raises(ConnectionRefusedError):
        ask()
    assert not nothing_happened(kept)
    assert ask() == "other"
