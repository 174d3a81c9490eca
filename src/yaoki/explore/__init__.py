"""The explorer: every fault at every point, then every pair, in virtual time, before production finds it.

    from yaoki.explore import FakeService, explore, scenario

    report = explore(book_trip, input=Trip("ann"), faults=2)
    print(report.text())

It runs the real saga, the real policies and the real service code in one process, deterministically, thousands of times a
second, checks what must hold after each execution, shrinks what fails to a story of a few lines, and replays it from one
line. See `docs/explanation/exploration.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaoki.explore.disk import FakeFile
    from yaoki.explore.exploring import audit_reduction, explore, replay
    from yaoki.explore.fake import Booking, FakeService
    from yaoki.explore.loop import DeadlockError, EscapeError, LivelockError
    from yaoki.explore.network import Reply, Request
    from yaoki.explore.queues import FakeQueue
    from yaoki.explore.report import Report
    from yaoki.explore.scenarios import Scenario, scenario
    from yaoki.explore.search import Explorer
    from yaoki.explore.store import ConflictError, FakeStore
    from yaoki.explore.streams import FakeStream
    from yaoki.explore.topology import Network
    from yaoki.explore.world import World

# Loaded when first asked for: pytest imports this package for its plugin, in every program that has Yaoki installed.
_HOMES = {
    "Booking": "fake", "ConflictError": "store", "DeadlockError": "loop", "EscapeError": "loop", "Explorer": "search",
    "FakeFile": "disk", "FakeQueue": "queues", "FakeService": "fake", "FakeStore": "store", "FakeStream": "streams",
    "LivelockError": "loop", "Network": "topology", "Reply": "network", "Report": "report", "Request": "network",
    "Scenario": "scenarios", "World": "world", "audit_reduction": "exploring", "explore": "exploring", "replay": "exploring", "scenario": "scenarios",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


__all__ = [
    "Booking", "ConflictError", "DeadlockError", "EscapeError", "Explorer", "FakeFile", "FakeQueue", "FakeService", "FakeStore", "FakeStream",
    "LivelockError", "Network", "Reply", "Report", "Request", "Scenario", "World", "audit_reduction", "explore", "replay", "scenario",
]
