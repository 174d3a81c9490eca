"""In which order requests that are under way together arrive: every order that can matter, and each of those once.

    under way: a (ann → stock/seat), b (bob → stock/seat), c (ann → mail)

    a before b, or b before a: they touch the same key, so both orders are executed
    b before c, or c before b: other processes, other services: whatever comes of one comes of the other

Two arrivals are independent when they belong to different processes and touch nothing in common; two reads have nothing in common.
Then their order changes neither what is kept, nor what either process is told, nor what else is under way. Depth-first search with
sleep sets executes one schedule of each class of schedules that differ in the order of independent arrivals only. (Godefroid,
Partial-Order Methods for the Verification of Concurrent Systems, LNCS 1032, 1996, section 5.) And it only turns aside where it has to:
after each execution every *race* in it (two dependent arrivals, with nothing between them that makes one wait for the other) has the later
one tried before the earlier one. (Source sets: Abdulla, Aronis, Jonsson and Sagonas, Optimal dynamic partial order reduction, POPL 2014.)

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
        cause: the place, in this execution, of the arrival after which it was sent; -1: of none, or a timer came between.
    """

    name: str
    process: str
    service: str
    keys: frozenset[str]
    is_read: bool
    cause: int = -1

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
        self._arrived = 0
        self._latest = -1  # the arrival of whose consequences we are in the middle

    def send(self, name: str, process: str, service: str, kind: At, keys: Iterable[str], due: float, handle: Handle) -> None:
        """A request is under way; it would arrive at `due`."""
        self._waiting.append((Arrival(name, process, service, frozenset(keys), kind is At.READ, self._latest), due, handle))

    def next(self, loop: Clockwork) -> bool:
        """Let the next request arrive, unless a timer comes first. Raises CoveredError."""
        self._latest = -1
        if not self._waiting:
            return False
        due = min(each[1] for each in self._waiting)
        if loop._timers and loop._timers[0][0] < due:
            return False
        index = self._chooser.choose([each[0] for each in self._waiting])
        _, due, handle = self._waiting.pop(index)
        self._latest, self._arrived = self._arrived, self._arrived + 1
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
    wanted: set[str]  # what has to be chosen here, some time
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
        if not self._begun:
            self._begun = True
            return True
        if self._reduce:
            self._want(self._path[:self._depth])
        self._depth = 0
        while self._path:
            node = self._path[-1]
            node.done.append(node.enabled[node.chosen])
            asleep = {*node.sleep, *(each.name for each in node.done)}
            left = [index for index, each in enumerate(node.enabled) if each.name not in asleep and each.name in node.wanted]
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
            wanted = {enabled[awake[0]].name} if self._reduce else {each.name for each in enabled}
            node = _Node(enabled, awake[0], sleep, wanted)
            self._path.append(node)
        self._depth += 1
        return node.chosen

    def _want(self, path: list[_Node]) -> None:
        """See which races there were, and that each is also gone through the other way round."""
        came = [node.enabled[node.chosen] for node in path]
        before: list[int] = []  # for each arrival, a bit for each earlier one that it had to wait for
        for place, arrival in enumerate(came):
            waited = 0
            for earlier in range(place):
                if earlier == arrival.cause or not came[earlier].commutes(arrival):
                    waited |= 1 << earlier | before[earlier]
            before.append(waited)
            for earlier in range(place):
                if earlier != arrival.cause and not came[earlier].commutes(arrival) and not _between(before, earlier, place):
                    _turn_aside(path[earlier], came, before, earlier, place)

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


def _between(before: list[int], earlier: int, later: int) -> bool:
    """Did something wait for the earlier one, and the later one for it?"""
    return any(before[later] >> middle & 1 and before[middle] >> earlier & 1 for middle in range(earlier + 1, later))


def _turn_aside(node: _Node, came: list[Arrival], before: list[int], earlier: int, later: int) -> None:
    """At `node`, begin with something that leads to the later one first: one of those that need not wait for anything on that way."""
    way = [middle for middle in range(earlier + 1, later) if not before[middle] >> earlier & 1]
    way.append(later)
    first = [came[each].name for each in way if not any(before[each] >> other & 1 for other in way)]
    if not node.wanted & set(first):
        enabled = {each.name for each in node.enabled}
        # What was not under way here came by a timer, say; then nothing is left out.
        node.wanted |= {first[0]} if first[0] in enabled else enabled


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
