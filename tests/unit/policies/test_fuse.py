"""Fusing: what may be decorated, what it looks like afterwards, and that nobody's names get mixed up."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki.errors import ConfigError, UsageError
from yaoki.policies import Policy, Site, backoff, breaker, bulkhead, deadline, fuse, pipeline, retry, timeout

EVERY = pipeline(deadline(9), retry(2, backoff.NONE), breaker(), bulkhead(9), timeout(8))


def plain(x: int, y: int = 2, *, z: int = 3) -> tuple[int, int, int]:
    """Adds nothing up."""
    return x, y, z


async def aio(x: int, y: int = 2, *, z: int = 3) -> tuple[int, int, int]:
    return x, y, z


class Thing:
    @EVERY
    def method(self, x: int) -> tuple[Any, int]:
        return self, x

    @EVERY
    async def amethod(self, x: int) -> tuple[Any, int]:
        return self, x

    @EVERY
    @classmethod
    def above(cls, x: int) -> tuple[Any, int]:
        return cls, x

    @classmethod
    @EVERY
    def below(cls, x: int) -> tuple[Any, int]:
        return cls, x

    @EVERY
    @staticmethod
    async def static(x: int) -> int:
        return x


class Called:
    def __call__(self, x: int) -> int:
        return x


class AsyncCalled:
    async def __call__(self, x: int) -> int:
        return x


def wrapped_by_another_library(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def test_every_kind_of_callable_is_recognised() -> None:
    thing = Thing()
    assert thing.method(1) == (thing, 1)
    assert asyncio.run(thing.amethod(1)) == (thing, 1)
    assert Thing.above(1) == Thing.below(1) == (Thing, 1)
    assert asyncio.run(thing.static(4)) == 4
    assert EVERY(Called())(5) == 5
    assert asyncio.run(EVERY(AsyncCalled())(5)) == 5
    assert EVERY(functools.partial(plain, 1, z=9))(y=7) == (1, 7, 9)
    assert asyncio.run(EVERY(functools.partial(aio, 1))()) == (1, 2, 3)
    assert asyncio.run(EVERY(functools.partial(functools.partial(AsyncCalled()), 8))()) == 8
    assert EVERY(thing.method)(2) == (thing, 2)
    assert EVERY(len)([1, 2]) == 2
    assert EVERY(dict)(a=1) == {"a": 1}
    assert EVERY(wrapped_by_another_library(plain))(1, z=0) == (1, 2, 0)
    assert EVERY(lambda: 3)() == 3


def test_a_stream_is_refused_with_what_to_do() -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def agenerator() -> AsyncIterator[int]:
        yield 1

    for stream in (generator, agenerator, functools.partial(agenerator)):
        with pytest.raises(UsageError) as refused:
            EVERY(stream)
        assert "stream" in refused.value.do
    with pytest.raises(UsageError):
        EVERY(3)  # type: ignore[arg-type]


def test_a_decorated_function_still_is_what_it_was_to_its_readers() -> None:
    made = EVERY(plain)
    assert (made.__name__, made.__doc__, made.__wrapped__) == ("plain", "Adds nothing up.", plain)  # type: ignore[attr-defined]
    assert inspect.signature(made) == inspect.signature(plain)
    assert inspect.iscoroutinefunction(EVERY(aio))
    assert not hasattr(plain, "__wrapped__"), "decorating changed the function itself"


def test_arguments_arrive_as_given_and_wrong_ones_are_refused_as_ever() -> None:
    made = EVERY(plain)
    assert (made(1), made(1, 5), made(y=5, x=1), made(1, z=7)) == ((1, 2, 3), (1, 5, 3), (1, 5, 3), (1, 2, 7))
    for wrong in ({}, {"x": 1, "w": 2}):
        with pytest.raises(TypeError):
            made(**wrong)
    with pytest.raises(TypeError):
        made(1, 2, 3)  # type: ignore[call-arg]


@given(names=st.lists(st.sampled_from(["now", "clock", "rt", "scope", "result", "fn", "inner", "token", "args", "kwargs", "call", "make", "attempts",
                                       "ambient", "error", "limit_0", "seconds_0", "past_1", "permit_2", "x", "default_x", "None_"]),
                      min_size=1, max_size=5, unique=True), keyword_only=st.booleans(), is_async=st.booleans())
def test_a_parameter_may_have_any_name_the_fused_text_uses_itself(names: list[str], keyword_only: bool, is_async: bool) -> None:
    text = f"{'async ' if is_async else ''}def f({'*, ' if keyword_only else ''}{', '.join(f'{name}={index}' for index, name in enumerate(names))}): return ({', '.join(names)},)"
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    made = EVERY(namespace["f"])
    given_all = {name: f"v{name}" for name in names}
    defaults, passed = made(), made(**given_all)
    if is_async:
        defaults, passed = asyncio.run(defaults), asyncio.run(passed)
    assert defaults == tuple(range(len(names)))
    assert passed == tuple(given_all.values())


def test_positional_only_parameters_stay_so() -> None:
    @EVERY
    def f(a: int, b: int = 2, /, c: int = 3) -> tuple[int, int, int]:
        return a, b, c

    assert f(1, c=9) == (1, 2, 9)
    with pytest.raises(TypeError):
        f(a=1)  # type: ignore[call-arg]


def test_call_tells_a_lambda_around_a_coroutine_from_a_plain_function() -> None:
    with pytest.raises(UsageError, match="coroutine"):
        EVERY.call(lambda: aio(1))
    assert asyncio.run(EVERY.acall(lambda: aio(1))) == (1, 2, 3)
    assert asyncio.run(EVERY.call(aio, 1)) == (1, 2, 3)
    assert EVERY.call(plain, 1, z=4) == (1, 2, 4)


def test_tracebacks_show_the_lines_of_the_fused_function() -> None:
    @EVERY
    def broken() -> None:
        raise LookupError("here")

    with pytest.raises(LookupError) as failure:
        broken()
    shown = "".join(traceback.format_exception(failure.value))
    assert "result = fn()" in shown


def test_equal_shapes_share_their_code_and_an_instance_is_small() -> None:
    def make() -> Any:
        return pipeline(deadline(9), retry(2, backoff.NONE), breaker(), bulkhead(50), timeout(8))(plain)

    one, other = make(), make()
    assert one.__code__ is other.__code__
    import gc
    import tracemalloc

    gc.collect()
    tracemalloc.start()
    kept = [make() for _ in range(100)]
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    assert size < 4096 * (1.6 if sys.gettrace() else 1.0), f"{size:.0f} bytes"


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_policy_object_guards_blocks_in_many_tasks_and_nested() -> None:
    policy = bulkhead(5, queue=5, max_wait=60)

    async def one(depth: int) -> None:
        async with policy:
            await asyncio.sleep(0)
            if depth:
                await one(depth - 1)

    async def main() -> None:
        await asyncio.gather(*(one(1) for _ in range(2)))
        with policy:
            assert policy.in_use == 1

    asyncio.run(main())
    assert (policy.in_use, policy._open_blocks()) == (0, {})


def test_what_may_call_twice_cannot_guard_a_block() -> None:
    with pytest.raises(UsageError, match="exactly once"), retry(3):
        pass


def test_a_breaker_block_counts_what_happens_in_it() -> None:
    policy = breaker(minimum=1, failure_rate=1.0)
    with policy:
        pass
    assert policy.circuit.window.total == 1
    with pytest.raises(ConnectionResetError), policy:
        raise ConnectionResetError
    assert policy.circuit.window.failed == 1


# ── policies of one's own ────────────────────────────────────────────────────────────────────────────────────────────


class Doubling(Policy):
    """Wraps instead of having a shell, and must see the call's own arguments."""

    kind = "doubling"

    def wrap(self, inner: Callable[..., Any], site: Site) -> Callable[..., Any]:
        if site.is_async:
            async def acall(*args: Any, **kwargs: Any) -> Any:
                return [await inner(*args, **kwargs), await inner(*args, **kwargs)]

            return acall
        return lambda *args, **kwargs: [inner(*args, **kwargs), inner(*args, **kwargs)]


@pytest.mark.parametrize("place", range(4))
def test_a_policy_that_wraps_fits_between_those_that_are_fused(place: int) -> None:
    parts: list[Policy] = [retry(2), breaker(), timeout(9)]
    parts.insert(place, Doubling())
    made = pipeline(*parts)
    assert made(plain)(1) == made.call(plain, 1) == [(1, 2, 3)] * 2
    assert asyncio.run(made(aio)(1)) == asyncio.run(made.call(aio, 1)) == [(1, 2, 3)] * 2


def test_the_same_policy_twice_in_a_pipeline_keeps_its_variables_apart() -> None:
    places = bulkhead(4)
    assert pipeline(places, places, retry(2), retry(3))(plain)(1) == (1, 2, 3)
    assert places.in_use == 0


def test_the_source_can_be_read() -> None:
    text = EVERY.source(is_async=True)
    compile(text, "x", "exec")
    assert text.count("await fn(") == 2, "the call, with and without a changed scope"
    assert fuse.source(EVERY.policies, Site()) == EVERY.source()


def test_only_policies_go_into_a_pipeline() -> None:
    with pytest.raises(ConfigError, match="not a policy"):
        pipeline(retry(3), plain)  # type: ignore[arg-type]
