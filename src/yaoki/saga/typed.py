"""The type of a saga's result, where its author says one: `Saga("book-trip", input=Trip, result=Receipt)` is a `Saga[Trip, Receipt]`.

What `app.start` gives is a `Run[Receipt]` then, and `await run.result()` a `Receipt`, to a type checker. Where nothing is said it is
`Any`: `Saga[Trip]` and `Run` alone go on meaning what they did. A default of a type variable is PEP 696, which Python has from 3.13 on;
type checkers know it by `typing_extensions`, which need not be installed for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    I = TypeVar("I")  # noqa: E741  the saga's input
    O = TypeVar("O", default=Any)  # noqa: E741  its result
else:
    from typing import TypeVar

    I = TypeVar("I")  # noqa: E741
    O = TypeVar("O")  # noqa: E741


def completed(types: Any) -> tuple[Any, ...]:
    """`Saga[Trip]` is evaluated at run time, too: in annotations without `from __future__ import annotations`."""
    return types if isinstance(types, tuple) else (types, Any)
