"""One universe, one execution: what a scenario works with. Virtual time, processes, services by name, and what is reported.

Everything that leaves a process passes `call` (or `call_blocking`) of `points.py`, whoever made it: a fake service, the
simulated network, a store, a queue, the journal. So a point needs no annotation, and every point is one where faults can strike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from random import Random
from typing import Any

from yaoki import effect as effects
from yaoki import runtime as runtimes
from yaoki.explore.clock_reads import ClockReads
from yaoki.explore.clocks import Clocks
from yaoki.explore.conditions import REQUEST_LOST, Conditions
from yaoki.explore.loop import VirtualLoop
from yaoki.explore.memory import Memory
from yaoki.explore.points import Point, Points, Variants
from yaoki.explore.process import Life, Process, owner
from yaoki.explore.runtime import SimRuntime
from yaoki.explore.topology import Network, Topology

_active: World | None = None


def active() -> World | None:
    """The universe that is running, or None. There is one at a time in a process."""
    return _active


class World(Points):
    """What a scenario works with.

    Args:
        plan: `(site, nth)` → fault.
        seed: of randomness and ids. order: of what falls due together; 0 keeps the order in which it was set.
        limit_s: virtual seconds an execution may take.
        most_calls: calls after which retries count as unbounded.
        network: zones, latencies and noise; None: everything is near, and nothing is lost by itself.
        watch: notice who reads a clock.
    """

    # What most universes never change. Python keeps objects of up to thirty attributes closer together, which is worth a tenth of a universe.
    clock_reads: ClockReads | None = None
    main: Process | None = None
    memory: Memory | None = None
    void = ""  # a planned fault that can do nothing at its point
    stopped = ""
    crashes = 0

    def __init__(self, plan: dict[tuple[str, int], str] | None = None, *, seed: int = 0, order: int = 0, limit_s: float = 86_400.0,
                 most_calls: int = 400, rng: Random | None = None, network: Network | None = None, watch: bool = False) -> None:
        super().__init__(plan, most_calls=most_calls)
        self.seed = seed
        self.loop = VirtualLoop(owner, order=Random(order) if order else None, limit_s=limit_s)
        self.runtime = SimRuntime(self.loop, rng if rng is not None else Random(), seed)
        if watch:
            self.clock_reads = ClockReads()
            self.loop.watched = self.clock_reads.look
        self.disk: dict[str, Any] = {}
        self.services: dict[str, Any] = {}
        self.journals: list[Any] = []
        self.processes: list[Process] = []
        self.notes: list[tuple[float, str, str]] | None = None  # (time, lane, words), only while a story is told
        self.reached: set[str] = set()
        self.broken: list[tuple[str, str]] = []
        self.topology = Topology(network) if network is not None else None
        self.conditions = Conditions(self.topology) if network is not None else None  # what rules for a while, if anything does
        self.escapes: list[str] = []
        self.circular: list[object] = []  # things that refer to themselves; see `tidy.take_apart`
        self.base: Context = copy_context()
        self.base.run(_enter, self)

    # ── services by host name ──

    def host(self, name: str, app: Any = None, *, make: Callable[[], Any] | None = None, lifespan: bool = True) -> Any:
        """Put a service on the network: an ASGI app, a WSGI app, or a function from `Request` to `Reply`.

        Args:
            name: its host name, as in `http://name/...`.
            make: makes the app; called again when the service restarts, which loses what it kept in memory.
            lifespan: is an ASGI app's start-up run? False where its server leaves it out, as uvicorn does with `lifespan="off"`.
        """
        from yaoki.explore.network import Host  # noqa: PLC0415  a universe without HTTP does not need it

        host = self.services[name] = Host(self, name, app, make, lifespan=lifespan)
        return host

    def partition(self, *names: str, for_s: float | None = None) -> None:
        """Cut services off: every request to them is lost, until `heal` or for so many seconds.

        Args:
            names: services, each cut off from everybody; or zones of `Network`: one from all others, several from each other.
        """
        until = float("inf") if for_s is None else self.now + for_s
        rules = self.rules()
        if self.topology is not None and set(names) <= self.topology.network.zones.keys():
            self.topology.cut(names, until)
            return
        for name in names:
            rules.cut(name, REQUEST_LOST, until)

    def heal(self, *names: str) -> None:
        """End `partition`, of these services and zones or of all."""
        if self.conditions is not None:
            self.conditions.heal(*names)

    def rules(self) -> Conditions:
        """The conditions of this universe, to add to."""
        if self.conditions is None:
            self.conditions = Conditions(self.topology)
        return self.conditions

    @property
    def clocks(self) -> Clocks:
        """Wall clocks that are wrong: `world.clocks.skew("bank", 300.0)`."""
        if self.runtime.clocks is None:
            self.runtime.clocks = Clocks()
        return self.runtime.clocks

    def decides_by_time(self, why: str) -> None:
        """Say that what happens here depends on when, although nobody looks at a clock. why: for people; "" does nothing."""
        if self.clock_reads is not None and not self.clock_reads.where:
            self.clock_reads.where = why

    @property
    def rng(self) -> Random:
        """Seeded randomness."""
        return self.runtime.rng

    # ── time, for scenarios and invariants ──

    @property
    def now(self) -> float:
        return self.loop.time()

    async def sleep(self, delay_s: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(delay_s)

    # ── processes ──

    def start(self, name: str, main: Callable[..., Any], *args: Any, daemon: bool = False, restart_s: float = 1.0) -> Process:
        """Start a process: `main(*args)`, async or not. After a power cut it starts again, from the top.

        Args:
            daemon: it is not waited for at the end, and may be left running.
            restart_s: seconds from a power cut to the new start.
        """
        process = Process(self, name, main, args, daemon=daemon, restart_s=restart_s)
        self.processes.append(process)
        process.begin()
        return process

    def power_cut(self, process: Process) -> None:
        """End `process` this instant: no exception, no `finally`; what was not durable is gone. It restarts by itself."""
        self.crashes += 1
        self.note(process.name, "✗ power cut")
        process.die()

    @property
    def process(self) -> Process | None:
        """The process that the running code belongs to."""
        life = owner.get()
        return life.process if life is not None else None

    # ── services that fail ──

    def restart_service(self, name: str) -> None:
        """The service loses what it had not made durable, and is there again at once."""
        self.note(name, "✗ restarts")
        state = self.services.get(name)
        if state is not None:
            state.lose_memory()

    # ── what is reported ──

    def break_(self, invariant: str, why: str) -> None:
        """Report a broken invariant. The execution goes on; the first report of each counts."""
        if all(name != invariant for name, _ in self.broken):
            self.broken.append((invariant, why))
            self.note("", f"✗ {invariant}: {why}")

    def sometimes(self, name: str, condition: object = True) -> None:  # noqa: FBT002  reads as a sentence
        """Some execution must come here with `condition` true, or the exploration proves less than it seems to."""
        if condition:
            self.reached.add(name)
        else:
            self.reached.add(f"?{name}")

    def stop(self, why: str) -> None:
        """End the execution here, as one that would not end by itself."""
        self.stopped = self.stopped or why
        self.loop.finished = True

    # ── the story ──

    def note(self, lane: str, words: str) -> None:
        """Add a line to the timeline; costs nothing while nobody tells the story."""
        if self.notes is not None:
            self.notes.append((self.loop.time(), lane, words))

    # ── running ──

    def run(self, main: Callable[..., Any], *args: Any) -> None:
        """Run `main` as the first process until it ends and everything under way has landed.

        Raises:
            DeadlockError, LivelockError: it does not end.
        """
        global _active
        outer, _active = _active, self
        try:
            self.main = self.base.run(self.start, "main", main, *args)
            self.loop.run()
        finally:
            _active = outer

    def ended(self) -> None:
        """A process has ended, or a late effect has landed: is everything over?"""
        if self.landing == 0:
            for process in self.processes:
                if not process.done and (not process.daemon or process is self.main):
                    return
            self.loop.finished = True

    def rerun(self, main: Callable[..., Any]) -> Process:
        """After the end: run one more process, until it ends too."""
        global _active
        outer, _active = _active, self
        try:
            process = self.base.run(self.start, "later", main)
            self.loop.finished = False
            self.loop.run()
        finally:
            _active = outer
        return process

    def inside(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call `fn` as the world: for invariants and for reading what services keep."""
        global _active
        outer, _active = _active, self
        try:
            return self.base.run(fn, *args)
        finally:
            _active = outer

    def end(self) -> None:
        """Close what the execution left behind."""
        global _active
        outer, _active = _active, self
        try:
            for process in self.processes:
                process.life.alive = False
            self.base.run(self.loop.bury)
        finally:
            _active = outer

    def leaks(self) -> list[str]:
        """Tasks that their process left running, one line each."""
        left = [task for task, life in self.loop.unfinished() if isinstance(life, Life) and not life.process.daemon]
        return self.loop.described(left) if left else []


def _enter(world: World) -> None:
    owner.set(None)
    effects.current.set(None)
    runtimes.install(world.runtime)


__all__ = ["Point", "Variants", "World", "active"]
