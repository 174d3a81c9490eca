"""What can be read off a function: its types, whether it is awaited, where it stands."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from yaoki.errors import DefinitionError

UNDECIDED: Any = object()
"""Nobody has said yet whether a step needs an undo."""


def hints(fn: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(fn)
    except (NameError, TypeError):  # a forward reference to what is defined later, or a callable without annotations
        return {}


def is_async(fn: Callable[..., Any], saga: str) -> bool:
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise wrong(fn, f"a generator cannot be a step of {saga!r}: it has no single result", "return a list instead")
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def wrong(fn: Callable[..., Any], what: str, do: str) -> DefinitionError:
    code = getattr(fn, "__code__", None)
    where = f"{getattr(fn, '__qualname__', fn)} ({code.co_filename}:{code.co_firstlineno})" if code else repr(fn)
    return DefinitionError(f"{where}: {what}", do=do)


def shown(hint: Any) -> str:
    if hint is None or hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def fits(gives: Any, takes: Any) -> bool:
    """May a value of type `gives` be passed where `takes` is annotated? Only a certain mismatch is False."""
    if Any in (gives, takes) or takes is object or gives == takes:
        return True
    options = _options(takes)
    return all(any(_fits_one(gave, option) for option in options) for gave in _options(gives))


def _options(hint: Any) -> tuple[Any, ...]:
    args = typing.get_args(hint)
    return args if args and typing.get_origin(hint) is not None and _is_union(hint) else (hint,)


def _is_union(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return origin is typing.Union or getattr(origin, "__name__", "") == "UnionType"


def _fits_one(gave: Any, option: Any) -> bool:
    if option is Any or gave == option:
        return True
    gave, option = typing.get_origin(gave) or gave, typing.get_origin(option) or option
    gave, option = type(None) if gave is None else gave, type(None) if option is None else option
    if isinstance(gave, type) and isinstance(option, type):
        return issubclass(gave, option) or (gave is int and option is float)
    return not (isinstance(gave, type) or isinstance(option, type))
