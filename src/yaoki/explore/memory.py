"""What policies remember between calls (breakers, budgets, bulkheads, caches) is put back before each life of a program.

A `Service` at the top of a module lives longer than a universe. In the real world its memory dies with the process; here
it would go on from one execution to the next, and an execution would depend on those before it. So the state of every
policy that exists when an exploration begins is kept, and put back, in place, at the start of each universe and after each
power cut. What your own module-level objects remember is yours to reset (the explorer says so when it notices: the same
execution twice differs).
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from yaoki.policies.budget import _of_service
from yaoki.service import FaultPoints
from yaoki.service.meter import Tally
from yaoki.service.service import _services

_REGISTRIES: tuple[Any, ...] = (_of_service, _services)
_OURS = ("yaoki.policies.", "yaoki.service")
_CONTAINERS = (list, dict, deque, set)
# Deep enough for a table of windows of counters.
_DEPTH = 4


class Memory:
    """The state of some objects, taken now. Take it before `gc.freeze`, which hides what it freezes."""

    def __init__(self, objects: list[Any]) -> None:
        self._kept = [(each, _attributes(each)) for each in objects]
        self._tallies = [(each, int(repr(each._count)[6:-1]) - each._looked) for each in objects if isinstance(each, Tally)]
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

    def warmed(self, execute: Callable[[], object]) -> Memory:
        """The same, with every pipeline compiled that one execution needs: compiling one takes longer than a call."""
        if not _services:
            return self
        execute()
        used: list[tuple[Any, list[Any]]] = [(service, list(service._callers)) for service in _services.values()]
        self.put_back()

        def compile_again() -> None:
            for service, kinds in used:
                for is_async, idempotent, check in kinds:
                    service._caller(is_async=is_async, idempotent=idempotent, check=check)

        from yaoki.explore.world import World  # noqa: PLC0415  a world holds a memory

        World().inside(compile_again)
        return Memory.of_policies()

    def digest(self) -> str:
        """What is remembered, where it is not what was kept: canonical text, the same in every process."""
        found = []
        for number, (each, attributes) in enumerate(self._kept):
            if isinstance(each, Tally):
                continue  # only counts what people are told
            for name, was in attributes.items():
                value = getattr(each, name, None)
                is_full = isinstance(value, _CONTAINERS) and bool(value)
                if is_full or (value is not was and value != was):
                    found.append(f"{number}.{name}={_canonical(value, _DEPTH)}")
        return ";".join(found)

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
        for tally, value in self._tallies:
            # An `itertools.count` cannot be set back, and compiled pipelines hold on to it: so what it counted is taken off.
            tally._looked = next(tally._count) + 1 - value
        for value, was in self._contents.values():
            if isinstance(value, list):
                value[:] = was
            else:
                value.clear()
                value.extend(was) if isinstance(value, deque) else value.update(was)


def _canonical(value: Any, depth: int) -> str:
    if value is None or isinstance(value, (str, bytes, int, float)):
        return repr(value)
    if depth == 0:
        return type(value).__name__
    if isinstance(value, dict):
        return f"{{{','.join(f'{_canonical(key, depth - 1)}:{_canonical(each, depth - 1)}' for key, each in value.items())}}}"
    if isinstance(value, (list, tuple, deque)):
        return f"[{','.join(_canonical(each, depth - 1) for each in value)}]"
    if isinstance(value, (set, frozenset)):
        return f"{{{','.join(sorted(_canonical(each, depth - 1) for each in value))}}}"
    inside = _attributes(value) if type(value).__module__.startswith(_OURS) else {}
    return f"{type(value).__name__}({','.join(f'{name}={_canonical(each, depth - 1)}' for name, each in inside.items())})"


def _remembers(kind: type) -> bool:
    """Is it a class of ours whose objects change? The switch of the fault points is the explorer's own to turn."""
    module = kind.__module__
    if not isinstance(module, str) or not module.startswith(_OURS):  # some classes answer with a descriptor
        return False
    return not issubclass(kind, tuple | type | BaseException | msgspec.Struct | FaultPoints)


def _attributes(each: Any) -> dict[str, Any]:
    found = dict(getattr(each, "__dict__", {}))
    for kind in type(each).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in {"__weakref__", "__dict__"} and hasattr(each, name):
                found[name] = getattr(each, name)
    return found
