"""Operations that finish or undo themselves, whatever fails.

The names most programs need, and nothing else; each is imported when it is first used, so that `import yaoki` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaoki.app import App, Run, open  # noqa: A004
    from yaoki.effect import Effect
    from yaoki.errors import (
        DeclinedError,
        ExhaustedError,
        InDoubtError,
        RefusedError,
        RunBlockedError,
        RunUndoneError,
        YaokiError,
    )
    from yaoki.saga import Saga

__version__ = "0.1.0"

_HOMES = {
    "App": "yaoki.app", "Run": "yaoki.app", "open": "yaoki.app",
    "Effect": "yaoki.effect",
    "Saga": "yaoki.saga",
    **dict.fromkeys(("DeclinedError", "ExhaustedError", "InDoubtError", "RefusedError", "RunBlockedError", "RunUndoneError",
                     "YaokiError"), "yaoki.errors"),
}

__all__ = [
    "App", "DeclinedError", "Effect", "ExhaustedError", "InDoubtError", "RefusedError", "Run", "RunBlockedError",
    "RunUndoneError", "Saga", "YaokiError", "open",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'yaoki' has no attribute {name!r}")
    found = getattr(importlib.import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
