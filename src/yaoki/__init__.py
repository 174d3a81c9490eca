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
    from yaoki.policies import backoff
    from yaoki.policies.breaker import breaker
    from yaoki.policies.budget import budget
    from yaoki.policies.bulkhead import bulkhead
    from yaoki.policies.classify import classify
    from yaoki.policies.deadline import deadline
    from yaoki.policies.pipeline import pipeline
    from yaoki.policies.retry import retry
    from yaoki.policies.scope import remaining
    from yaoki.policies.timeout import timeout
    from yaoki.saga import Saga
    from yaoki.service import Service

__version__ = "0.1.0"

_HOMES = {
    "App": "yaoki.app", "Run": "yaoki.app", "open": "yaoki.app",
    "Effect": "yaoki.effect",
    "Saga": "yaoki.saga",
    "Service": "yaoki.service",
    **dict.fromkeys(("backoff", "breaker", "budget", "bulkhead", "classify", "deadline", "pipeline", "remaining", "retry",
                     "timeout"), "yaoki.policies"),
    **dict.fromkeys(("DeclinedError", "ExhaustedError", "InDoubtError", "RefusedError", "RunBlockedError", "RunUndoneError",
                     "YaokiError"), "yaoki.errors"),
}

__all__ = [
    "App", "DeclinedError", "Effect", "ExhaustedError", "InDoubtError", "RefusedError", "Run", "RunBlockedError",
    "RunUndoneError", "Saga", "Service", "YaokiError", "backoff", "breaker", "budget", "bulkhead", "classify", "deadline", "open",
    "pipeline", "remaining", "retry", "timeout",
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
