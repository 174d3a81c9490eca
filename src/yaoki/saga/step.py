"""One step of a saga as it was written: its function, its undo, how they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from yaoki.saga import codec
from yaoki.saga.retrying import UNDO, Retrying
from yaoki.saga.signatures import UNDECIDED as _UNSET
from yaoki.saga.signatures import hints as _hints
from yaoki.saga.signatures import is_async as _is_async
from yaoki.saga.signatures import wrong as _wrong

if TYPE_CHECKING:
    from yaoki.saga.define import Saga
    from yaoki.saga.waiting import Wait

P = ParamSpec("P")
R = TypeVar("R")
Q = ParamSpec("Q")
U = TypeVar("U")


class Step(Generic[P, R]):
    """One step of a saga. Calling it calls the function, so that a unit test needs nothing else.

    Attributes:
        name: unique in the saga; the function's name unless given.
        fn: the function; `undo_fn`: what undoes it, or None where nothing needs undoing.
        needs: steps it waits for, in order of definition.
        timeout: seconds for one attempt; `deadline`: seconds for all of them. None: no limit of its own.
        retrying: how failed attempts of the do are repeated; `undo_retrying`: of the undo.
    """

    def __init__(self, saga: Saga[Any], fn: Callable[P, R], *, name: str, pivot: bool, timeout: float | None,
                 deadline: float | None, retrying: Retrying, undo: Callable[..., Any] | None, parts: str = "") -> None:
        self.saga = saga
        self.fn = fn
        self.name = name
        self.pivot = pivot
        self.timeout = timeout
        self.deadline = deadline
        self.retrying = retrying
        self.undo_retrying: Retrying = UNDO
        self.undo_timeout = timeout
        self.undo_fn: Callable[..., Any] | None = None
        self.undo_sources: tuple[tuple[str, str], ...] = ()
        self.undo_decided = undo is not _UNSET
        self.hints = _hints(fn)
        self.is_async = _is_async(fn, saga.name)
        self.undo_is_async = True
        self.needs: list[str] = []
        self.sources: tuple[tuple[str, str], ...] = ()  # (parameter, what: a step's name, "" the input, "*" the effect)
        self.once = self.tx = self.special = False
        self.heartbeat: float | None = None  # seconds within which it gives a sign of life
        self.way: Any = None  # what does and undoes it, where that is more than a call of its functions; see `composing.py`
        self.child = ""  # the saga of which it starts a run
        self.parts = parts  # "each", "first_of", "flow", or "": what it is made of
        self.when: Callable[..., Any] | None = None
        self.when_sources: tuple[tuple[str, str], ...] = ()
        self.verify: Callable[..., Any] | None = None  # of a step made at most once: what became of it?
        self.verify_sources: tuple[tuple[str, str], ...] = ()
        self.verify_is_async = True
        self.wait: Wait | None = None  # what it waits for once its function has run; see `waiting.py`
        self.part_gives = returns = self.hints.get("return", Any)
        self.result = codec.Decoder(type(None) if returns is None else returns)
        if undo is not None and undo is not _UNSET:
            self._set_undo(undo)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    @property
    def is_plain(self) -> bool:
        """An async function that is called until it succeeds, and nothing else: see `attempt.attempt_plainly`."""
        return self.is_async and not self.special and self.deadline is None and self.wait is None

    @overload
    def undo(self, fn: Callable[Q, U]) -> Callable[Q, U]: ...

    @overload
    def undo(self, *, retry: Any = None, timeout: float | None = None) -> Callable[[Callable[Q, U]], Callable[Q, U]]: ...

    def undo(self, fn: Callable[..., Any] | None = None, *, retry: Any = None, timeout: float | None = None) -> Any:
        """Say what takes the step's effect back. It gets the input, and the step's result by the step's name.

        It must tolerate being called again, and `None` for the result: the step's answer never came, so the effect may or
        may not exist; cancel it by its key (`effect.key`).

        Args:
            retry: policy for the undo's attempts; by default it is tried for about half an hour, then the run is blocked.
            timeout: seconds for one attempt; the step's own by default.
        """
        if fn is None:
            return lambda fn: self._set_undo(fn, retry=retry, timeout=timeout)
        return self._set_undo(fn, retry=retry, timeout=timeout)

    def _set_undo(self, fn: Callable[..., Any], *, retry: Any = None, timeout: float | None = None) -> Callable[..., Any]:
        if self.undo_fn is not None:
            raise _wrong(fn, f"step {self.name!r} has an undo already: {self.undo_fn.__name__}",
                         "keep one of the two; an undo of several things can call several functions")
        self.undo_sources = self.saga.sources_of(fn, own=self.name, parts=self.parts)
        self.undo_is_async = _is_async(fn, self.saga.name)
        self.undo_fn = fn
        self.undo_decided = True
        if retry is not None:
            self.undo_retrying = Retrying.of(retry)
        if timeout is not None:
            self.undo_timeout = timeout
        self.saga.changed()
        return fn
