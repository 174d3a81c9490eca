"""In which order requests that are under way together arrive: every order that can matter, and each of those once.

    under way: a (ann → stock/seat), b (bob → stock/seat), c (ann → mail)

    a before b, or b before a: they touch the same key, so both orders are executed
    b before c, or c before b: other processes, other services: whatever comes of one comes of the other

Two arrivals are independent when they belong to different processes and touch nothing in common; two reads have nothing in common.
Then their order changes neither what is kept, nor what either process is told, nor what else is under way. Depth-first search with
sleep sets executes one schedule of each class of schedules that differ in the order of independent arrivals only. (Godefroid,
Partial-Order Methods for the Verification of Concurrent Systems, LNCS 1032, 1996, section 5.)

What processes share besides services (a list in the test's own memory) is not seen. Timers are not reordered with arrivals: that is
what `call.delay` is for, which is explored like a fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from yaoki.chaos.faults import At
from yaoki.errors import ConfigError

if TYPE_CHECKING:
    from yaoki.explore.clockwork import Clockwork, Handle

# A choice is a digit of a replay token.
MOST_TOGETHER = 16


class Arrival(msgspec.Struct, frozen=True):
    """A request under way.

    Attributes:
        name: `site@nth`, the same in every execution that has come here.
        process: whose answer it will be; "" for services among themselves.
        keys: what it touches at the service; empty: everything.
    """

    name: str
    process: str
    service: str
    keys: frozenset[str]
    is_read: bool

    def commutes(self, other: Arrival) -> bool:
        """Is it all one which of the two comes first?"""
        if self.process == other.process:
            return False
        if self.service != other.service or (self.is_read and other.is_read):
            return True
        return bool(self.keys and other.keys) and not self.keys & other.keys


class Line:
    """The requests under way in one universe, in the order in which they were sent, and who chooses among them."""

    def __init__(self, chooser: Search | Replay) -> None:
        self._chooser = chooser
        self._waiting: list[tuple[Arrival, float, Handle]] = []

    def send(self, name: str, process: str, service: str, kind: At, keys: Iterable[str], due: float, handle: Handle) -> None:
        """A request is under way; it would arrive at `due`."""
        self._waiting.append((Arrival(name, process, service, frozenset(keys), kind is At.READ), due, handle))

    def next(self, loop: Clockwork) -> bool:
        """Let the next request arrive, unless a timer comes first. Raises CoveredError."""
        if not self._waiting:
            return False
        due = min(each[1] for each in self._waiting)
        if loop._timers and loop._timers[0][0] < due:
            return False
        index = self._chooser.choose([each[0] for each in self._waiting])
        _, due, handle = self._waiting.pop(index)
        loop._now = max(loop._now, due)
        loop._enqueue(handle)
        return True


class CoveredError(Exception):
    """Every way to go on from here has an equal that was executed before."""


class _Node(msgspec.Struct):
    """A choice: what was under way, what was chosen, and what need not be chosen here any more."""

    enabled: list[Arrival]
    chosen: int
    sleep: dict[str, Arrival]
    done: list[Arrival] = []


class Search:
    """Depth-first over all choices.

        search = Search()
        while search.more():
            execute(Line(search))

    Args:
        reduce: leave out schedules that differ from another in the order of independent arrivals only.
    """

    def __init__(self, *, reduce: bool = True) -> None:
        self._reduce = reduce
        self._path: list[_Node] = []
        self._depth = 0
        self._begun = False

    def more(self) -> bool:
        """Turn to the next schedule; False when there is none."""
        self._depth = 0
        if not self._begun:
            self._begun = True
            return True
        while self._path:
            node = self._path[-1]
            node.done.append(node.enabled[node.chosen])
            asleep = {*node.sleep, *(each.name for each in node.done)}
            left = [index for index, each in enumerate(node.enabled) if each.name not in asleep]
            if left:
                node.chosen = left[0]
                return True
            self._path.pop()
        return False

    def choose(self, enabled: list[Arrival]) -> int:
        """Which of these comes next. Raises CoveredError."""
        if len(enabled) > MOST_TOGETHER:
            raise ConfigError(f"{len(enabled)} requests are under way at once", do=f"explore schedules of at most {MOST_TOGETHER}: fewer tasks")
        if self._depth < len(self._path):
            node = self._path[self._depth]
        else:
            sleep = self._inherited() if self._reduce else {}
            awake = [index for index, each in enumerate(enabled) if each.name not in sleep]
            if not awake:
                raise CoveredError
            node = _Node(enabled, awake[0], sleep)
            self._path.append(node)
        self._depth += 1
        return node.chosen

    def _inherited(self) -> dict[str, Arrival]:
        """What slept, or was tried, at the choice before, and is independent of what was chosen there."""
        if not self._path:
            return {}
        node = self._path[-1]
        chosen = node.enabled[node.chosen]
        return {each.name: each for each in (*node.sleep.values(), *node.done) if each.commutes(chosen)}

    @property
    def number(self) -> int:
        """The schedule under way as one number, for a replay token; 0: each request in its turn."""
        return encoded([node.chosen for node in self._path[:self._depth] if len(node.enabled) > 1])


class Replay:
    """Chooses as a number says that `Search.number` gave; what comes after it is in its turn."""

    def __init__(self, number: int) -> None:
        self._choices = decoded(number)

    def choose(self, enabled: list[Arrival]) -> int:
        return min(self._choices.pop(0), len(enabled) - 1) if self._choices and len(enabled) > 1 else 0


def encoded(choices: list[int]) -> int:
    """Hexadecimal digits after a leading 1; choices of the first one at the end need not be said."""
    digits = "".join(f"{choice:x}" for choice in choices).rstrip("0")
    return int(f"1{digits}", 16) if digits else 0


def decoded(number: int) -> list[int]:
    return [int(digit, 16) for digit in f"{number:x}"[1:]]
