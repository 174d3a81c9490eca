"""Who reads a clock: where that decides anything, two states at different times are different states.

The reductions leave time out of a state, because each retry shifts the clock and hardly two states would be the same. That is sound
only for programs that never look at it. So while reductions are in use everybody who looks is noticed, except those of whom it is
known that they only write the time down for people. What decides by time without looking is said outright (`World.decides_by_time`):
deadlines and waits of sagas, leases of workers.
"""

from __future__ import annotations

import asyncio
from pathlib import PurePath
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaoki.explore.loop import VirtualLoop
    from yaoki.saga.define import Saga

# They stamp log lines and cookies, and measure how long a response took.
_ONLY_STAMP = frozenset({"anyio", "asyncio", "email", "fastapi", "flask", "http", "httpcore", "httpx", "httpx2", "logging", "random", "requests",
                         "starlette", "urllib3", "uuid", "werkzeug"})
# Ours: the door itself, the explorer, and what stamps records. Policies do decide by the clock, and so do schedules.
_OURS_ONLY_STAMP = ("yaoki.app.", "yaoki.chaos.", "yaoki.effect.", "yaoki.events.", "yaoki.explore.", "yaoki.saga.", "yaoki.service.")
# Where a pipeline that was made one function says that its code is.
_FUSED = "<yaoki fused"
_THE_DOOR = frozenset({"yaoki.runtime", "yaoki.explore.runtime", "yaoki.explore.seal", "yaoki.explore.world"})

_DOOR, _STAMPS, _DECIDES = range(3)
_verdicts: dict[str, int] = {}  # by module


class ClockReads:
    """Notices the first one in a universe who looks at a clock. where: `file:line`, or why time decides; "" so far nobody."""

    __slots__ = ("where",)

    def __init__(self) -> None:
        self.where = ""

    def look(self, frame: FrameType | None) -> None:
        """The code of `frame`, or whoever called it through the door, reads a clock."""
        if self.where:
            return
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            verdict = _verdicts.get(module)
            if verdict is None:
                verdict = _verdicts[module] = _verdict(module)
            if verdict == _STAMPS:
                return
            if verdict == _DECIDES:
                break
            frame = frame.f_back
        else:
            return
        path = frame.f_code.co_filename
        self.where = "a policy" if path.startswith(_FUSED) else f"{PurePath(path).name}:{frame.f_lineno}"


def _verdict(module: str) -> int:
    if module in _THE_DOOR:
        return _DOOR
    if module.startswith("yaoki.saga.schedule"):
        return _DECIDES
    return _STAMPS if module.partition(".")[0] in _ONLY_STAMP or f"{module}.".startswith(_OURS_ONLY_STAMP) else _DECIDES


def limits(loop: VirtualLoop) -> list[tuple[str, float]]:
    """Time limits that are running, of whose they are, and what is left of each, in seconds: they decide by time without a look."""
    found = []
    for when, _, _, handle in loop._timers:
        if not handle.gone and _is_limit(handle.callback):
            life: Any = handle.context.get(loop._owner)
            found.append((life.name if life is not None else "", round(when - loop._now, 6)))
    return sorted(found)


def _is_limit(callback: Any) -> bool:
    target = getattr(callback, "__self__", None)
    return isinstance(target, asyncio.Timeout) or getattr(callback, "__module__", "").startswith("yaoki.policies.")


def why_timed(saga: Saga[Any]) -> str:
    """Why time decides in this saga, or ""."""
    if saga.deadline is not None:
        return f"saga {saga.name} has a deadline"
    for step in saga.steps.values():
        if step.deadline is not None or step.wait is not None:
            return f"step {step.name} of saga {saga.name} {'has a deadline' if step.deadline is not None else 'waits'}"
    return ""
