"""One universe, one execution: virtual time, the processes in it, and every point where they meet the world.

    a call ──▶ point: is a fault planned here? ──no──▶ ~~~ network ~~~▶ effect at the service ──▶ ~~~ ▶ reply
                         └─yes─▶ strike.py: refuse, lose the reply, land late, cut the power, ...

Everything that leaves a process passes `World.call` (or `call_blocking`), whoever made it: a fake service, the simulated
network, a store, a queue, the journal. So a point needs no annotation, and every point is one where faults can strike.
An effect lands in the context of the service, not of the caller: a request under way survives the death of its sender.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from random import Random
from types import CoroutineType
from typing import Any, NamedTuple

from yaoki import effect as effects
from yaoki import runtime as runtimes
from yaoki.chaos import faults
from yaoki.chaos.faults import At
from yaoki.explore.blocking import strike_blocking
from yaoki.explore.clocks import Clocks
from yaoki.explore.conditions import REQUEST_LOST, Conditions
from yaoki.explore.dialect import FAKE, Dialect
from yaoki.explore.loop import VirtualLoop
from yaoki.explore.memory import Memory
from yaoki.explore.process import Life, PowerCut, Process, here, owner
from yaoki.explore.runtime import SimRuntime
from yaoki.explore.strike import strike
from yaoki.explore.topology import LATENCY_S, Network, Topology

Variants = Mapping[str, Callable[[], Any]]

_active: World | None = None


def active() -> World | None:
    """The universe that is running, or None. There is one at a time in a process."""
    return _active


class Point(NamedTuple):
    """One visit of one place where a fault can strike."""

    site: str
    nth: int
    kind: At
    service: str
    process: str
    time_s: float
    fault: str
    free: bool  # may another fault be added here? (not while an outage rules)


class Key(NamedTuple):
    """The state at a point. state: of everything; durable: of what a power cut leaves; busy: is a call under way?"""

    state: bytes
    durable: bytes
    busy: bool


class World:
    """What a scenario works with.

    Args:
        plan: `(site, nth)` → fault.
        seed: of randomness and ids. order: of what falls due together; 0 keeps the order in which it was set.
        limit_s: virtual seconds an execution may take.
        most_calls: calls after which retries count as unbounded.
        network: zones, latencies and noise; None: everything is near, and nothing is lost by itself.
    """

    def __init__(self, plan: dict[tuple[str, int], str] | None = None, *, seed: int = 0, order: int = 0, limit_s: float = 86_400.0,
                 most_calls: int = 400, rng: Random | None = None, network: Network | None = None) -> None:
        self.plan = plan or {}
        self.seed = seed
        self.loop = VirtualLoop(owner, order=Random(order) if order else None, limit_s=limit_s)
        self.runtime = SimRuntime(self.loop, rng if rng is not None else Random(), seed)
        self.most_calls = most_calls
        self.latency_s = LATENCY_S
        self.points: list[Point] = []
        self.fired: list[tuple[str, int, str]] = []
        self.disk: dict[str, Any] = {}
        self.services: dict[str, Any] = {}
        self.processes: list[Process] = []
        self.main: Process | None = None
        self.notes: list[tuple[float, str, str]] | None = None  # (time, lane, words), only while a story is told
        self.reached: set[str] = set()
        self.broken: list[tuple[str, str]] = []
        self.watchers: list[Callable[[World], Any]] = []
        self.topology = Topology(network) if network is not None else None
        self.conditions = Conditions(self.topology) if network is not None else None  # what rules for a while, if anything does
        self.void = ""  # a planned fault that can do nothing at its point
        self.memory: Memory | None = None
        self.landing = 0
        self.crashes = 0
        self.stopped = ""
        self.counts: dict[str, int] = {}
        self.journals: list[Any] = []
        self.escapes: list[str] = []
        self.digests: list[Key] | None = None  # at each point; only while somebody asks
        self.under_way: list[tuple[str, str]] = []  # (process, site) of calls not answered yet
        self.timed = False
        self.circular: list[object] = []  # things that refer to themselves; see `tidy.take_apart`
        self._first_run = ""
        self.base: Context = copy_context()
        self.base.run(_enter, self)

    # ── services by host name ──

    def host(self, name: str, app: Any = None, *, make: Callable[[], Any] | None = None) -> Any:
        """Put a service on the network: an ASGI app, a WSGI app, or a function from `Request` to `Reply`.

        Args:
            name: its host name, as in `http://name/...`.
            make: makes the app; called again when the service restarts, which loses what it kept in memory.
        """
        from yaoki.explore.network import Host  # noqa: PLC0415  a universe without HTTP does not need it

        host = self.services[name] = Host(self, name, app, make)
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

    # ── points ──

    def call(self, service: str, op: str, effect: Callable[[], Any], *, kind: At = At.CALL, dialect: Dialect = FAKE,
             timeout_s: float | None = 5.0, variants: Variants | None = None) -> asyncio.Future[Any]:
        """Carry out `effect` at `service`, over the network; await the answer.

        Args:
            effect: what the service does, at once; its return value or exception is the answer. It may return a
                coroutine, which then runs in the service's own context.
            dialect: how faults look to this kind of caller.
            timeout_s: seconds after which the caller's client gives up on an answer; None: never.
            variants: what happens instead of `effect` under a fault of the point's own (a stale read, a message twice).
        """
        loop = self.loop
        future: asyncio.Future[Any] = loop.create_future()
        life = owner.get()
        if life is not None and not life.alive:
            return future  # a dead process sends nothing, and nothing answers it
        fault, site = self.visit(service, op, kind, life)
        if self.digests is not None:
            self._listen(future, life, site)
        if not fault:
            way_s = self.latency_s if self.topology is None else self.topology.one_way_s(here(), service)
            loop.call_later(way_s, self.land, future, effect, context=self.base)
        else:
            strike(self, fault, future, effect, life, service, site, dialect, timeout_s, variants)
        return future

    def call_blocking(self, service: str, op: str, effect: Callable[[], Any], *, kind: At = At.CALL, dialect: Dialect = FAKE,
                      timeout_s: float | None = 5.0, variants: Variants | None = None) -> Any:
        """The same for code that is not async. Nothing else runs until it returns."""
        life = owner.get()
        if life is not None and not life.alive:
            raise PowerCut
        fault, site = self.visit(service, op, kind, life)
        if not fault:
            value = effect()
            self.watch()
            if self.digests is not None:
                self.under_way.append((life.name if life is not None else "", site))
                self.heard(life, site, value)
            return value
        return strike_blocking(self, fault, effect, life, service, site, dialect, timeout_s, variants)

    def visit(self, service: str, op: str, kind: At, life: Life | None) -> tuple[str, str]:
        """Count the visit of a site; which fault strikes there, or ""."""
        site = self._site(service, op)
        nth = self.counts.get(site, 0)
        self.counts[site] = nth + 1
        fault, free = "", True
        if self.plan or self.conditions is not None:
            fault, free = self._fault(site, nth, service, kind)
        if self.digests is not None:
            self.digests.append(self._digest())
        self.loop.wakes = 0
        points = self.points
        points.append(Point(site, nth, kind, service, life.name if life is not None else "", self.loop._now, fault, free))
        if len(points) > self.most_calls:
            self.stop(f"{len(points)} calls and no end; the last one is {site}")
        if self.notes is not None:
            self.note(life.name if life is not None else "", f"→ {site}" + (f"  ⚡ {fault}" if fault else ""))
        return fault, site

    def _fault(self, site: str, nth: int, service: str, kind: At) -> tuple[str, bool]:
        """What strikes here, and whether another fault could have been added."""
        fault = self.plan.pop((site, nth), "")
        if fault:
            self.fired.append((site, nth, fault))
            return (self.rules().begin_outage(service, fault) if faults.find(fault).lasts else fault), True
        if self.conditions is None:
            return "", True
        return self.conditions.strike(service, here(), kind, self.loop._now)

    def _digest(self) -> Key:
        durable = self.durable()
        volatile = repr([(process.name, process.done, process.life.born, sorted(process.life.heard.items())) for process in self.processes])
        clock = f"{self.loop.time():.6f}" if self.timed else ""
        return Key(_hash(durable + f"{volatile}{sorted(self.under_way)}{clock}".encode()), durable, bool(self.under_way))

    def durable(self) -> bytes:
        """Digest of everything that outlives every process, and of the faults that still rule."""
        return _hash(repr((sorted((name, state.digest()) for name, state in self.services.items()),
                           [journal.digest() for journal in self.journals], sorted(self.disk.items()),
                           "" if self.conditions is None else self.conditions.digest(),
                           "" if self.runtime.clocks is None else self.runtime.clocks.digest(), self.landing)).encode())

    def heard(self, life: Life | None, site: str, answer: object) -> None:
        """Keep in mind what a process was told: that and what was durable at its start make it what it is."""
        self.under_way.remove((life.name if life is not None else "", site))
        if life is not None:
            step = site.partition(">")[0] if ">" in site else ""
            life.heard[step] = _hash(life.heard.get(step, b"") + f"{site}:{answer!r}".encode())

    def _listen(self, future: asyncio.Future[Any], life: Life | None, site: str) -> None:
        self.under_way.append((life.name if life is not None else "", site))

        def hear(done: asyncio.Future[Any]) -> None:
            answer = "cancelled" if done.cancelled() else done.exception() or done.result()
            self.heard(life, site, answer)

        future.add_done_callback(hear, context=self.base)

    def _site(self, service: str, op: str) -> str:
        current = effects.current.get()
        if current is None:
            return f"{service}.{op}"
        step = f"{current.step}!undo" if current.undo else current.step
        if current.run == self._first_run:
            return f"{step}>{service}.{op}"
        if not self._first_run:
            self._first_run = current.run
            return f"{step}>{service}.{op}"
        return f"{current.run}/{step}>{service}.{op}"

    def restart_service(self, name: str) -> None:
        """The service loses what it had not made durable, and is there again at once."""
        self.note(name, "✗ restarts")
        state = self.services.get(name)
        if state is not None:
            state.lose_memory()

    # ── landing: the request has arrived ──

    def land(self, future: asyncio.Future[Any], effect: Callable[[], Any]) -> None:
        """Carry out the effect and answer."""
        try:
            value = effect()
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        else:
            if type(value) is CoroutineType:
                self.serve(value, future)
                return
            if not future.done():
                future.set_result(value)
        if self.watchers:
            self.watch()

    def serve(self, work: Any, future: asyncio.Future[Any] | None, then: Callable[[], None] | None = None) -> None:
        """Run a service's coroutine, then answer (or not, when `future` is None), then call `then`."""
        task = self.loop.create_task(work, context=self.base.copy())

        def finish(done: asyncio.Task[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            if future is not None and not future.done() and not done.cancelled():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(done.result())
            self.watch()
            if then is not None:
                then()

        task.add_done_callback(finish, context=self.base)

    def watch(self) -> None:
        """Let the invariants that must hold at every moment look at the state."""
        for watcher in self.watchers:
            said = watcher(self)
            if said:
                self.break_(getattr(watcher, "name", getattr(watcher, "__name__", "always")), str(said))

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

    def unfired(self) -> list[str]:
        """Planned faults that were never reached."""
        return [f"{site}@{nth}={fault}" for (site, nth), fault in self.plan.items()]

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
        if self.landing == 0 and all(process.done or (process.daemon and process is not self.main) for process in self.processes):
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
        return self.loop.described(task for task, life in self.loop.unfinished() if isinstance(life, Life) and not life.process.daemon)


def _hash(data: bytes) -> bytes:
    # Never `hash()`: it differs between processes.
    return hashlib.blake2b(data, digest_size=16).digest()


def _enter(world: World) -> None:
    owner.set(None)
    effects.current.set(None)
    runtimes.install(world.runtime)
