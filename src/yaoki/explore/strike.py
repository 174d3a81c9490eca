"""What each fault of the catalogue does to one call, in virtual time.

    before (a clock jumps, a partition begins)  ▸  what happens at the service  ▸  what the caller hears, or its end
                                                   none · once · late · twice · the point's own variant

A fault is a `Shape` of these three, so that callers who await and callers who block meet the same faults (`blocking.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from yaoki.chaos import faults
from yaoki.explore.clocks import FREEZE_S, SKEW_S
from yaoki.explore.process import serving

if TYPE_CHECKING:
    from yaoki.explore.dialect import Dialect
    from yaoki.explore.process import Life
    from yaoki.explore.world import Variants, World

# A late effect lands after every timeout, retry and undo that a program is likely to make, in seconds.
LATE_S = 120.0
# A delayed request is overtaken by two round trips of its neighbours, in units of the network's latency.
OVERTAKEN = 4.5
# How long a paused process stands still: longer than the default lease of a worker (30 s).
PAUSE_S = 90.0
# How long a busy one does: longer than one attempt may take, shorter than any lease.
BUSY_S = 2.0
# How long caller and service cannot reach each other: longer than one attempt, shorter than a retry's patience.
PARTITION_S = 8.0
# How long a slow answer dribbles: far longer than any deadline for a page, and no pause in it is longer than a second.
SLOW_S = 60.0
JUMP_S = 3600.0


class Strike:
    """One fault about to happen to one call."""

    __slots__ = ("dialect", "effect", "fault", "future", "latency", "life", "service", "site", "timeout_s", "variants", "world")

    def __init__(self, world: World, fault: str, future: asyncio.Future[Any], effect: Callable[[], Any], life: Life | None, service: str,
                 site: str, dialect: Dialect, timeout_s: float | None, variants: Variants | None) -> None:
        self.world = world
        self.fault = fault
        self.future = future
        self.effect = effect
        self.life = life
        self.service = service
        self.site = site
        self.dialect = dialect
        self.timeout_s = timeout_s
        self.variants = variants or {}
        self.latency = world.latency_s if world.topology is None else world.topology.one_way_s(self.caller, service)

    @property
    def caller(self) -> str:
        """The host that calls: a process, or a service that calls on."""
        return self.life.name if self.life is not None else serving.get()

    # ── what happens at the service ──

    def land(self, after_s: float | None = None, then: Callable[[], None] | None = None) -> None:
        """The effect happens and no answer is sent; then `then`."""
        world = self.world
        world.landing += 1
        world.loop.call_later(self.latency if after_s is None else after_s, self._landed, then, context=world.base)

    def _landed(self, then: Callable[[], None] | None) -> None:
        world = self.world
        try:
            value = self.effect()
        except Exception as error:
            world.note(self.service, f"{self.site} answers {error!r}, unheard")
        else:
            if asyncio.iscoroutine(value):
                world.serve(value, None, lambda: self._after(then))
                return
            world.note(self.service, f"{self.site} takes effect, unheard")
        world.watch()
        self._after(then)

    def _after(self, then: Callable[[], None] | None) -> None:
        self.world.landing -= 1
        if self.world.landing == 0:
            self.world.ended()
        if then is not None:
            then()

    def deliver(self, after_s: float | None = None) -> None:
        """The effect happens and is answered."""
        world = self.world
        world.loop.call_later(self.latency if after_s is None else after_s, world.land, self.future, self.effect, context=world.base)

    def dribble(self) -> None:
        """The effect happens, and the answer takes a minute to come; no timeout between two bytes of it sees that."""
        world = self.world
        ready: asyncio.Future[Any] = world.loop.create_future()
        ready.add_done_callback(lambda done: self.answer(done.exception() or done.result(), SLOW_S), context=world.base)
        world.loop.call_later(self.latency, world.land, ready, self.effect, context=world.base)

    # ── what the caller hears ──

    def answer(self, value: Any, after_s: float | None = None) -> None:
        self.world.loop.call_later(2 * self.latency if after_s is None else after_s, _settle, self.future, value, context=self.world.base)

    def silence(self) -> None:
        """No answer: the caller's client gives up in its own time, or never."""
        self.world.loop.labels[self.future] = f"an answer of {self.service} ({self.site}) that never comes"
        if self.timeout_s is not None:
            self.answer(self.dialect.timed_out(self.site, self.timeout_s), self.timeout_s)

    def cut(self) -> None:
        if self.life is not None and self.life.alive:
            self.world.power_cut(self.life.process)

    def chosen_variant(self) -> None:
        """Put what the point itself does under this fault in place of its effect; a point that has nothing says so."""
        found = self.variants.get(self.fault)
        if found is None:
            self.world.void = self.world.void or f"{self.fault} can do nothing at {self.site}"
        else:
            self.effect = found


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if future.done():
        return
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)


# ── shapes ──


class Shape(NamedTuple):
    """What a fault does.

    Attributes:
        effect: at the service: none, once, late, twice, or `variant`: the point's own.
        says: what the caller hears: `reply`, `silence`, or the word of its dialect (refused, in_doubt, ...).
        cut: the caller's power goes, right after the effect.
        before: done first, at once.
        wait: before the request arrives, in units of the network's latency.
        slow: the reply comes byte by byte.
    """

    effect: str = "none"
    says: str = "reply"
    cut: bool = False
    before: Callable[[Strike], None] | None = None
    wait: float = 1.0
    slow: bool = False


def _begin_cut(fault: str) -> Callable[[Strike], None]:
    return lambda s: s.world.rules().cut(s.service, fault, s.world.now + PARTITION_S)


def _begin_zone_cut(s: Strike) -> None:
    topology = s.world.topology
    zone = topology.zone_of.get(s.service) if topology is not None else None
    if topology is None or zone is None or zone == topology.zone_of.get(s.caller):
        s.world.void = s.world.void or f"{s.service} and {s.caller} are in one zone, or in none"
        return
    topology.cut([zone], s.world.now + PARTITION_S)


def _jump(seconds: float) -> Callable[[Strike], None]:
    def jump(s: Strike) -> None:
        s.world.runtime.wall_offset_s += seconds

    return jump


def _skew(seconds: float) -> Callable[[Strike], None]:
    return lambda s: s.world.clocks.skew(s.caller, seconds)


def _freeze(s: Strike) -> None:
    s.world.clocks.freeze(s.caller, s.world.now + s.world.runtime.wall_offset_s, FREEZE_S)


def _twin(s: Strike) -> None:
    if s.life is not None:
        process = s.life.process
        s.world.base.run(s.world.start, f"{process.name}'s twin", process.main, *process.args, daemon=process.daemon)


def _restart(s: Strike) -> None:
    s.world.restart_service(s.service)


_ONCE_IN_DOUBT = Shape("once", "in_doubt")
_REFUSED = Shape(says="refused")
_OWN = Shape("variant")

SHAPES: dict[str, Shape] = {
    "call.reject": _REFUSED, "net.dns": _REFUSED, "disk.full": _REFUSED, "res.queue_full": _REFUSED,
    "call.error": Shape(says="failed"), "disk.eio": Shape(says="failed"), "call.throttle": Shape(says="throttled"),
    "call.conflict": Shape(says="conflict"), "call.conflict:answer": Shape(says="conflict"),
    "res.fd": Shape(says="exhausted"), "res.pool_exhausted": Shape(says="exhausted"),
    "call.lost_ack": _ONCE_IN_DOUBT, "net.reset": _ONCE_IN_DOUBT,
    "call.timeout:none": Shape(says="silence"), "call.timeout:done": Shape("once", "silence"), "call.timeout:late": Shape("late", "silence"),
    "call.delay": Shape("once", wait=OVERTAKEN), "call.slow": Shape("once", slow=True), "call.duplicate": Shape("twice"),
    "crash.before_effect": Shape(cut=True), "crash.before_ack": Shape(cut=True), "disk.unsynced_lost": Shape(cut=True), "res.mem": Shape(cut=True),
    "crash.after_effect": Shape("once", cut=True), "crash.after_checkpoint": Shape("once", cut=True),
    "disk.torn": Shape("variant", cut=True),
    "proc.restart": Shape("restart", "in_doubt"), "msg.restart": Shape(says="in_doubt", before=_restart),
    "proc.twin": Shape("once", before=_twin),
    "net.partition": Shape(says="silence", before=_begin_cut("call.timeout:none")),
    "net.partition:asym": Shape("once", "silence", before=_begin_cut("call.timeout:done")),
    "net.partition:zone": Shape(says="silence", before=_begin_zone_cut),
    "clock.jump": Shape("once", before=_jump(JUMP_S)), "clock.jump:back": Shape("once", before=_jump(-JUMP_S)),
    "clock.skew": Shape("once", before=_skew(SKEW_S)), "clock.skew:behind": Shape("once", before=_skew(-SKEW_S)),
    "clock.freeze": Shape("once", before=_freeze),
    "proc.cancel": Shape("once"), "proc.pause": Shape("once"), "proc.pause:sent": Shape("once"), "res.cpu": Shape("once"),  # see `_PAUSING`
    **dict.fromkeys(("call.partial", "read.stale", "payload.truncate", "payload.corrupt", "payload.unexpected", "msg.duplicate", "msg.reorder",
                     "msg.delay", "msg.redeliver", "msg.drop", "msg.poison", "disk.bitrot", "stream.replay", "stream.gap", "stream.stuck",
                     "stream.shard_stuck", "stream.shard_split", "stream.iterator_expired"), _OWN),
}


def simulated(fault: faults.Fault) -> bool:
    """Can the explorer make this fault happen?"""
    return fault.id in SHAPES or fault.lasts


def is_own(fault: str) -> bool:
    """Can only a point make it happen that has a way of its own to do so? At others it can do nothing."""
    return SHAPES.get(fault) is _OWN


# ── to a caller that awaits ──


def strike(world: World, fault: str, future: asyncio.Future[Any], effect: Callable[[], Any], life: Life | None, service: str,
           site: str, dialect: Dialect, timeout_s: float | None, variants: Variants | None) -> None:
    """Make `fault` happen to this call."""
    s = Strike(world, fault, future, effect, life, service, site, dialect, timeout_s, variants)
    shape = SHAPES[fault]
    if shape.before is not None:
        shape.before(s)
    special = _PAUSING.get(fault)
    if special is not None:
        special(s)
    elif shape.cut:
        _end(s, shape)
    elif shape.says == "reply":
        _reply(s, shape)
    elif shape.says == "silence":
        if shape.effect != "none":
            s.land(LATE_S if shape.effect == "late" else None)
        s.silence()
    else:
        _answer(s, shape)


def _end(s: Strike, shape: Shape) -> None:
    if shape.effect == "variant":
        s.effect = s.variants.get(s.fault, _nothing)
    if shape.effect == "none":
        s.cut()
    else:
        s.land(then=s.cut)


def _reply(s: Strike, shape: Shape) -> None:
    if shape.effect == "variant":
        s.chosen_variant()
    if shape.slow:
        s.dribble()
        return
    s.deliver(shape.wait * s.latency)
    if shape.effect == "twice":
        s.land(2 * s.latency)


def _answer(s: Strike, shape: Shape) -> None:
    said = getattr(s.dialect, shape.says)
    if shape.effect == "none":
        s.answer(said(s.site))
    elif shape.effect == "restart":
        s.land(then=lambda: _answer_after_restart(s, said(s.site)))
    else:
        s.land(then=lambda: s.answer(said(s.site)))


def _answer_after_restart(s: Strike, said: Any) -> None:
    _restart(s)
    s.answer(said)


def _nothing() -> None:
    """A write of which nothing arrived."""


def _cancel(s: Strike) -> None:
    s.land()
    task = asyncio.current_task(s.world.loop)
    if task is not None:
        s.world.loop.call_later(s.latency / 2, task.cancel, context=s.world.base)


def _pause(s: Strike) -> None:
    """The request is only sent when the process goes on."""
    if s.life is not None:
        s.world.loop.pause(s.life, PAUSE_S)
        s.world.note(s.life.name, f"stands still for {PAUSE_S:g} s")
    s.deliver(PAUSE_S + s.latency)


def _busy(s: Strike) -> None:
    """The request is sent, and the answer has to wait."""
    if s.life is not None:
        s.world.loop.pause(s.life, BUSY_S)
        s.world.note(s.life.name, f"is busy for {BUSY_S:g} s")
    s.deliver()


def _pause_sent(s: Strike) -> None:
    """The same, for longer than a lease: others take over what this process believes to hold."""
    if s.life is not None:
        s.world.loop.pause(s.life, PAUSE_S)
        s.world.note(s.life.name, f"stands still for {PAUSE_S:g} s")
    s.deliver()


_PAUSING: dict[str, Callable[[Strike], None]] = {"proc.cancel": _cancel, "proc.pause": _pause, "proc.pause:sent": _pause_sent, "res.cpu": _busy}
