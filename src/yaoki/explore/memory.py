"""What policies remember between calls (breakers, budgets, bulkheads, caches) is put back before each life of a program.

A `Service` at the top of a module lives longer than a universe. In the real world its memory dies with the process; here
it would go on from one execution to the next, and an execution would depend on those before it. So the state of every
policy that exists when an exploration begins is kept, and put back, in place, at the start of each universe and after each
power cut. What your own module-level objects remember is yours to reset (the explorer says so when it notices: the same
execution twice differs).
"""

from __future__ import annotations

import gc
import itertools
from collections import deque
from typing import Any

import msgspec

from yaoki import service as services
from yaoki.policies.budget import _of_service
from yaoki.service import FaultPoints

_REGISTRIES: tuple[Any, ...] = (_of_service, services._services)
_OURS = ("yaoki.policies.", "yaoki.service")
_CONTAINERS = (list, dict, deque, set)
# Deep enough for a table of windows of counters.
_DEPTH = 4


class Memory:
    """The state of some objects, taken now. Take it before `gc.freeze`, which hides what it freezes."""

    def __init__(self, objects: list[Any]) -> None:
        self._kept = [(each, _attributes(each)) for each in objects]
        self._counts = [(each, found) for each, attributes in self._kept if (found := _counts(attributes))]
        self.bulkheads = [each for each in objects if type(each).__name__ == "Bulkhead"]
        # What is found by name: a service or budget of an earlier life must not be found by the next one.
        self._registries = [(registry, dict(registry)) for registry in _REGISTRIES]
        self._contents: dict[int, tuple[Any, Any]] = {}
        for _, attributes in self._kept:
            for value in attributes.values():
                self._keep(value, _DEPTH)

    @staticmethod
    def of_policies() -> Memory:
        """Of every policy and service that exists."""
        return Memory([each for each in gc.get_objects() if _remembers(type(each))])

    def __len__(self) -> int:
        return len(self._kept)

    def _keep(self, value: Any, depth: int) -> None:
        if not isinstance(value, _CONTAINERS) or id(value) in self._contents or depth == 0:
            return
        self._contents[id(value)] = (value, value.copy())
        for each in value.values() if isinstance(value, dict) else value:
            self._keep(each, depth - 1)

    def put_back(self) -> None:
        """Make everything what it was. Containers keep their identity: compiled pipelines hold on to them."""
        for each, attributes in self._kept:
            for name, value in attributes.items():
                object.__setattr__(each, name, value)
            extra = getattr(each, "__dict__", None)
            if extra is not None and len(extra) > len(attributes):
                for name in [name for name in extra if name not in attributes]:
                    del extra[name]
        for registry, known in self._registries:
            registry.clear()
            registry.update(known)
        for each, starts in self._counts:
            _begin_counts(each, starts)
        for value, was in self._contents.values():
            if isinstance(value, list):
                value[:] = was
            else:
                value.clear()
                value.extend(was) if isinstance(value, deque) else value.update(was)


def _remembers(kind: type) -> bool:
    """Is it a class of ours whose objects change? The switch of the fault points is the explorer's own to turn."""
    module = kind.__module__
    if not isinstance(module, str) or not module.startswith(_OURS):  # some classes answer with a descriptor
        return False
    return not issubclass(kind, tuple | type | BaseException | msgspec.Struct | FaultPoints)


def _counts(attributes: dict[str, Any]) -> dict[str, int]:
    """Attributes that are an `itertools.count`, and where it stands: one cannot be set back, only begun anew."""
    return {name: int(repr(value)[6:-1]) for name, value in attributes.items() if isinstance(value, itertools.count)}


def _begin_counts(each: Any, starts: dict[str, int]) -> None:
    for name, start in starts.items():
        fresh = itertools.count(start)
        for other, value in _attributes(each).items():
            if getattr(value, "__self__", None) is getattr(each, name):
                object.__setattr__(each, other, fresh.__next__)
        object.__setattr__(each, name, fresh)


def _attributes(each: Any) -> dict[str, Any]:
    found = dict(getattr(each, "__dict__", {}))
    for kind in type(each).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in {"__weakref__", "__dict__"} and hasattr(each, name):
                found[name] = getattr(each, name)
    return found
