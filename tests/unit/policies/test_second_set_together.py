"""All policies of the second set at once, in drawn orders, with drawn outcomes and cancellations at drawn moments.

Whatever is drawn: a value or the service's own error comes out (or a refusal of ours), a cancelled call is seen as
cancelled, no task is left, and every count, place and permit is as it was found.
"""

from __future__ import annotations

import asyncio
import contextvars

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import runtime
from yaoki.errors import DeclinedError, YaokiError
from yaoki.policies import (
    Budget,
    adaptive_limit,
    bulkhead,
    cache,
    deadline,
    failover,
    fallback,
    hedge,
    pipeline,
    rate_limit,
    retry,
    single_flight,
    throttle,
    timeout,
)
from yaoki.service import Service

where: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="nowhere")


async def other(number):
    await asyncio.sleep(0.01)
    return number


MAKERS = {
    "fallback": lambda: fallback(other, bulkhead=bulkhead(3), share=0.3, window=5, idempotent=True),
    "cache": lambda: cache(ttl=1, stale_if_error=5, key=lambda number: number % 3),
    "single_flight": lambda: single_flight(key=lambda number: number % 3),
    "deadline": lambda: deadline(1.5),
    "retry": lambda: retry(3, idempotent=True),
    "hedge": lambda: hedge(0.05, idempotent=True),
    "failover": lambda: failover(["a", "b", "c"], idempotent=True, eject_s=0.5),
    "rate_limit": lambda: rate_limit(50, burst=3, max_wait=0.3),
    "throttle": lambda: throttle(window=2),
    "bulkhead": lambda: bulkhead(3, queue=3),
    "adaptive_limit": lambda: adaptive_limit(window=0.2),
    "timeout": lambda: timeout(0.2),
}
OUTCOMES = {"ok": None, "refused": ConnectionRefusedError, "reset": ConnectionResetError, "declined": lambda: DeclinedError("no"),
            "bug": lambda: TypeError("a bug"), "slow": None}
orders = st.permutations(sorted(MAKERS)).flatmap(lambda names: st.integers(1, len(names)).map(lambda count: names[:count]))
calls = st.lists(st.tuples(st.floats(0, 0.2), st.sampled_from(sorted(OUTCOMES)), st.one_of(st.none(), st.floats(0, 0.6))),
                 min_size=1, max_size=12)


def at_rest(policies):
    """What must be as found once every call has ended."""
    found = []
    for policy in policies:
        if policy.kind == "failover":
            found += [each.in_flight for each in policy.endpoints.endpoints]
        elif policy.kind == "limit":
            found.append(policy.in_flight)
        elif policy.kind == "bulkhead":
            found += [policy.places.in_use, len(policy.places.waiting)]
        elif policy.kind == "fallback":
            found += [policy.bulkhead.places.in_use, len(policy._practising)]
    return found


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(orders, calls, st.booleans(), st.integers(0, 2**20))
def test_any_order_any_outcome_any_cancellation(names, plan, on_a_service, seed):
    policies = [MAKERS[name]() for name in names]
    outcomes = iter([what for _, what, _ in plan] * 40)

    async def ask(number):
        assert where.get() == f"call {number % 3}" or "cache" in names or "single_flight" in names
        what = next(outcomes)
        await asyncio.sleep(5.0 if what == "slow" else 0.02)
        if OUTCOMES[what]:
            raise OUTCOMES[what]()  # noqa: RSE102 - a maker, not a class
        return number

    made = pipeline(*policies)
    guarded = Service("asked", policy=made, idempotent=True)(ask) if on_a_service else made(ask)

    async def one(number, begins_s, cancel_s):
        await asyncio.sleep(begins_s)
        where.set(f"call {number % 3}")
        task = asyncio.ensure_future(guarded(number))
        if cancel_s is None:
            try:
                assert (await task) % 3 == number % 3
            except (YaokiError, OSError, TypeError, TimeoutError):
                pass
            return
        await asyncio.sleep(cancel_s)
        over = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or over
        if not task.cancelled():
            task.exception()

    async def main():
        await asyncio.gather(*(one(number, begins_s, cancel_s) for number, (begins_s, _, cancel_s) in enumerate(plan)))
        await asyncio.sleep(30)  # practice runs, early refreshes and heartbeats come to their end
        assert not any(at_rest(policies))

    run(main(), clock=Clock(seed=seed))
    assert made.explain()


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.permutations(["cache", "deadline", "failover", "rate_limit", "retry", "single_flight", "throttle", "bulkhead",
                        "adaptive_limit", "timeout"]), st.lists(st.sampled_from(["ok", "refused", "declined", "bug"]), min_size=1, max_size=15))
def test_plain_functions_in_any_order(names, plan):
    policies = [MAKERS[name]() for name in names]
    outcomes = iter(plan * 40)

    def ask(number):
        what = next(outcomes)
        if OUTCOMES[what]:
            raise OUTCOMES[what]()  # noqa: RSE102 - a maker, not a class
        return number

    guarded = pipeline(*policies)(ask)
    with runtime.use(Clock()):
        for number in range(len(plan)):
            try:
                assert guarded(number) % 3 == number % 3
            except (YaokiError, OSError, TypeError):
                pass
    assert not any(at_rest(policies))


def test_a_hedges_copy_goes_to_another_endpoint():
    asked = []
    endpoints = failover(["a", "b"], idempotent=True)

    @pipeline(hedge(0.05, idempotent=True, budget=Budget(start=1)), endpoints)
    async def ask():
        from yaoki.policies import endpoint

        asked.append(endpoint())
        await asyncio.sleep(0.01 if len(asked) > 1 else 10)
        return endpoint()

    assert run(ask()) == asked[1] != asked[0]


def test_the_default_order_puts_them_where_the_design_says():
    made = pipeline(*(MAKERS[name]() for name in sorted(MAKERS))).sorted()
    kinds = [policy.kind for policy in made.policies]
    assert kinds == ["fallback", "cache", "single_flight", "deadline", "retry", "hedge", "failover", "rate", "throttle", "bulkhead",
                     "limit", "timeout"]


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"fallback"}))
def test_each_alone_leaves_the_value_the_name_and_the_variables(name):
    policy = MAKERS[name]()

    async def ask(number):
        """Asks."""
        return number, where.get()

    async def main():
        where.set("here")
        guarded = policy(ask)
        assert (guarded.__name__, guarded.__doc__) == ("ask", "Asks.")
        return await guarded(7), await policy.call(ask, 7)

    assert run(main()) == ((7, "here"), (7, "here"))
