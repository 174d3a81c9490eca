"""The one catalogue of faults: what can go wrong at a point where a program meets the world, and whether it happened.

The explorer, the fault points of running services, the proxy and live experiments all use these ids. A fault is named by
`id` or `id:variant` (`call.timeout:late`); an outage carries the fault it repeats and for how many calls
(`dep.outage:call.reject:6`).

The axis that others leave out is the *effect*: a call that failed `before` its effect, `after` it, or whose effect lands
`late`, when the caller has long given up, are three different faults that look alike to the caller.

Sources: Cristian, Understanding fault-tolerant distributed systems, CACM 34(2), 1991 (crash, omission, timing, response);
Hadzilacos and Toueg, Fault-tolerant broadcasts, 1994. The crash points follow CrashMonkey (Mohan et al., OSDI 2018).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from yaoki.errors import ConfigError


class Effect(StrEnum):
    """Did the thing that was asked for happen?"""

    NONE = "none"
    DONE = "done"
    LATE = "late"  # it happens, but only after the caller gave up
    TWICE = "twice"
    PART = "part"


class At(StrEnum):
    """Kinds of points at which a fault can strike."""

    CALL = "call"  # a request to another service
    READ = "read"  # a request that changes nothing
    COMMIT = "commit"  # records becoming durable
    SEND = "send"  # a message to a queue or topic
    RECEIVE = "receive"  # a message from it
    ACK = "ack"  # telling the queue that the work is done


class Tier(StrEnum):
    """How soon the explorer tries a fault.

    core: one representative of what a caller can observe, tried at every depth. wide: tried alone, at depth 1, and in
    pairs on demand; another fault looks the same to the caller. live: only with real processes.
    """

    CORE = "core"
    WIDE = "wide"
    LIVE = "live"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One way to fail.

    Attributes:
        id: `family.name` or `family.name:variant`, as plans and reports write it.
        at: the kinds of points where it can strike.
        effect: did the thing happen?
        crash: is the process of the caller gone?
        says: what happened, for a person.
        caller: what the caller sees: an error class by *did it happen?* (refused, in_doubt, throttled, ok, nothing).
        bends: invariants that need not hold while it lasts, by name.
    """

    id: str
    at: frozenset[At]
    effect: Effect
    says: str
    caller: str
    crash: bool = False
    tier: Tier = Tier.WIDE
    bends: frozenset[str] = frozenset()

    @property
    def family(self) -> str:
        return self.id.partition(".")[0]


_CALLS = frozenset({At.CALL, At.READ})
_WRITES = frozenset({At.CALL, At.SEND, At.ACK})
_ALL = frozenset(At)
_MESSAGES = frozenset({At.RECEIVE})


def _fault(id_: str, at: Iterable[At], effect: Effect, caller: str, says: str, *, tier: Tier = Tier.WIDE, crash: bool = False,
           bends: Iterable[str] = ()) -> Fault:
    return Fault(id=id_, at=frozenset(at), effect=effect, caller=caller, says=says, tier=tier, crash=crash, bends=frozenset(bends))


_WITHOUT_A_PERSON = ("finishes_alone",)

CATALOGUE: tuple[Fault, ...] = (
    # ── the answer ──
    _fault("call.reject", _CALLS | _WRITES, Effect.NONE, "refused", "the connection was refused before anything happened", tier=Tier.CORE),
    _fault("call.error", _CALLS, Effect.NONE, "in_doubt", "the service answered 500 and had done nothing"),
    _fault("call.throttle", _CALLS, Effect.NONE, "throttled", "the service answered 429: later, please"),
    _fault("call.lost_ack", _WRITES, Effect.DONE, "in_doubt", "the effect happened and the reply was lost", tier=Tier.CORE),
    _fault("call.timeout:none", _CALLS, Effect.NONE, "in_doubt", "the request was lost: no effect, no answer", tier=Tier.CORE),
    _fault("call.timeout:done", _WRITES, Effect.DONE, "in_doubt", "the effect happened and no answer ever came"),
    _fault("call.timeout:late", _WRITES, Effect.LATE, "in_doubt", "no answer came, and the effect landed long after", tier=Tier.CORE),
    _fault("call.delay", _CALLS | _WRITES, Effect.DONE, "ok", "the request took longer than those sent with it", tier=Tier.CORE),
    _fault("call.slow", _CALLS, Effect.DONE, "ok", "the answer came byte by byte", tier=Tier.LIVE),
    _fault("call.duplicate", _WRITES, Effect.TWICE, "ok", "the network delivered the request twice", tier=Tier.CORE),
    _fault("call.partial", {At.CALL}, Effect.PART, "ok", "only some of the items were taken", tier=Tier.LIVE),
    _fault("call.conflict", {At.COMMIT}, Effect.NONE, "refused", "another transaction was there first", tier=Tier.LIVE),
    _fault("read.stale", {At.READ}, Effect.DONE, "ok", "an old value was read"),
    _fault("payload.truncate", {At.CALL, At.READ}, Effect.DONE, "ok", "the reply broke off in the middle"),
    _fault("payload.corrupt", {At.CALL, At.READ}, Effect.DONE, "ok", "the reply was garbage"),
    _fault("payload.unexpected", {At.CALL, At.READ}, Effect.DONE, "ok", "the reply was well-formed and not what was expected"),
    # ── the process ──
    _fault("crash.before_effect", _ALL, Effect.NONE, "nothing", "the process lost power before this happened", crash=True, tier=Tier.CORE),
    _fault("crash.after_effect", _WRITES | {At.RECEIVE}, Effect.DONE, "nothing",
           "the process lost power after the effect, before it was written down", crash=True, tier=Tier.CORE),
    _fault("crash.after_checkpoint", {At.COMMIT}, Effect.DONE, "nothing", "the process lost power right after the record was durable",
           crash=True, tier=Tier.CORE),
    _fault("crash.before_ack", {At.ACK}, Effect.NONE, "nothing", "the process lost power after the work, before the acknowledgement", crash=True),
    _fault("proc.cancel", _CALLS | _WRITES, Effect.LATE, "nothing", "the caller was cancelled while the request was under way"),
    _fault("proc.pause", _ALL, Effect.LATE, "ok", "the process stood still for longer than its lease, then went on"),
    _fault("proc.twin", _MESSAGES, Effect.TWICE, "ok", "two workers were given the same work"),
    _fault("proc.restart", {At.CALL}, Effect.DONE, "in_doubt", "the service was restarted after the effect, and lost what was not durable"),
    # ── messages ──
    _fault("msg.drop", {At.SEND}, Effect.NONE, "ok", "the message vanished on the way"),
    _fault("msg.duplicate", _MESSAGES, Effect.TWICE, "ok", "the message was delivered twice", tier=Tier.CORE),
    _fault("msg.reorder", _MESSAGES, Effect.DONE, "ok", "a later message overtook this one", tier=Tier.CORE),
    _fault("msg.delay", _MESSAGES, Effect.DONE, "ok", "the message came late"),
    _fault("msg.redeliver", {At.ACK}, Effect.TWICE, "ok", "the acknowledgement was lost and the message came again", tier=Tier.CORE),
    _fault("msg.poison", _MESSAGES, Effect.NONE, "ok", "the message could not be read", tier=Tier.LIVE),
    # ── streams ──
    *(_fault(f"stream.{name}", _MESSAGES, Effect.TWICE if name == "replay" else Effect.NONE, "ok", says, tier=Tier.LIVE) for name, says in (
        ("replay", "records came again from an older position"), ("gap", "records were skipped"),
        ("shard_split", "the shard was split"), ("iterator_expired", "the position in the stream expired"))),
    # ── the network ──
    _fault("net.partition", _CALLS | _WRITES, Effect.NONE, "in_doubt", "caller and service could not reach each other for a while"),
    _fault("net.partition:asym", _WRITES, Effect.DONE, "in_doubt", "requests arrived and replies did not, for a while"),
    _fault("net.reset", _WRITES, Effect.DONE, "in_doubt", "the connection was reset in the middle of the reply", tier=Tier.LIVE),
    _fault("net.dns", _CALLS | _WRITES, Effect.NONE, "refused", "the name could not be resolved", tier=Tier.LIVE),
    # ── the disk ──
    _fault("disk.full", {At.COMMIT}, Effect.NONE, "refused", "the disk was full"),
    _fault("disk.eio", {At.COMMIT}, Effect.NONE, "refused", "the disk answered with an input/output error"),
    _fault("disk.unsynced_lost", {At.COMMIT}, Effect.NONE, "nothing", "power was lost with the write still in the cache", crash=True),
    _fault("disk.torn", {At.COMMIT}, Effect.PART, "nothing", "power was lost in the middle of the write: its tail is torn", crash=True),
    _fault("disk.bitrot", {At.COMMIT}, Effect.PART, "ok", "a bit on the disk turned over", tier=Tier.LIVE),
    # ── clocks ──
    _fault("clock.jump", _ALL, Effect.DONE, "ok", "the wall clock jumped an hour ahead"),
    _fault("clock.jump:back", _ALL, Effect.DONE, "ok", "the wall clock jumped an hour back"),
    _fault("clock.skew", _ALL, Effect.DONE, "ok", "this host's clock runs five minutes ahead of the others", tier=Tier.LIVE),
    _fault("clock.freeze", _ALL, Effect.DONE, "ok", "the wall clock stood still", tier=Tier.LIVE),
    # ── a dependency that stays down: one fault, because single ones are masked by retries ──
    *(_fault(f"dep.outage:{inner}", _CALLS | _WRITES if inner != "call.lost_ack" else _WRITES, effect, caller,
             f"the service failed for a while: {says}", tier=Tier.CORE, bends=_WITHOUT_A_PERSON)
      for inner, effect, caller, says in (
          ("call.reject", Effect.NONE, "refused", "every connection was refused"),
          ("call.timeout:none", Effect.NONE, "in_doubt", "every request was lost"),
          ("call.lost_ack", Effect.DONE, "in_doubt", "every reply was lost, though the work was done"))),
    _fault("dep.flap", _CALLS | _WRITES, Effect.NONE, "refused", "every other call to the service was refused", tier=Tier.LIVE),
    # ── resources: only where there is a real machine ──
    *(_fault(f"res.{name}", _ALL, Effect.LATE, "ok", says, tier=Tier.LIVE) for name, says in (
        ("cpu", "the processor was busy"), ("mem", "memory ran out"), ("fd", "file descriptors ran out"),
        ("pool_exhausted", "no connection was free"))),
)

BY_ID: dict[str, Fault] = {fault.id: fault for fault in CATALOGUE}
OUTAGE = "dep.outage:"


def find(spec: str) -> Fault:
    """The fault that a plan calls `spec`; an outage's count (`dep.outage:call.reject:6`) is not part of its name.

    Raises:
        ConfigError: no such fault; names the nearest.
    """
    fault = BY_ID.get(spec)
    if fault is None and spec.startswith(OUTAGE):
        fault = BY_ID.get(spec.rpartition(":")[0])
    if fault is None:
        close = difflib.get_close_matches(spec, BY_ID, 1)
        raise ConfigError(f"there is no fault {spec!r}", do=f"did you mean {close[0]!r}?" if close else "`yk faults` lists them")
    return fault


def chosen(words: Iterable[str], *, tiers: frozenset[Tier] = frozenset(Tier)) -> tuple[Fault, ...]:
    """Faults named by id, family (`crash`) or prefix (`dep.outage`), in the order of the catalogue.

    Raises:
        ConfigError: a word that names none.
    """
    wanted: set[str] = set()
    for word in words:
        found = [fault.id for fault in CATALOGUE if fault.id == word or fault.id.startswith((f"{word}.", f"{word}:"))]
        if not found:
            find(word)
        wanted.update(found)
    return tuple(fault for fault in CATALOGUE if fault.id in wanted and fault.tier in tiers)
