"""What a policy is, and how to add one.

A policy says what to do around a call. It is an object that may be used alone or in a `pipeline`, on `def` and on
`async def`, as a decorator (`@policy`), for one call (`policy.call(fn, *args)`) and, where the call is made exactly
once, around a block (`with policy:`, `async with policy:`). All of these come from one short text, the policy's
**shell**, which drives its **decider**:

    decider   a plain class: state in, decision out. `now` and `rng` are arguments. No await, clock, sleep, I/O, log.
              Guarded by its own lock where it counts, because threads and event loops share it; never locked across
              a call. Every permit it hands out ends in exactly one of succeeded, failed, dropped.
    shell     a template of Python around the word CALL. `pipeline` nests the shells of its policies into *one* function
              when a function is decorated (`fuse.py`), so that five policies cost one Python call, not five.

A whole policy:

    class Counted(Policy):
        kind = "counted"                       # the word users say; events and explain() use it
        order = 45                             # its place in the default order, see ORDER

        def __init__(self) -> None:
            self.decider = Counter()

        def shell(self, site: Site) -> str:
            return '''
                $permit = $admit(now)          # may raise a RefusedError
                try:
                    CALL
                except Exception as $error:
                    $failed($permit, clock())
                    raise
                except BaseException:          # cancelled: neither success nor failure
                    $dropped($permit)
                    raise
                else:
                    $succeeded($permit, clock())
            '''

        def bind(self, site: Site) -> dict[str, object]:
            return {"admit": self.decider.admit, "failed": ..., "dropped": ..., "succeeded": ...}

        def describe(self) -> str:
            return "counted()"

In a shell
    CALL            once, on a line of its own: everything further in. It leaves its value in `result`, or raises.
    AWAIT           `await` in the async function, nothing in the sync one: `AWAIT $sleep($delay)`.
    $name           private to this policy: a local variable, or what `bind` gave under that name.
    result          the call's value. A shell may look at it after CALL and may replace it.
    now             monotonic seconds when control reaches this shell. Who waits before CALL refreshes it: `now = clock()`;
                    so after CALL it says when the (last) call began, waiting taken out. What time it is says `clock()`.
    scope           `(deadline, attempt)`, see `scope.py`. A shell may assign it before CALL; the user's function sees it
                    as ambient. Who needs the old one after CALL copies it first.
    fn, ARGS        the callee and what it is called with: `$priority(ARGS)`.
    attempts        how many attempts the call took; a retry sets it, a shell further out may read it after CALL.
    rt              the runtime in force: `rt.rng`, `rt.sleep(...)`.
  Hot lines are in the shell; everything rare is a method behind `bind`. An event is built only `if wanted():`.
  `site.is_async` lets a policy return another text for sync than for async.

A policy that needs tasks, threads or several callees (hedge, failover, cache, fallback) returns no shell and overrides
`wrap` instead: it is given the callable of everything further in and returns another. The pipeline fuses what is on
either side of it.

Names: `site.service` is the downstream's name ("" when there is none), for events and errors. State that belongs to a
destination lives in the policy object, so one object given to two pipelines is shared by them, on purpose.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import CoroutineType, TracebackType
from typing import Any, ClassVar, NamedTuple, ParamSpec, Self, TypeVar, cast

from yaoki.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")

ORDER = {
    "fallback": 10, "cache": 20, "deadline": 30, "retry": 40, "hedge": 42, "failover": 44, "rate": 50, "breaker": 60,
    "throttle": 62, "bulkhead": 70, "limit": 72, "timeout": 80,
}
"""The default order, outermost first. Kinds in one decade are alternatives, or at home beside each other.

fallback > cache > deadline > retry or hedge > failover > rate limit > breaker or throttle > bulkhead or adaptive limit >
attempt timeout > call.
"""


class Site(NamedTuple):
    """Where a policy is used: what a shell and a wrap may depend on.

    Attributes:
        service: name of the downstream, or "".
        is_async: is the callee a coroutine function?
        idempotent: is repeating the call harmless? None: nobody said.
        shape: "function" (decorator), "call" (the callee is the first argument) or "block" (`with`).
        name: the callee's name, for messages.
        outer, inner: the other policies of the pipeline, nearest first.
    """

    service: str = ""
    is_async: bool = False
    idempotent: bool | None = None
    shape: str = "function"
    name: str = ""
    outer: tuple[Policy, ...] = ()
    inner: tuple[Policy, ...] = ()


class Finding(NamedTuple):
    """One remark of `explain()`'s lint. `about` is the kind of the policy; `do` says what to change."""

    about: str
    what: str
    do: str


class Policy:
    """Base of every policy; see the module for how to write one.

    Thread-safe and usable from any number of event loops, unless a policy says otherwise.
    """

    kind: ClassVar[str] = ""
    once: ClassVar[bool] = True
    """Is the callee called exactly once? Only then can the policy guard a `with` block."""

    keeps_deadline: ClassVar[bool] = False
    """Does it either not wait at all, or never longer than until `scope[0]`? Then a deadline further out needs no timer of its own."""

    # ── what a policy writes ─────────────────────────────────────────────────────────────────────────────────────────

    def shell(self, site: Site) -> str | None:  # noqa: ARG002
        """The text around CALL, or None if `wrap` is to be used."""
        return None

    def bind(self, site: Site) -> dict[str, object]:  # noqa: ARG002
        """What the `$names` of the shell stand for."""
        return {}

    def wrap(self, inner: Callable[..., Any], site: Site) -> Callable[..., Any]:
        """A callable that takes what `inner` takes (and is a coroutine function if `site.is_async`)."""
        raise NotImplementedError(f"{type(self).__name__} has neither a shell nor a wrap")

    def describe(self) -> str:
        """The policy with its settings on one line, as one would write it."""
        return f"{self.kind}()"

    def lint(self, outer: Sequence[Policy], inner: Sequence[Policy], site: Site) -> Iterable[Finding]:  # noqa: ARG002
        """What is risky about this policy where it stands. `outer` and `inner` run away from it: nearest first."""
        return ()

    def longest_s(self, inner_s: float) -> float:
        """The longest that a call through this policy can take if what is further in takes at most `inner_s`."""
        return inner_s

    def calls_per_call(self) -> int:
        """How many calls further in one call may become at most (retry, hedge): what amplification multiplies."""
        return 1

    # ── how a policy is used ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def policies(self) -> tuple[Policy, ...]:
        """What a pipeline of this policy consists of, outermost first."""
        return (self,)

    @property
    def order(self) -> int:
        return ORDER.get(self.kind, 99)

    def __call__(self, fn: Callable[P, T]) -> Callable[P, T]:
        """Decorate a function, a coroutine function, a method or any callable object.

        Raises:
            UsageError: `fn` is a generator, an async generator or not callable.
        """
        from yaoki.policies import fuse  # noqa: PLC0415 - fuse needs this module

        return cast("Callable[P, T]", fuse.decorate(self.policies, fn, Site()))

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn(*args, **kwargs)` through the policy. For a coroutine function this is awaitable.

        Raises:
            UsageError: `fn` is a plain function that returned a coroutine (a lambda, mostly): use `acall`.
        """
        if is_coroutine_function(fn):
            return cast("T", self._caller(is_async=True)(fn, *args, **kwargs))
        result = self._caller(is_async=False)(fn, *args, **kwargs)
        if type(result) is CoroutineType:
            result.close()
            raise UsageError(
                f"{_name(fn)} returned a coroutine, which the policy could not watch.",
                do="Use `await policy.acall(...)`, or pass the coroutine function itself instead of a lambda around it.")
        return cast("T", result)

    async def acall(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call and await `fn`, which may be any callable that returns an awaitable."""
        return cast("T", await self._caller(is_async=True)(fn, *args, **kwargs))

    def _caller(self, *, is_async: bool) -> Callable[..., Any]:
        made: dict[bool, Callable[..., Any]] = self.__dict__.setdefault("_callers", {})
        if is_async not in made:
            from yaoki.policies import fuse  # noqa: PLC0415

            made[is_async] = fuse.caller(self.policies, Site(is_async=is_async, shape="call"))
        return made[is_async]

    # ── around a block ───────────────────────────────────────────────────────────────────────────────────────────────

    def block(self, *, is_async: bool = False) -> Any:
        """A fresh context manager (async if asked) that puts the policy around a block.

        Raises:
            UsageError: the policy may run its callee more than once, or not at all, which a block cannot.
        """
        from yaoki.policies import fuse  # noqa: PLC0415

        made = self.__dict__.setdefault("_blocks", {})
        if is_async not in made:
            made[is_async] = fuse.block(self.policies, Site(is_async=is_async, shape="block"))
        return made[is_async]()

    def __enter__(self) -> Self:
        block: AbstractContextManager[None] = self.block()
        block.__enter__()
        self._open_blocks().setdefault(_here(), []).append(block)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return cast("bool | None", self._pop_block().__exit__(kind, error, trace))

    async def __aenter__(self) -> Self:
        block: AbstractAsyncContextManager[None] = self.block(is_async=True)
        await block.__aenter__()
        self._open_blocks().setdefault(_here(), []).append(block)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> bool | None:
        return cast("bool | None", await self._pop_block().__aexit__(kind, error, trace))

    def _open_blocks(self) -> dict[object, list[Any]]:
        return cast("dict[object, list[Any]]", self.__dict__.setdefault("_open", {}))

    def _pop_block(self) -> Any:
        here, open_blocks = _here(), self._open_blocks()
        mine = open_blocks[here]
        block = mine.pop()
        if not mine:
            del open_blocks[here]
        return block

    def __repr__(self) -> str:
        return self.describe()


def _here() -> object:
    """The task, or the thread where there is none: one policy object may guard blocks in many of them at once."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return task if task is not None else threading.get_ident()


def is_coroutine_function(fn: Any) -> bool:
    """Does calling `fn` give a coroutine? Quick for plain functions; looks through partials, methods and callable objects."""
    try:
        return bool(fn.__code__.co_flags & 0x80)  # inspect.CO_COROUTINE; nearly every callee is a plain function
    except AttributeError:
        from yaoki.policies import fuse  # noqa: PLC0415

        return fuse.kind_of(fn).is_async


def _name(fn: Any) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)


def seconds(name: str, value: Any, *, least: float = 0.0, zero: bool = False) -> float:
    """A length of time given as seconds or `timedelta`, checked.

    Raises:
        ConfigError: not a number, not finite, or not above `least` (`zero`: equal to it is fine).
    """
    from datetime import timedelta  # noqa: PLC0415 - loaded only for programs that use it

    from yaoki.errors import ConfigError  # noqa: PLC0415

    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or (value < least if zero else value <= least):  # noqa: PLR0124
        raise ConfigError(f"{name} is {value!r}; it takes seconds (a number or a timedelta) "
                          f"{'of at least' if zero else 'above'} {least:g}.", do=f"Give {name} such a length.")
    return float(value)
