"""What each fault of the catalogue does to one call, in virtual time. The word before the colon is the id's first half."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from yaoki.chaos import faults
from yaoki.explore.process import PowerCut

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
# How long caller and service cannot reach each other: longer than one attempt, shorter than a retry's patience.
PARTITION_S = 8.0
JUMP_S = 3600.0


class Strike:
    """One fault about to happen to one call."""

    __slots__ = ("dialect", "effect", "future", "latency", "life", "service", "site", "timeout_s", "variants", "world")

    def __init__(self, world: World, future: asyncio.Future[Any], effect: Callable[[], Any], life: Life | None, service: str,
                 site: str, dialect: Dialect, timeout_s: float | None, variants: Variants | None) -> None:
        self.world = world
        self.future = future
        self.effect = effect
        self.life = life
        self.service = service
        self.site = site
        self.dialect = dialect
        self.timeout_s = timeout_s
        self.variants = variants or {}
        self.latency = world.latency_s

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


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if future.done():
        return
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)


def strike(world: World, fault: str, future: asyncio.Future[Any], effect: Callable[[], Any], life: Life | None, service: str,
           site: str, dialect: Dialect, timeout_s: float | None, variants: Variants | None) -> None:
    """Make `fault` happen to this call."""
    _ASYNC[fault](Strike(world, future, effect, life, service, site, dialect, timeout_s, variants))


def _reject(s: Strike) -> None:
    s.answer(s.dialect.refused(s.site))


def _error(s: Strike) -> None:
    s.answer(s.dialect.failed(s.site))


def _throttle(s: Strike) -> None:
    s.answer(s.dialect.throttled(s.site))


def _lost_ack(s: Strike) -> None:
    s.land(then=lambda: s.answer(s.dialect.in_doubt(s.site)))


def _never(s: Strike) -> None:
    s.silence()


def _unheard(s: Strike) -> None:
    s.land()
    s.silence()


def _late(s: Strike) -> None:
    s.land(LATE_S)
    s.silence()


def _delay(s: Strike) -> None:
    s.deliver(OVERTAKEN * s.latency)


def _duplicate(s: Strike) -> None:
    s.deliver()
    s.land(2 * s.latency)


def _variant(fault: str) -> Callable[[Strike], None]:
    def happen(s: Strike) -> None:
        s.effect = s.variants.get(fault, s.effect)
        s.deliver()

    return happen


def _crash_before(s: Strike) -> None:
    s.cut()


def _crash_after(s: Strike) -> None:
    s.land(then=s.cut)


def _cancel(s: Strike) -> None:
    s.land()
    task = asyncio.current_task(s.world.loop)
    if task is not None:
        s.world.loop.call_later(s.latency / 2, task.cancel, context=s.world.base)


def _pause(s: Strike) -> None:
    if s.life is not None:
        s.world.loop.pause(s.life, PAUSE_S)
        s.world.note(s.life.name, f"stands still for {PAUSE_S:g} s")
    s.deliver(PAUSE_S + s.latency)


def _restart(s: Strike) -> None:
    def die() -> None:
        s.world.restart_service(s.service)
        s.answer(s.dialect.in_doubt(s.site))

    s.land(then=die)


def _partition(s: Strike) -> None:
    s.world.cuts[s.service] = ("call.timeout:none", s.world.now + PARTITION_S)
    s.silence()


def _partition_asym(s: Strike) -> None:
    s.world.cuts[s.service] = ("call.timeout:done", s.world.now + PARTITION_S)
    _unheard(s)


def _jump(seconds: float) -> Callable[[Strike], None]:
    def jump(s: Strike) -> None:
        s.world.runtime.wall_offset_s += seconds
        s.deliver()

    return jump


_ASYNC: dict[str, Callable[[Strike], None]] = {
    "call.reject": _reject, "call.error": _error, "call.throttle": _throttle, "call.lost_ack": _lost_ack,
    "call.timeout:none": _never, "call.timeout:done": _unheard, "call.timeout:late": _late, "call.delay": _delay,
    "call.duplicate": _duplicate, "net.dns": _reject, "net.reset": _lost_ack, "read.stale": _variant("read.stale"),
    "crash.before_effect": _crash_before, "crash.after_effect": _crash_after, "crash.after_checkpoint": _crash_after,
    "crash.before_ack": _crash_before, "proc.cancel": _cancel, "proc.pause": _pause, "proc.restart": _restart,
    "net.partition": _partition, "net.partition:asym": _partition_asym,
    "disk.full": _reject, "disk.eio": _error, "disk.unsynced_lost": _crash_before, "disk.torn": _crash_before,
    "clock.jump": _jump(JUMP_S), "clock.jump:back": _jump(-JUMP_S),
    **{name: _variant(name) for name in ("msg.duplicate", "msg.reorder", "msg.delay", "msg.redeliver", "msg.drop",
                                                  "payload.truncate", "payload.corrupt", "payload.unexpected")},
}


def simulated(fault: faults.Fault) -> bool:
    """Can the explorer make this fault happen? (Some need a real machine; messages' faults are the queue's own.)"""
    return fault.id in _ASYNC or fault.id.startswith(faults.OUTAGE)


def strike_blocking(world: World, fault: str, effect: Callable[[], Any], life: Life | None, service: str, site: str,
                    dialect: Dialect, timeout_s: float | None, variants: Variants | None) -> Any:
    """The same for a caller that is not async: the clock moves on while it blocks."""
    happens = faults.find(fault).effect
    if fault in {"crash.before_effect", "crash.before_ack", "disk.unsynced_lost", "disk.torn"}:
        _cut_blocking(world, life)
    if variants and fault in variants:
        return variants[fault]()
    if fault == "call.timeout:late":
        late = Strike(world, world.loop.create_future(), effect, life, service, site, dialect, timeout_s, variants)
        late.land(LATE_S)
    value = _carry_out(world, effect, twice=happens is faults.Effect.TWICE) if happens not in {faults.Effect.NONE, faults.Effect.LATE} else None
    if fault in {"crash.after_effect", "crash.after_checkpoint"}:
        _cut_blocking(world, life)
    said = _said(world, fault, service, site, dialect, timeout_s)
    if isinstance(said, BaseException):
        raise said
    return value if said is None else said


def _carry_out(world: World, effect: Callable[[], Any], *, twice: bool) -> Any:
    try:
        return effect()
    finally:
        if twice:
            try:
                effect()
            except Exception as error:
                world.note("", f"the second delivery answers {error!r}")
        world.watch()


def _cut_blocking(world: World, life: Life | None) -> None:
    if life is not None:
        world.power_cut(life.process)
        raise PowerCut


def _said(world: World, fault: str, service: str, site: str, dialect: Dialect, timeout_s: float | None) -> Any:
    """What a blocking caller hears: an exception, a value instead of the answer, or None for the answer itself."""
    if fault in {"call.timeout:none", "call.timeout:done", "call.timeout:late", "net.partition", "net.partition:asym"}:
        if timeout_s is None:
            world.stop(f"{site} waits for ever: the client has no timeout")
            raise PowerCut
        world.loop.advance_blocking(timeout_s)
        return dialect.timed_out(site, timeout_s)
    if fault == "proc.restart":
        world.restart_service(service)
    if fault in {"call.lost_ack", "proc.restart"}:
        return dialect.in_doubt(site)
    answers = {"call.reject": dialect.refused, "net.dns": dialect.refused, "net.reset": dialect.in_doubt, "disk.full": dialect.refused, "call.error": dialect.failed,
               "disk.eio": dialect.failed, "call.throttle": dialect.throttled}
    return answers[fault](site) if fault in answers else None
