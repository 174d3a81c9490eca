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
    from yaoki.policies.adaptive import adaptive_limit
    from yaoki.policies.breaker import breaker
    from yaoki.policies.budget import budget
    from yaoki.policies.bulkhead import bulkhead
    from yaoki.policies.cache import cache
    from yaoki.policies.classify import classify
    from yaoki.policies.deadline import deadline
    from yaoki.policies.failover import failover
    from yaoki.policies.fallback import fallback
    from yaoki.policies.hedge import hedge
    from yaoki.policies.limiter import rate_limit
    from yaoki.policies.pipeline import pipeline
    from yaoki.policies.pushed import Pushed
    from yaoki.policies.retry import retry
    from yaoki.policies.scope import remaining
    from yaoki.policies.single_flight import single_flight
    from yaoki.policies.standard import standard
    from yaoki.policies.throttle import throttle
    from yaoki.policies.timeout import timeout
    from yaoki.saga import Saga
    from yaoki.saga.heartbeat import heartbeat
    from yaoki.saga.parts.flow import Flow
    from yaoki.saga.queue import Queue
    from yaoki.service import Service

__version__ = "0.1.0"

_HOMES = {
    "App": "yaoki.app", "Run": "yaoki.app", "open": "yaoki.app",
    "Effect": "yaoki.effect",
    "Flow": "yaoki.saga.parts.flow",
    "Saga": "yaoki.saga", "Queue": "yaoki.saga.queue",
    "heartbeat": "yaoki.saga.heartbeat",
    "Service": "yaoki.service",
    **dict.fromkeys(("Pushed", "adaptive_limit", "backoff", "breaker", "budget", "bulkhead", "cache", "classify", "deadline", "failover",
                     "fallback", "hedge", "pipeline", "rate_limit", "remaining", "retry", "single_flight", "standard", "throttle",
                     "timeout"),
                    "yaoki.policies"),
    **dict.fromkeys(("DeclinedError", "ExhaustedError", "InDoubtError", "RefusedError", "RunBlockedError", "RunUndoneError",
                     "YaokiError"), "yaoki.errors"),
}

__all__ = [
    "App", "DeclinedError", "Effect", "ExhaustedError", "Flow", "InDoubtError", "Pushed", "Queue", "RefusedError", "Run", "RunBlockedError",
    "RunUndoneError", "Saga", "Service", "YaokiError", "adaptive_limit", "backoff", "breaker", "budget", "bulkhead", "cache",
    "classify", "deadline", "failover", "fallback", "heartbeat", "hedge", "open", "pipeline", "rate_limit", "remaining", "retry",
    "single_flight", "standard", "throttle", "timeout",
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
