"""Reads the graph off the parameter names: where each parameter of a function comes from, and whether its type fits."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from yaoki.effect import Effect
from yaoki.saga.exact import TX
from yaoki.saga.parts.each import ITEM
from yaoki.saga.parts.flow import FLOW, Flow
from yaoki.saga.signatures import fits as _fits
from yaoki.saga.signatures import hints as _hints
from yaoki.saga.signatures import shown as _shown
from yaoki.saga.signatures import wrong as _wrong

if TYPE_CHECKING:
    from yaoki.saga.step import Step

WORDS = frozenset({"", "*", TX, ITEM, FLOW})
"""Sources that are no steps: the input, the effect under way, a transaction, an item, a flow."""


class Parameters:
    """The part of `Saga` that knows what its functions take."""

    input_type: type[Any]
    _input_name: str

    if TYPE_CHECKING:
        steps: dict[str, Step[..., Any]]

    def sources_of(self, fn: Callable[..., Any], own: str = "", *, tx: bool = False, parts: str = "") -> tuple[tuple[str, str], ...]:
        """Where each parameter of `fn` comes from: a step's name, "" for the input, "*" for the effect under way."""
        hints = _hints(fn)
        found = []
        for parameter in inspect.signature(fn).parameters.values():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
                raise _wrong(fn, f"parameter {parameter.name!r} cannot be filled by name", "name each parameter")
            hint = hints.get(parameter.name, Any)
            if hint is Effect:
                found.append((parameter.name, "*"))
            elif tx and parameter.name == "tx":
                found.append((parameter.name, TX))
            elif parts == "each" and parameter.name == "item":
                found.append((parameter.name, ITEM))
            elif hint is Flow and parts == "flow":
                found.append((parameter.name, FLOW))
            elif parameter.name == own or parameter.name in self.steps:
                self._check_type(fn, parameter.name, hint, optional=parameter.name == own)
                found.append((parameter.name, parameter.name))
            else:
                self._check_input(fn, parameter.name, hint)
                found.append((parameter.name, ""))
        return tuple(found)

    def _check_input(self, fn: Callable[..., Any], name: str, hint: Any) -> None:
        takes = getattr(self.input_type, "__name__", str(self.input_type))
        if hint is not Any and not _fits(self.input_type, hint):
            raise _wrong(fn, f"parameter {name!r} is not a step above it, and {_shown(hint)} is not the saga's input "
                         f"({takes}){self._hint(name)}",
                         f"name it after the step whose result it takes, or annotate it as {takes}")
        if self._input_name and name != self._input_name and hint is Any:
            raise _wrong(fn, f"parameter {name!r} is neither a step above it nor the input, which the saga calls "
                         f"{self._input_name!r}{self._hint(name)}",
                         f"rename it to the step whose result it takes, or to {self._input_name!r}")
        self._input_name = self._input_name or name

    def _check_type(self, fn: Callable[..., Any], name: str, hint: Any, *, optional: bool) -> None:
        step = self.steps.get(name)
        if step is None:
            return
        gives = step.part_gives if optional and step.parts else step.hints.get("return", Any)
        if not _fits(gives, hint):
            raise _wrong(fn, f"parameter {name!r} is {_shown(hint)}, but step {name!r} returns {_shown(gives)}",
                         f"annotate it as {_shown(gives)}{' | None' if optional else ''}")

    def _hint(self, name: str) -> str:
        close = difflib.get_close_matches(name, [*self.steps, self._input_name], 1)
        return f"; did you mean {close[0]!r}?" if close and close[0] else ""
