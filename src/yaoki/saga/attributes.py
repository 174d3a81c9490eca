"""Attributes: what a run can be found by besides its id. Deciders.

    Saga("book-trip", input=Trip, attributes=lambda trip: {"customer": trip.customer})
    Saga("book-trip", input=Trip, attributes={"customer": "customer", "city": "to.city"})  # fields by name: from SQL too
    await app.start(book_trip, trip, attributes={"region": "eu"})          # besides those of the saga
    $ yk runs list --where customer=42 --where region=eu
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from yaoki.errors import InputError

Attributes = tuple[tuple[str, str], ...]
"""As they are kept: text by name, in order of the names."""

# They are for finding runs, and each is a row in an index: what is longer belongs into the input.
MOST, LONGEST = 16, 200


def attributes_of(of_saga: Callable[[Any], Mapping[str, Any]] | None, value: Any, given: Mapping[str, Any] | None) -> Attributes:
    """Those that the saga reads off the input, and those that were given at the start, which win. Raises InputError."""
    if of_saga is None and not given:
        return ()
    found = {**(of_saga(value) if of_saga is not None else {}), **(given or {})}
    if len(found) > MOST:
        raise InputError(f"a run has at most {MOST} attributes, not {len(found)}", do="keep those that you search by")
    return tuple(sorted((_name(name), _text(name, each)) for name, each in found.items() if each is not None))


def reader_of(given: Callable[[Any], Mapping[str, Any]] | Mapping[str, str] | None) -> Callable[[Any], Mapping[str, Any]] | None:
    """What reads them off an input. A mapping names fields, `to.city`; one that an input does not have is left out. Raises InputError."""
    if given is None or not isinstance(given, Mapping):
        return given
    if len(given) > MOST:
        raise InputError(f"a run has at most {MOST} attributes, not {len(given)}", do="keep those that you search by")
    paths = {_name(name): path.split(".") for name, path in given.items()}
    return lambda value: {name: _at(value, path) for name, path in paths.items()}


def _at(value: Any, path: list[str]) -> Any:
    for field in path:
        value = value.get(field) if isinstance(value, Mapping) else getattr(value, field, None)
    return value


def _name(name: str) -> str:
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise InputError(f"an attribute's name is letters, digits, '-', '_' and '.', not {name!r}", do="rename it")
    return name


def _text(name: str, value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise InputError(f"attribute {name!r} is a text, a number, true or false, not {type(value).__name__}",
                         do="give what you will search by, as in customer=42")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) > LONGEST:
        raise InputError(f"attribute {name!r} is {len(text)} characters long, and {LONGEST} is the most", do="keep it in the input")
    return text


def parse_where(words: Iterable[str]) -> Attributes:
    """`("customer=42", "region=eu")` as pairs. Raises InputError."""
    pairs = []
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise InputError(f"{word!r} is not NAME=VALUE", do="write --where customer=42")
        pairs.append((_name(name.strip()), value))
    return tuple(pairs)
