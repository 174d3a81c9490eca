"""The attempts of one inner step of a flow, and of its undo."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from yaoki import runtime
from yaoki.errors import UsageError
from yaoki.saga import codec
from yaoki.saga.attempt import within
from yaoki.saga.parts.attempts import PartAttempts
from yaoki.saga.parts.calls import GIVEN, Call, filled
from yaoki.saga.parts.state import Parts
from yaoki.saga.parts.step import part_of
from yaoki.saga.signatures import hints, is_async

if TYPE_CHECKING:
    from yaoki.effect import Effect
    from yaoki.saga.define import Step
    from yaoki.saga.driver import Driver
    from yaoki.saga.retrying import Retrying

Arguments = tuple[list[Any], dict[str, Any]]


class InnerAttempts(PartAttempts):
    """Attempts of a function that was named while the flow ran."""

    __slots__ = ("_call", "_fn")

    def __init__(self, driver: Driver, step: Step[..., Any], fn: Callable[..., Any], call: Callable[[Effect], Arguments], *, undo: bool,
                 doubt: bool) -> None:
        super().__init__(driver, step, lambda _: {}, undo=undo, doubt=doubt)
        self._fn = fn
        self._call = call

    def begin(self, under_way: Effect) -> Awaitable[Any]:
        return self._called(under_way)

    async def _called(self, under_way: Effect) -> Any:
        args, kwargs = self._call(under_way)
        fn, limit = self._fn, self._limit()
        work: Awaitable[Any] = fn(*args, **kwargs) if is_async(fn, "a flow") else runtime.run_blocking(fn, *args, **kwargs)
        return await (work if limit is None else within(work, limit, self._step.name))


def inner_attempts(driver: Driver, step: Step[..., Any], part: str, call: Call, retrying: Retrying, *, doubt: bool) -> InnerAttempts:
    """doubt: may an earlier process have begun it?"""
    inner = part_of(step, part.partition("/")[2], call.gives)
    inner.retrying, inner.timeout, inner.deadline = retrying, call.timeout, None
    inner.undo_fn = call.undo
    return InnerAttempts(driver, inner, call.fn, call.arguments, undo=False, doubt=doubt)


def undo_attempts(driver: Driver, step: Step[..., Any], parts: Parts, name: str,
                  undos: dict[str, Callable[..., Any]]) -> InnerAttempts | None:
    """The undo of an inner step, by what it was begun with; None where it has none."""
    given = GIVEN.decode(parts.given.get(name, b"{}"))
    if not given.undo:
        return None
    inner = part_of(step, name, codec.ANY)
    inner.undo_timeout = None
    fn = undos.get(given.undo)
    if fn is None:
        return InnerAttempts(driver, inner, _gone, lambda _: ([f"{step.name}/{name}", given.undo], {}), undo=True, doubt=False)
    known = parts.is_done(name)

    def call(under_way: Effect) -> Arguments:
        result = codec.Decoder(hints(fn).get("result", Any)).decode(parts.results[name]) if known else None
        return filled(fn, given, under_way, result)

    return InnerAttempts(driver, inner, fn, call, undo=True, doubt=not known)


def _gone(part: str, undo: str) -> None:
    raise UsageError(f"{part} is undone by {undo}, which is not one of the flow's undos any more", do=f"give it back to the flow: undos=[{undo}]")
