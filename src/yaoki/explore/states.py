"""What the explorer takes for the state at a point, and how it is digested. The why is in decision 14.

    durable     what a power cut leaves: services with their accounts and logs, journals, stores, faults that still rule
    volatile    for each process, what was durable when it started and the answers it has had since
    under way   requests that are not answered yet, and time limits that are running, with what is left of them
    policies    what breakers, budgets and the like remember, where it is not what they began with
    time        only where somebody decides by it: see `clock_reads.py`

Answers on the way to a step's recorded end are forgotten. Digests are of canonical text, never `hash()`: that one differs between
processes. Only executions whose points are to be extended keep any: it takes longer than the execution itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from yaoki.explore.clock_reads import limits
from yaoki.explore.process import Life, Process, owner

if TYPE_CHECKING:
    from yaoki.explore.world import World


class Key(NamedTuple):
    """The state at a point.

    state: of everything. left: of what remains when the process that is here loses power: what is durable, the other processes, and
    requests under way, which land although their sender is dead. busy: is a call under way?
    """

    state: bytes
    left: bytes
    busy: bool


class States:
    """The states of one universe, point by point.

    Args:
        timed: does it matter when things happen? Then states at different times are different states.
    """

    def __init__(self, world: World, *, timed: bool) -> None:
        self.keys: list[Key] = []
        self._world = world
        self._timed = timed
        self._under_way: list[tuple[str, str, str]] = []  # (process, site, fault that struck there)
        self.offers: dict[int, Collection[str]] = {}  # what a point can do of its own, by its index; others did not say

    # ── what processes are told ──

    def sent(self, life: Life | None, site: str, fault: str = "") -> None:
        """A request is under way from now on; one that will be refused is not one that will arrive."""
        self._under_way.append((life.name if life is not None else "", site, fault))

    def heard(self, life: Life | None, site: str, answer: object, fault: str = "") -> None:
        """Keep in mind what a process was told: that and what was durable at its start make it what it is."""
        self._under_way.remove((life.name if life is not None else "", site, fault))
        if life is not None:
            step = site.partition(">")[0] if ">" in site else ""
            life.heard[step] = _hash(life.heard.get(step, b"") + f"{site}:{answer!r}".encode())

    def listen(self, future: asyncio.Future[Any], life: Life | None, site: str, fault: str) -> None:
        """Hear what will be answered."""
        self.sent(life, site, fault)

        def hear(done: asyncio.Future[Any]) -> None:
            self.heard(life, site, "cancelled" if done.cancelled() else done.exception() or done.result(), fault)

        future.add_done_callback(hear, context=self._world.base)

    # ── digests ──

    def mark(self) -> None:
        """Keep the state at the point that is being visited."""
        world, here, durable = self._world, owner.get(), self.durable()
        if self._timed:
            durable = _hash(durable + f"{world.loop.time():.6f}".encode())
        others = repr([_volatile(process) for process in world.processes if here is None or process is not here.process])
        mine = "" if here is None else repr(_volatile(here.process))
        under_way, running = sorted(self._under_way), limits(world.loop)
        name = "" if here is None else here.name
        left = _hash(durable + f"{name}{others}{under_way}{[each for each in running if each[0] != name]}".encode())
        remembered = "" if world.memory is None else world.memory.digest()
        self.keys.append(Key(_hash(left + f"{mine}{running}{remembered}".encode()), left, bool(under_way)))

    def durable(self) -> bytes:
        """Of everything that outlives every process, and of the faults that still rule."""
        world = self._world
        conditions, clocks = world.conditions, world.runtime.clocks
        return _hash(repr((sorted((name, state.digest()) for name, state in world.services.items()),
                           [journal.digest() for journal in world.journals], sorted(world.disk.items()),
                           "" if conditions is None else conditions.digest(),
                           "" if clocks is None else clocks.digest(), world.landing)).encode())


def _volatile(process: Process) -> tuple[object, ...]:
    """What one process is: what was durable when it started, and what it was told since."""
    return process.name, process.done, process.life.born, sorted(process.life.heard.items())


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
