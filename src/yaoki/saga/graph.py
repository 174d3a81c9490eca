"""The shape of a saga: names and edges, numbered in the order in which they were defined.

A step may only need steps that stand above it, so the order of definition is a topological order, and the graph cannot
have a cycle. Everything the machine asks at run time is computed here, once.
"""

from __future__ import annotations

import hashlib

import msgspec

LEAVES_NOTHING = frozenset({"sleep", "signal"})
"""What a step waits for (`Node.waits`) that needs no undo: time has passed, somebody was asked."""


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step as data.

    Attributes:
        name: unique in the saga.
        needs: steps whose results it takes, or that it is told to come after; in order of definition.
        takes, gives: the types of its parameters and result, as written; they are part of the graph's hash.
        undo: can it be undone?
        pivot: is it the point of no return?
        waits: "" (it does something), "sleep" (then a time passes), "signal" (then somebody answers), "child" (another run).
        child: the saga of which it starts a run, or "".
        parts: what its parts are: "" (it has none), "each" (items), "first_of" (alternatives), "flow" (decided as it goes).
        options: the names of alternatives, in the order in which they are tried; of a flow: those of its undos.
    """

    name: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    gives: str = ""
    undo: bool = False
    pivot: bool = False
    waits: str = ""
    child: str = ""
    parts: str = ""
    options: tuple[str, ...] = ()


class Graph:
    """Nodes with their edges, as numbers, for the machine.

    The pivot is a wall: it comes after every step above it, and before every step below it. So when it runs nothing else
    does, and whether the run can still be undone is never in question.

    Attributes:
        nodes: in order of definition.
        names: their names; `index` is the way back.
        needs, followers: the direct edges, as numbers.
        pivot: the pivot's number, or -1.
        hash: of names, edges and types; never of source code, so that a deploy that only mends code changes nothing.
    """

    def __init__(self, saga: str, nodes: tuple[Node, ...]) -> None:
        self.saga = saga
        self.nodes = nodes
        self.names = tuple(node.name for node in nodes)
        self.index = {name: number for number, name in enumerate(self.names)}
        self.pivot = next((number for number, node in enumerate(nodes) if node.pivot), -1)
        self.needs = tuple(self._needs_of(number) for number in range(len(nodes)))
        followers: list[list[int]] = [[] for _ in nodes]
        for number, needed in enumerate(self.needs):
            for other in needed:
                followers[other].append(number)
        self.followers = tuple(tuple(each) for each in followers)
        self.need_counts = [len(needed) for needed in self.needs]
        self.follower_counts = [len(each) for each in self.followers]
        self.roots = tuple(number for number, needed in enumerate(self.needs) if not needed)
        self._json: bytes | None = None
        self.hash = hashlib.blake2b(msgspec.json.encode((saga, nodes)), digest_size=8).hexdigest()

    def _needs_of(self, number: int) -> tuple[int, ...]:
        if number == self.pivot:
            return tuple(range(number))
        direct = {self.index[name] for name in self.nodes[number].needs}
        if 0 <= self.pivot < number:
            direct.add(self.pivot)
        return tuple(sorted(direct))

    def __len__(self) -> int:
        return len(self.nodes)

    def to_json(self) -> bytes:
        if self._json is None:
            self._json = msgspec.json.encode({"saga": self.saga, "nodes": self.nodes})
        return self._json

    @staticmethod
    def from_json(data: bytes) -> Graph:
        stored = msgspec.json.decode(data, type=_StoredGraph)
        return Graph(stored.saga, stored.nodes)


class _StoredGraph(msgspec.Struct):
    saga: str
    nodes: tuple[Node, ...]
