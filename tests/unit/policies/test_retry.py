"""retry: what is repeated, what is not, and what the caller is told."""

from __future__ import annotations

import asyncio
import errno
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from virtual_time import Clock, run
from yaoki import events, runtime
from yaoki.errors import BreakerOpenError, ConfigError
from yaoki.policies import (
    Failure,
    attempts_made,
    backoff,
    budget,
    classify,
    deadline,
    nothing_happened,
    pipeline,
    retry,
    scope,
)
from yaoki.policies.budget import Budget, for_service
from yaoki.service import Service


class BusyError(Exception):
    pass


classify.register(BusyError, lambda error: Failure("throttled", happened=False, retry_after_s=error.args[0]))


class Callee:
    """Fails with the errors given, one a call, and then returns how often it was called."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.calls


def waits(policy: Any, *failures: Exception) -> list[float]:
    """What the policy slept between attempts, whatever came of the call."""
    clock = Clock()
    with runtime.use(clock):
        try:
            policy.call(Callee(*failures))
        except Exception:
            pass
    return clock.slept


def suppressed(call: Callable[[], Any]) -> list[str]:
    """The reasons that listeners were told."""
    heard: list[events.RetrySuppressed] = []
    with events.listen(heard.append, kinds=(events.RetrySuppressed,)), runtime.use(Clock()):
        try:
            call()
        except Exception:
            pass
    return [each.reason for each in heard]


def test_attempts_count_the_first() -> None:
    callee = Callee(*[ConnectionRefusedError()] * 9)
    with pytest.raises(ConnectionRefusedError), runtime.use(Clock()):
        retry(3).call(callee)
    assert callee.calls == 3


def test_a_call_that_succeeds_later_returns_its_value() -> None:
    with runtime.use(Clock()):
        assert retry(3).call(Callee(ConnectionRefusedError(), ConnectionRefusedError())) == 3


def test_sync_and_async_decide_the_same() -> None:
    async def main() -> list[float]:
        callee = Callee(*[ConnectionRefusedError()] * 3)

        async def aio() -> int:
            return callee()

        began = runtime.monotonic()
        assert await retry(4, backoff.linear(1, cap=9, jitter="none")).call(aio) == 4
        return [runtime.monotonic() - began]

    assert run(main()) == [pytest.approx(6)]
    assert waits(retry(4, backoff.linear(1, cap=9, jitter="none")), *[ConnectionRefusedError()] * 3) == [1, 2, 3]


def test_the_real_error_is_raised_with_its_history_in_the_notes() -> None:
    last = ConnectionRefusedError("third")
    with pytest.raises(ConnectionRefusedError) as failure, runtime.use(Clock()):
        retry(3, backoff.fixed(0.5), on=OSError, idempotent=True).call(Callee(TimeoutError(), ConnectionResetError(), last))
    assert failure.value is last
    assert attempts_made(last) == 3
    assert last.__notes__ == [
        "yaoki: 3 attempts (TimeoutError, ConnectionResetError, ConnectionRefusedError), 1.00 s from the first failure to the last"]
    assert not nothing_happened(last), "the first attempt may have happened, whatever the last one says"


def test_nothing_is_kept_of_an_error_that_was_retried() -> None:
    import gc
    import weakref

    class Refused(ConnectionRefusedError):
        pass

    error = Refused()
    gone = weakref.ref(error)
    callee = Callee(error)
    del error
    gc.disable()
    try:
        with runtime.use(Clock()):
            retry(2).call(callee)
        assert gone() is None, "a frame keeps the error, and the error keeps the frame"
    finally:
        gc.enable()


# ── what is worth a retry ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("error", "settings", "calls"), [
    (ConnectionRefusedError(), {}, 2),                                    # certainly did not happen
    (ConnectionResetError(), {}, 1),                                      # may have happened, and nobody said it is idempotent
    (ConnectionResetError(), {"idempotent": True}, 2),
    (ConnectionResetError(), {"on": ConnectionError}, 1),                 # naming it does not make it harmless
    (ConnectionResetError(), {"on": ConnectionError, "idempotent": True}, 2),
    (ValueError(), {}, 1),                                                # no table knows it
    (ValueError(), {"on": ValueError}, 2),                                # taken at one's word
    (ValueError(), {"on": ValueError, "idempotent": False}, 1),
    (ValueError("no"), {"on": lambda error: error.args == ("yes",)}, 1),
    (ValueError("yes"), {"on": lambda error: error.args == ("yes",)}, 2),
    (KeyError(), {"on": (ValueError, KeyError)}, 2),
    (BreakerOpenError("x"), {}, 1),                                       # refused on this side: asking again at once is no help
    (BreakerOpenError("x"), {"on": BreakerOpenError}, 2),
    (BusyError(0.1), {}, 2),
])
def test_what_is_repeated(error: Exception, settings: dict[str, Any], calls: int) -> None:
    callee = Callee(error)
    with runtime.use(Clock()):
        try:
            retry(2, **settings).call(callee)
        except Exception as raised:
            assert raised is error  # noqa: PT017
    assert callee.calls == calls


def test_a_call_that_may_have_happened_says_why_it_is_not_repeated() -> None:
    error = ConnectionResetError()
    with pytest.raises(ConnectionResetError):
        retry(3).call(Callee(error))
    assert "idempotent=True" in error.__notes__[0]
    assert suppressed(lambda: retry(3).call(Callee(ConnectionResetError()))) == ["not_idempotent"]


def test_the_service_and_the_call_may_say_that_repeating_is_harmless() -> None:
    with runtime.use(Clock()):
        service = Service("s", policy=retry(2, budget=False))
        with pytest.raises(ConnectionResetError):
            service.call(Callee(ConnectionResetError()))
        assert service.call(Callee(ConnectionResetError()), idempotent=True) == 2
        assert Service("s2", policy=retry(2, budget=False), idempotent=True).call(Callee(ConnectionResetError())) == 2


def test_an_unwanted_result_is_asked_for_again_and_the_last_one_returned() -> None:
    results = iter([None, None, 7])
    with runtime.use(Clock()):
        assert retry(3, on_result=lambda result: result is None).call(lambda: next(results)) == 7
        assert retry(3, on_result=lambda result: result is None).call(lambda: None) is None


def test_cancellation_types_cannot_be_named() -> None:
    with pytest.raises(ConfigError, match="never retried"):
        retry(3, on=asyncio.CancelledError)


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_retry_after_is_waited_for_when_it_is_longer_than_the_backoff() -> None:
    assert waits(retry(2, backoff.fixed(0.1)), BusyError(3.0)) == [3.0]
    assert waits(retry(2, backoff.fixed(0.1)), BusyError(0.01)) == [0.1]


def test_retry_after_beyond_what_remains_fails_at_once() -> None:
    clock = Clock()
    with runtime.use(clock), pytest.raises(BusyError) as failure:
        pipeline(deadline(2), retry(2, backoff.fixed(0.1))).call(Callee(BusyError(3.0)))
    assert clock.slept == []
    assert "longer wait" in failure.value.__notes__[0]


def test_a_service_that_says_not_to_come_back_is_not_asked_again() -> None:
    assert suppressed(lambda: retry(3).call(Callee(BusyError(float("inf"))))) == ["retry_after"]


def test_a_wait_that_would_pass_the_deadline_is_not_begun() -> None:
    assert waits(pipeline(deadline(2), retry(9, backoff.fixed(0.9))), *[ConnectionRefusedError()] * 9) == [0.9, 0.9]
    assert suppressed(lambda: pipeline(deadline(2), retry(9, backoff.fixed(3))).call(Callee(ConnectionRefusedError()))) == ["deadline"]


# ── the budget ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_spent_budget_raises_the_real_error_and_says_so() -> None:
    shared = budget(0.1, start=1)
    first, second = retry(9, backoff.NONE, budget=shared), retry(9, backoff.NONE, budget=shared)
    error = ConnectionRefusedError()
    with pytest.raises(ConnectionRefusedError):
        first.call(Callee(ConnectionRefusedError(), error))
    assert "budget" in error.__notes__[0]
    assert suppressed(lambda: second.call(Callee(ConnectionRefusedError()))) == ["budget"]


def test_successes_fill_the_budget_up_to_its_cap() -> None:
    made = Budget(0.1, cap=2, start=0)
    for _ in range(100):
        made.deposit()
    assert [made.withdraw() for _ in range(3)] == [True, True, False]
    fresh = Budget(0.1, start=0)
    for _ in range(10):
        assert not fresh.withdraw()
        fresh.deposit()
    assert fresh.withdraw()


def test_services_of_one_name_share_a_budget_and_others_do_not() -> None:
    one, same, other = (retry(3).bind(Service(name)._site())["budget"] for name in ("a", "a", "b"))
    assert one is same
    assert one is not other
    assert for_service("a") is one
    assert retry(3).bind(Service("a")._site()) is not None
    assert retry(3, budget=False).bind(Service("a")._site())["budget"] is None


# ── retries inside each other ────────────────────────────────────────────────────────────────────────────────────────


def test_three_layers_of_three_attempts_are_three_calls_not_twenty_seven() -> None:
    callee = Callee(*[ConnectionRefusedError()] * 99)
    outer, middle, inner = (retry(3, backoff.NONE) for _ in range(3))
    with pytest.raises(ConnectionRefusedError) as failure:
        outer.call(lambda: middle.call(lambda: inner.call(callee)))
    assert callee.calls == 3
    assert attempts_made(failure.value) == 3


def test_a_wrapped_error_is_still_known_to_have_been_retried() -> None:
    callee = Callee(*[ConnectionRefusedError()] * 99)

    def wraps() -> int:
        try:
            return retry(3, backoff.NONE).call(callee)
        except ConnectionRefusedError as error:
            raise ValueError("booking failed") from error

    with pytest.raises(ValueError, match="booking failed"):
        retry(3, backoff.NONE, on=ValueError).call(wraps)
    assert callee.calls == 3


def test_inside_a_second_attempt_an_inner_retry_makes_one() -> None:
    seen: list[int] = []
    callee = Callee(*[ConnectionRefusedError()] * 99)

    def work() -> int:
        seen.append(scope.attempt())
        if len(seen) == 1:
            raise ConnectionRefusedError
        return retry(5, backoff.NONE).call(callee)

    with pytest.raises(ConnectionRefusedError):
        retry(2, backoff.NONE).call(work)
    assert seen == [1, 2]
    assert callee.calls == 1


def test_nested_true_multiplies_on_purpose() -> None:
    callee = Callee(*[ConnectionRefusedError()] * 99)
    with pytest.raises(ConnectionRefusedError):
        retry(3, backoff.NONE, nested=True).call(lambda: retry(2, backoff.NONE, nested=True).call(callee))
    assert callee.calls == 6


# ── events and settings ──────────────────────────────────────────────────────────────────────────────────────────────


def test_listeners_hear_of_each_failure_and_each_wait() -> None:
    heard: list[Any] = []
    service = Service("hotel", policy=retry(3, backoff.fixed(2.0), budget=False))
    with events.listen(heard.append), runtime.use(Clock()):
        service.call(Callee(ConnectionRefusedError(), ConnectionRefusedError()))
    assert [(type(each).__name__, getattr(each, "attempt", 0)) for each in heard] == [
        ("AttemptFailed", 1), ("RetryScheduled", 2), ("AttemptFailed", 2), ("RetryScheduled", 3), ("CallFinished", 0)]
    assert {each.service for each in heard} == {"hotel"}
    assert heard[-1].outcome == "ok_after_retry"
    assert heard[-1].attempts == 3
    assert heard[1].delay_s == 2.0


@pytest.mark.parametrize("make", [
    lambda: retry(0), lambda: retry(True), lambda: retry(2.5), lambda: retry(3, 0.5), lambda: retry(3, on="ValueError"), lambda: retry(3, on=(1,)),
    lambda: retry(3, on=KeyboardInterrupt), lambda: budget(0), lambda: budget(2), lambda: budget(cap=0.5), lambda: budget(start=99),
])
def test_a_wrong_setting_is_refused_at_construction(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert refused.value.do
    assert pickle.loads(pickle.dumps(refused.value)).message == refused.value.message


# ── one error object raised again and again, and calls that are cancelled while they wait ────────────────────────────


def test_an_error_object_that_is_raised_again_and_again_is_retried_in_every_call() -> None:
    """`Mock(side_effect=error)` does that, and so does a library that keeps its exceptions."""
    kept = ConnectionResetError("kept")
    calls = 0

    def ask() -> None:
        nonlocal calls
        calls += 1
        raise kept

    with runtime.use(Clock()):
        for policy in (retry(3, idempotent=True), retry(2, idempotent=True)):
            for _ in range(2):
                before = calls
                with pytest.raises(ConnectionResetError):
                    policy.call(ask)
                assert calls - before == policy.attempts
                assert attempts_made(kept) == policy.attempts
                assert len(kept.__notes__) == 1, "the history of the last call, not of all"


def test_of_nested_retries_still_only_the_inner_one_repeats_such_an_error() -> None:
    kept = ConnectionResetError("kept")
    calls = 0

    @retry(3, idempotent=True)
    def ask() -> None:
        nonlocal calls
        calls += 1
        raise kept

    outer = retry(3, idempotent=True)(ask)
    with runtime.use(Clock()):
        for _ in range(3):
            before = calls
            with pytest.raises(ConnectionResetError):
                outer()
            assert calls - before == 3


def test_a_function_that_calls_itself_is_repeated_where_it_fails_only() -> None:
    calls = 0

    @retry(3, idempotent=True)
    def walk(depth: int) -> None:
        nonlocal calls
        if depth:
            walk(depth - 1)
        else:
            calls += 1
            raise ConnectionResetError

    with runtime.use(Clock()), pytest.raises(ConnectionResetError):
        walk(4)
    assert calls == 3


def test_an_attempt_that_was_paid_for_and_never_sent_gives_its_token_back() -> None:
    tokens = budget(0.1, start=5.0)
    policy = retry(3, backoff.fixed(10.0), budget=tokens)

    async def ask() -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "down")

    async def main() -> None:
        call = asyncio.ensure_future(policy.call(ask))
        await asyncio.sleep(1.0)
        assert tokens.tokens == 4.0
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    run(main())
    assert tokens.tokens == 5.0


def test_what_an_inner_retry_left_in_doubt_stays_in_doubt_when_an_outer_one_goes_on() -> None:
    failures: list[Exception] = [ConnectionResetError(), ConnectionRefusedError(errno.ECONNREFUSED, "down")]
    inner = retry(2, idempotent=True)(Callee(*failures, *(ConnectionRefusedError(errno.ECONNREFUSED, "down") for _ in range(9))))
    with runtime.use(Clock()), pytest.raises(ConnectionRefusedError) as failure:
        retry(2, idempotent=True, nested=True).call(inner)
    assert not nothing_happened(failure.value)
