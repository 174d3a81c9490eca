"""timeout and deadline: exact rules of cancellation, many calls on one timer, and what travels on the wire."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import runtime
from yaoki.errors import AttemptTimeoutError, ConfigError, DeadlineError, InDoubtError
from yaoki.policies import deadline, detached, hedge, pipeline, remaining, sync, timeout
from yaoki.policies.deadline import decode_grpc, decode_ms, encode_grpc, encode_ms


async def hang() -> None:
    await asyncio.Event().wait()


async def swallow() -> str:
    try:
        await hang()
    except asyncio.CancelledError:
        return "swallowed"
    raise AssertionError


@pytest.mark.parametrize("make", [timeout, deadline])
def test_a_call_that_takes_too_long_is_cut_off_then_and_may_have_happened(make) -> None:
    async def main() -> None:
        began = runtime.monotonic()
        with pytest.raises(AttemptTimeoutError) as failure:
            await make(1.5).call(hang)
        assert runtime.monotonic() - began == pytest.approx(1.5)
        assert isinstance(failure.value, TimeoutError | InDoubtError)
        assert failure.value.by == ("timeout" if make is timeout else "deadline")
        assert isinstance(failure.value.__cause__, asyncio.CancelledError)
        assert asyncio.current_task().cancelling() == 0

    run(main())


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 3)), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_one_timer_cuts_off_each_of_many_calls_at_its_own_time(calls: list[tuple[float, float]]) -> None:
    policy = timeout(1.0)

    async def one(start_s: float, length_s: float) -> None:
        await asyncio.sleep(start_s)
        began = runtime.monotonic()
        try:
            await policy.call(asyncio.sleep, length_s)
        except AttemptTimeoutError:
            assert length_s >= 1.0 - 1e-6
            assert runtime.monotonic() - began == pytest.approx(1.0, abs=1e-6)
        else:
            assert length_s <= 1.0 + 1e-6
        assert asyncio.current_task().cancelling() == 0

    async def main() -> None:
        await asyncio.gather(*(one(*call) for call in calls))
        assert policy._timers.under_way() == 0

    run(main())


def test_a_cancellation_from_outside_stays_one_even_in_the_same_instant() -> None:
    async def main() -> None:
        for order in ("before", "after"):
            policy = timeout(1.0)
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(policy.call(hang))
            if order == "before":
                loop.call_later(1.0, task.cancel)
            await asyncio.sleep(0)
            if order == "after":
                loop.call_later(1.0, task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelling() == 1

    run(main())


def test_an_outer_asyncio_timeout_is_left_its_own() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError) as failure:
            async with asyncio.timeout(0.5):
                await timeout(1.0).call(hang)
        assert not isinstance(failure.value, AttemptTimeoutError)
        with pytest.raises(AttemptTimeoutError):
            async with asyncio.timeout(2):
                await timeout(1.0).call(hang)
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_code_that_swallows_the_cancellation_keeps_its_value_and_leaves_no_cancellation_behind() -> None:
    async def main() -> None:
        assert await timeout(1.0).call(swallow) == "swallowed"
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(1)

    run(main())


def test_a_timeout_while_cleaning_up_after_a_cancellation_is_still_a_timeout() -> None:
    async def main() -> None:
        ends: list[str] = []

        async def work() -> None:
            try:
                await hang()
            finally:
                try:
                    await timeout(1.0).call(hang)
                except BaseException as error:
                    ends.append(type(error).__name__)

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ends == ["AttemptTimeoutError"]

    run(main())


def test_one_policy_serves_loops_in_several_threads() -> None:
    policy, outcomes = timeout(0.02), []  # each loop in a time of its own: what takes no time is never too late

    async def main() -> None:
        for _ in range(5):
            await policy.call(asyncio.sleep, 0)
            try:
                await policy.call(hang)
            except AttemptTimeoutError:
                outcomes.append(threading.get_ident())

    threads = [threading.Thread(target=lambda: run(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert len(outcomes) == 15


def test_a_task_that_runs_in_another_thread_at_this_moment_is_not_taken_for_ours() -> None:
    policy, busy, release = timeout(0.05), threading.Event(), threading.Event()

    async def elsewhere() -> None:
        await policy.call(asyncio.sleep, 0)
        busy.set()
        release.wait(100)  # its loop runs this very task all the while

    thread = threading.Thread(target=lambda: run(elsewhere()))
    thread.start()
    assert busy.wait(100)

    async def main() -> None:
        async with asyncio.timeout(5):
            with pytest.raises(AttemptTimeoutError):
                await policy.call(hang)

    try:
        run(main())
    finally:
        release.set()
        thread.join(100)


def test_the_callee_is_told_what_remains_of_its_attempt() -> None:
    async def main() -> None:
        async def look() -> float:
            return remaining()

        assert await pipeline(deadline(5.0), timeout(1.0)).call(look) == pytest.approx(1.0)
        assert await pipeline(deadline(0.5), timeout(1.0)).call(look) == pytest.approx(0.5)
        assert remaining() == inf

    run(main())


def test_the_attempt_gets_what_remains_when_that_is_less() -> None:
    async def main() -> None:
        policy = pipeline(deadline(1.0), timeout(5.0))
        began = runtime.monotonic()
        with pytest.raises(AttemptTimeoutError) as failure:
            await policy.call(hang)
        assert failure.value.by == "deadline"
        assert runtime.monotonic() - began == pytest.approx(1.0)

    run(main())


def test_with_too_little_time_left_nothing_is_begun() -> None:
    calls = []
    with runtime.use(Clock()) as clock, deadline(1.0):
        clock.now += 0.999
        with pytest.raises(DeadlineError) as refused:
            deadline(5.0).call(calls.append, 1)
        assert refused.value.remaining == pytest.approx(0.001)
        clock.now += 1
        with pytest.raises(DeadlineError):
            timeout(5.0).call(calls.append, 1)
    assert calls == []


def test_a_plain_function_is_told_what_remains_and_its_late_answer_is_kept() -> None:
    with runtime.use(Clock()) as clock:
        def work() -> tuple[float, str]:
            left = remaining()
            clock.now += 60
            return left, "late, but done"

        left, answer = pipeline(deadline(5.0), timeout(1.0)).call(work)
        assert left == pytest.approx(1.0)
        assert answer == "late, but done"
        assert remaining() == inf


def test_a_thread_is_given_up_when_the_time_is_over() -> None:
    release = threading.Event()
    with pytest.raises(AttemptTimeoutError):
        timeout(0.05, thread=True).call(release.wait, 100)
    release.set()
    policy = timeout(100, thread=True)
    assert 0 < policy.call(remaining) <= 100
    with pytest.raises(TimeoutError, match="mine"):
        policy.call(lambda: (_ for _ in ()).throw(TimeoutError("mine")))


def test_threads_that_wait_for_threads_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hedge begins each attempt in a thread, and a timeout inside it another. Two threads, two calls: none left for the timeouts?"""
    monkeypatch.setattr(sync, "THREADS", 2)
    monkeypatch.setattr(sync, "_pools", [])
    both = threading.Barrier(2, timeout=60)

    @hedge(600.0, idempotent=True)
    def ask() -> str:
        both.wait()  # now both threads of the pool are taken
        return timeout(60.0, thread=True).call(lambda: "answered")

    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(ask())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pool in sync._pools:
        pool.shutdown()
    assert answers == ["answered"] * 2


def test_a_child_task_inherits_the_deadline_and_detached_work_does_not() -> None:
    async def main() -> None:
        async def look() -> float:
            return remaining()

        async with deadline(3.0):
            assert await asyncio.ensure_future(look()) == pytest.approx(3.0)
            with detached():
                outliving = asyncio.ensure_future(look())
        assert await outliving == inf

    run(main())


def test_a_length_may_be_a_timedelta_and_nothing_silly() -> None:
    assert timeout(timedelta(milliseconds=250)).timeout_s == 0.25
    for wrong in (0, -1, inf - inf, "1", None, True):
        with pytest.raises(ConfigError):
            timeout(wrong)


# ── on the wire ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.floats(0, 6e5))
def test_what_is_sent_is_never_more_than_what_remains(left_s: float) -> None:
    sent = encode_ms(left_s)
    assert sent is not None
    assert left_s - 0.0031 <= decode_ms(sent) <= left_s or left_s < 0.003
    grpc = encode_grpc(left_s)
    assert grpc is not None
    assert len(grpc) <= 9
    assert decode_grpc(grpc) == pytest.approx(left_s, abs=0.001, rel=1e-3)


@given(st.text(max_size=15))
def test_rubbish_in_a_header_is_no_deadline(text: str) -> None:
    for decoded in (decode_ms(text), decode_grpc(text)):
        assert decoded is None or 0 <= decoded < 1e12


def test_known_values_of_the_wire() -> None:
    assert encode_ms(inf) is None
    assert encode_grpc(inf) is None
    assert (encode_ms(1.5), decode_ms("1498"), decode_ms("-5"), decode_ms("1e3")) == ("1498", 1.498, None, None)
    assert [decode_grpc(text) for text in ("1H", "2M", "3S", "4m", "5u", "6n")] == pytest.approx([3600, 120, 3, 0.004, 5e-6, 6e-9])
    assert [decode_grpc(text) for text in ("123456789S", "1x", "S", "")] == [None] * 4
