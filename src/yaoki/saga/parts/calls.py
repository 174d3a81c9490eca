"""A call of a function as data: its arguments go into the journal, and come back as the types that the function takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.effect import Effect
from yaoki.errors import UsageError
from yaoki.saga import codec
from yaoki.saga.signatures import hints

if TYPE_CHECKING:
    from collections.abc import Sequence


class Given(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an inner step was begun with. undo: the name of what undoes it, or ""."""

    args: tuple[msgspec.Raw, ...] = ()
    kwargs: dict[str, msgspec.Raw] = {}
    undo: str = ""


GIVEN = msgspec.json.Decoder(Given)


class Call:
    """`fn(*args, **kwargs)`, and what undoes it."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], undo: Callable[..., Any] | None) -> None:
        self.fn = fn
        self.undo = undo
        self.undo_name: str = getattr(undo, "__name__", repr(undo))
        self.timeout: float | None = None
        self.gives = codec.Decoder(hints(fn).get("return", Any))
        self._given: Given | None = None
        self._args = args
        self._kwargs = kwargs

    def given(self) -> bytes:
        """Its arguments, to be kept. Raises UsageError for what is not data."""
        return msgspec.json.encode(self._data())

    def remember(self, data: bytes) -> None:
        """Make it the call that was begun before."""
        self._given = GIVEN.decode(data)

    def arguments(self, under_way: Effect) -> tuple[list[Any], dict[str, Any]]:
        return filled(self.fn, self._data(), under_way)

    def result_of(self, data: bytes) -> Any:
        return self.gives.decode(data)

    def _data(self) -> Given:
        if self._given is None:
            try:
                self._given = Given(tuple(msgspec.Raw(self.encoded(each)) for each in self._args),
                                    {name: msgspec.Raw(self.encoded(each)) for name, each in self._kwargs.items()},
                                    self.undo_name if self.undo is not None else "")
            except (TypeError, NotImplementedError) as error:
                raise UsageError(f"an argument of {getattr(self.fn, '__name__', self.fn)} cannot be kept as JSON: {error}",
                                 do="hand it data; bind objects beforehand: functools.partial(fn, client)") from error
        return self._given

    @staticmethod
    def encoded(value: Any) -> bytes:
        return b"null" if value is None else codec.encode(value)


def filled(fn: Callable[..., Any], given: Given, under_way: Effect, result: Any = ...) -> tuple[list[Any], dict[str, Any]]:
    """The arguments for `fn`, each of the type that it takes. result: of what an undo takes back; not given to others."""
    found, names = hints(fn), list(inspect.signature(fn).parameters)
    effect_names = [name for name in names if found.get(name) is Effect]
    places = [name for name in names if name not in effect_names and not (result is not ... and name == "result")]
    kwargs = {name: _typed(found.get(name, Any), raw) for name, raw in given.kwargs.items()}
    kwargs.update(dict.fromkeys(effect_names, under_way))
    if result is not ... and "result" in names:
        kwargs["result"] = result
    kwargs.update({name: _typed(found.get(name, Any), raw) for name, raw in zip(places, given.args, strict=False)}
                  if _by_name(fn, given.args, places) else {})
    rest = [] if _by_name(fn, given.args, places) else [_typed(Any, raw) for raw in given.args]
    return rest, kwargs


def _by_name(fn: Callable[..., Any], args: Sequence[Any], places: list[str]) -> bool:
    """Can the arguments be handed over by their parameters' names?"""
    kinds = inspect.signature(fn).parameters
    by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return len(args) <= len(places) and all(kinds[name].kind in by_name for name in places[:len(args)])


def _typed(kind: Any, raw: msgspec.Raw) -> Any:
    return codec.Decoder(kind).decode(bytes(raw))
