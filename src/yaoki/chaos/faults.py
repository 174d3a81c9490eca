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
    BATCH = "batch"  # a request of several items, of which some may be taken and others not
    SWAP = "swap"  # a write that depends on what is there: conditional, or a transaction
    COMMIT = "commit"  # records becoming durable
    LOAD = "load"  # bytes read back from a disk
    SEND = "send"  # a message to a queue or topic
    RECEIVE = "receive"  # a message from it
    ACK = "ack"  # telling the queue that the work is done
    STREAM = "stream"  # the next records of a stream


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
        bends: invariants that need not hold after it, by name: what no program could keep.
        asked: tried only when named: it means something for some programs and is noise for others.
        lasts: it is an outage, of a number of calls (`dep.flap:6`).
    """

    id: str
    at: frozenset[At]
    effect: Effect
    says: str
    caller: str
    crash: bool = False
    tier: Tier = Tier.WIDE
    bends: frozenset[str] = frozenset()
    asked: bool = False
    lasts: bool = False

    @property
    def family(self) -> str:
        return self.id.partition(".")[0]


_CALLS = frozenset({At.CALL, At.READ, At.BATCH, At.SWAP, At.STREAM})
_WRITES = frozenset({At.CALL, At.BATCH, At.SWAP, At.SEND, At.ACK})
# A read from a disk is no place to die at: it is the cut at the next point.
_ALL = frozenset(At) - {At.LOAD}
_REPLIES = frozenset({At.CALL, At.READ})
_QUEUES = frozenset({At.SEND, At.RECEIVE, At.ACK})


def _fault(id_: str, at: Iterable[At], effect: Effect, caller: str, says: str, *, tier: Tier = Tier.WIDE, crash: bool = False,
           bends: Iterable[str] = (), asked: bool = False, lasts: bool = False) -> Fault:
    return Fault(id=id_, at=frozenset(at), effect=effect, caller=caller, says=says, tier=tier, crash=crash, bends=frozenset(bends), asked=asked,
                 lasts=lasts)


# What is gone for good, or cannot be read any more, nobody can finish without a person.
_NEEDS_A_PERSON = ("every_run_ends",)
# A second instance that is turned away ends with an error, and should.
_TURNED_AWAY = ("no_lost_error",)

_ANSWER = (
    _fault("call.reject", _CALLS | _WRITES, Effect.NONE, "refused", "the connection was refused before anything happened", tier=Tier.CORE),
    _fault("call.error", _CALLS, Effect.NONE, "in_doubt", "the service answered 500 and had done nothing"),
    _fault("call.throttle", _CALLS, Effect.NONE, "throttled", "the service answered 429: later, please"),
    _fault("call.lost_ack", _WRITES, Effect.DONE, "in_doubt", "the effect happened and the reply was lost", tier=Tier.CORE),
    _fault("call.timeout:none", _CALLS, Effect.NONE, "in_doubt", "the request was lost: no effect, no answer", tier=Tier.CORE),
    _fault("call.timeout:done", _WRITES, Effect.DONE, "in_doubt", "the effect happened and no answer ever came"),
    _fault("call.timeout:late", _WRITES, Effect.LATE, "in_doubt", "no answer came, and the effect landed long after", tier=Tier.CORE),
    _fault("call.delay", _CALLS | _WRITES, Effect.DONE, "ok", "the request took longer than those sent with it", tier=Tier.CORE),
    _fault("call.slow", _CALLS, Effect.DONE, "ok", "the answer came byte by byte, for a minute: no timeout between two of them", asked=True),
    _fault("call.duplicate", _WRITES, Effect.TWICE, "ok", "the network delivered the request twice", tier=Tier.CORE),
    _fault("call.partial", {At.BATCH}, Effect.PART, "ok", "only the first of the items were taken", tier=Tier.CORE),
    _fault("call.conflict", {At.SWAP, At.COMMIT}, Effect.NONE, "refused", "another transaction was there first"),
    _fault("call.conflict:answer", {At.CALL}, Effect.NONE, "declined", "the service answered 409: somebody was there first", asked=True),
    _fault("read.stale", {At.READ}, Effect.DONE, "ok", "an old value was read", asked=True),
    _fault("payload.truncate", _REPLIES, Effect.DONE, "ok", "the reply broke off in the middle", asked=True),
    _fault("payload.corrupt", _REPLIES, Effect.DONE, "ok", "the reply was garbage", asked=True),
    _fault("payload.unexpected", _REPLIES, Effect.DONE, "ok", "the reply was well-formed and not what was expected", asked=True),
)

_PROCESS = (
    _fault("crash.before_effect", _ALL, Effect.NONE, "nothing", "the process lost power before this happened", crash=True, tier=Tier.CORE),
    _fault("crash.after_effect", _WRITES | {At.RECEIVE, At.STREAM}, Effect.DONE, "nothing",
           "the process lost power after the effect, before it was written down", crash=True, tier=Tier.CORE),
    _fault("crash.after_checkpoint", {At.COMMIT}, Effect.DONE, "nothing", "the process lost power right after the record was durable",
           crash=True, tier=Tier.CORE),
    _fault("crash.before_ack", {At.ACK}, Effect.NONE, "nothing", "the process lost power after the work, before the acknowledgement", crash=True),
    _fault("proc.cancel", _CALLS | _WRITES, Effect.LATE, "nothing", "the caller was cancelled while the request was under way", asked=True),
    _fault("proc.pause", _ALL, Effect.LATE, "ok", "the process stood still for longer than its lease, then went on", asked=True),
    _fault("proc.pause:sent", _CALLS | _WRITES | {At.COMMIT}, Effect.DONE, "ok",
           "the request was sent, and the process stood still for longer than its lease while it was answered", asked=True),
    _fault("proc.twin", _ALL, Effect.TWICE, "ok", "the same program was started a second time, beside the first", asked=True, bends=_TURNED_AWAY),
    _fault("proc.restart", {At.CALL, At.BATCH, At.SWAP}, Effect.DONE, "in_doubt",
           "the service was restarted after the effect, and lost what was not durable"),
)

_MESSAGES = (
    _fault("msg.drop", {At.SEND}, Effect.NONE, "ok", "the message was confirmed and vanished: this broker loses", asked=True, bends=_NEEDS_A_PERSON),
    _fault("msg.duplicate", {At.RECEIVE}, Effect.TWICE, "ok", "the message was delivered twice", tier=Tier.CORE),
    _fault("msg.reorder", {At.RECEIVE}, Effect.DONE, "ok", "a later message overtook this one", tier=Tier.CORE),
    _fault("msg.delay", {At.RECEIVE}, Effect.DONE, "ok", "the message came late"),
    _fault("msg.redeliver", {At.ACK}, Effect.TWICE, "ok", "the acknowledgement was lost and the message came again", tier=Tier.CORE),
    _fault("msg.poison", {At.RECEIVE}, Effect.NONE, "ok", "the message cannot be read, now or ever", asked=True, bends=_NEEDS_A_PERSON),
    _fault("msg.restart", _QUEUES, Effect.NONE, "in_doubt", "the broker was restarted: what was not acknowledged comes again"),
)

_STREAMS = (
    _fault("stream.replay", {At.STREAM}, Effect.TWICE, "ok", "the position was reset to the oldest record: all came again"),
    _fault("stream.gap", {At.STREAM}, Effect.NONE, "ok", "the position was reset to the newest record: an interval was skipped", asked=True),
    _fault("stream.stuck", {At.STREAM}, Effect.LATE, "ok", "the trigger stood still: no shard delivered anything for a while"),
    _fault("stream.shard_stuck", {At.STREAM}, Effect.LATE, "ok", "one shard delivered nothing for a while, and the others did"),
    _fault("stream.shard_split", {At.STREAM}, Effect.DONE, "ok", "the shard was closed: its keys go on in two others"),
    _fault("stream.iterator_expired", {At.STREAM}, Effect.NONE, "refused", "the position in the stream expired", tier=Tier.CORE),
)

_NETWORK = (
    _fault("net.partition", _CALLS | _WRITES, Effect.NONE, "in_doubt", "caller and service could not reach each other for a while"),
    _fault("net.partition:asym", _WRITES, Effect.DONE, "in_doubt", "requests arrived and replies did not, for a while"),
    _fault("net.partition:zone", _CALLS | _WRITES, Effect.NONE, "in_doubt", "the service's zone was cut off from all others for a while", asked=True),
    _fault("net.reset", _WRITES, Effect.DONE, "in_doubt", "the connection was reset in the middle of the reply", asked=True),
    _fault("net.dns", _CALLS | _WRITES, Effect.NONE, "refused", "the name could not be resolved", asked=True),
)

_DISK = (
    _fault("disk.full", {At.COMMIT}, Effect.NONE, "refused", "the disk was full"),
    _fault("disk.eio", {At.COMMIT}, Effect.NONE, "refused", "the disk answered with an input/output error"),
    _fault("disk.unsynced_lost", {At.COMMIT}, Effect.NONE, "nothing", "power was lost with the write still in the cache", crash=True, asked=True),
    _fault("disk.torn", {At.COMMIT}, Effect.PART, "nothing", "power was lost in the middle of the write: its tail is torn", crash=True),
    _fault("disk.bitrot", {At.LOAD}, Effect.PART, "ok", "a bit of what had been written long ago turned over", bends=_NEEDS_A_PERSON),
)

_CLOCKS = (
    _fault("clock.jump", _ALL, Effect.DONE, "ok", "all wall clocks jumped an hour ahead", asked=True),
    _fault("clock.jump:back", _ALL, Effect.DONE, "ok", "all wall clocks jumped an hour back", asked=True),
    _fault("clock.skew", _ALL, Effect.DONE, "ok", "from here on the caller's clock runs five minutes ahead of the others", asked=True),
    _fault("clock.skew:behind", _ALL, Effect.DONE, "ok", "from here on the caller's clock runs five minutes behind the others", asked=True),
    _fault("clock.freeze", _ALL, Effect.DONE, "ok", "the caller's wall clock stood still for ten minutes, then was right again", asked=True),
)

# A dependency that stays down is one fault, because single ones are masked by retries.
_DEPENDENCIES = (
    *(_fault(f"dep.outage:{inner}", _CALLS | _WRITES if inner != "call.lost_ack" else _WRITES, effect, caller,
             f"the service failed for a while: {says}", tier=Tier.CORE, lasts=True)
      for inner, effect, caller, says in (
          ("call.reject", Effect.NONE, "refused", "every connection was refused"),
          ("call.timeout:none", Effect.NONE, "in_doubt", "every request was lost"),
          ("call.lost_ack", Effect.DONE, "in_doubt", "every reply was lost, though the work was done"))),
    _fault("dep.flap", _CALLS, Effect.NONE, "in_doubt", "every other call to the service failed, for a while", lasts=True),
)

_RESOURCES = (
    _fault("res.cpu", _ALL, Effect.LATE, "ok", "the processor was busy: the process stood still for two seconds", asked=True),
    _fault("res.mem", _ALL, Effect.NONE, "nothing", "memory ran out, and the process was killed", crash=True, asked=True),
    _fault("res.fd", _CALLS | _WRITES, Effect.NONE, "refused", "file descriptors ran out: no connection could be opened", asked=True),
    _fault("res.pool_exhausted", _CALLS | _WRITES, Effect.NONE, "refused", "no connection of the pool was free in time", asked=True),
    _fault("res.queue_full", {At.SEND}, Effect.NONE, "refused", "the queue was full and took nothing"),
    _fault("res.disk_quota", {At.COMMIT}, Effect.NONE, "refused", "the disk's quota was used up, until somebody made room", lasts=True, asked=True),
)

CATALOGUE: tuple[Fault, ...] = (*_ANSWER, *_PROCESS, *_MESSAGES, *_STREAMS, *_NETWORK, *_DISK, *_CLOCKS, *_DEPENDENCIES, *_RESOURCES)

BY_ID: dict[str, Fault] = {fault.id: fault for fault in CATALOGUE}
OUTAGE = "dep.outage:"


def find(spec: str) -> Fault:
    """The fault that a plan calls `spec`; for how many calls it lasts (`dep.outage:call.reject:6`) is not part of its name.

    Raises:
        ConfigError: no such fault; names the nearest.
    """
    fault = BY_ID.get(spec)
    if fault is None:
        named, _, count = spec.rpartition(":")
        lasting = BY_ID.get(named)
        fault = lasting if lasting is not None and lasting.lasts and count.isdigit() else None
    if fault is None:
        close = difflib.get_close_matches(spec, BY_ID, 1)
        raise ConfigError(f"there is no fault {spec!r}", do=f"did you mean {close[0]!r}?" if close else f"name one, or a family: {', '.join(sorted({each.family for each in CATALOGUE}))}")
    return fault


def chosen(words: Iterable[str], *, tiers: frozenset[Tier] = frozenset(Tier)) -> tuple[Fault, ...]:
    """Faults named by id, family (`crash`) or prefix (`dep.outage`), in the order of the catalogue.

    A family or prefix stands for those of it that are tried without being asked for; for all, when none of it is.

    Raises:
        ConfigError: a word that names none.
    """
    wanted: set[str] = set()
    for word in words:
        found = [fault for fault in CATALOGUE if fault.id.startswith((f"{word}.", f"{word}:"))]
        unasked = [fault for fault in found if not fault.asked]
        if not found:
            find(word)
        wanted.update((word, *(fault.id for fault in (unasked or (found if word not in BY_ID else ())))))
    return tuple(fault for fault in CATALOGUE if fault.id in wanted and fault.tier in tiers)
