"""Keeps breakers and a store in step, from one thread. The closed path of a call never comes here."""

from __future__ import annotations

import os
import socket
import threading
from types import TracebackType
from typing import Self

import msgspec

from yaoki import events, runtime
from yaoki.errors import ConfigError
from yaoki.policies.breaker import Breaker, tell
from yaoki.policies.circuit import State
from yaoki.policies.shared.stores import Entry, Store, store_at
from yaoki.policies.shared.ticker import Ticker
from yaoki.policies.shared.view import LIVES, Fleet, Order, View, Vote


class _VoteRow(msgspec.Struct):
    open: bool
    reason: str = ""


class _OrderRow(msgspec.Struct):
    state: State
    who: str = ""
    why: str = ""


class _Member:
    """One breaker of this node."""

    def __init__(self, breaker: Breaker, service: str, fleet: Fleet) -> None:
        self.breaker = breaker
        self.service = service
        self.fleet = fleet
        self.seen_at = runtime.monotonic()
        self.lost = False


class Keeper:
    """Refreshes the shared view of some breakers.

    Args:
        store: where the fleet's votes are; a `Store`, or a URL.
        every: seconds between refreshes. What this node finds out, the others know after one of theirs.
        node: this process's name; host and process id by default.

    `with keeper:` runs it in a thread; `refresh()` does one round, for those who have a loop of their own, and for tests.
    """

    def __init__(self, store: Store | str, *, every: float = 1.0, node: str = "") -> None:
        if not every > 0:
            raise ConfigError(f"every is seconds above 0, not {every!r}", do="1.0 is the default")
        self.store = store_at(store) if isinstance(store, str) else store
        self.every_s = every
        self.node = node or f"{socket.gethostname()}:{os.getpid()}"
        self._members: list[_Member] = []
        self._lock = threading.Lock()
        self._ticker = Ticker(self.refresh, every, name="yaoki-shared-breakers")

    def add(self, breaker: Breaker, service: str = "", *, quorum: float = 0.5) -> Breaker:
        """Share this breaker under the service's name.

        quorum: open votes of others that open it here too: a number of at least 1, or a share in (0, 1) of the voters
            (then at least two).
        """
        service = service or breaker.name
        if not service:
            raise ConfigError("a shared breaker needs its service's name", do="keeper.add(breaker, 'flights')")
        if not quorum > 0:
            raise ConfigError(f"quorum is a number of nodes or a share above 0, not {quorum!r}", do="0.5 is the default")
        breaker.name = breaker.name or service
        with self._lock:
            self._members.append(_Member(breaker, service, Fleet(self.node, quorum)))
        return breaker

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop refreshing, take this node's votes back, and let go of the store."""
        self._ticker.close()
        for member in self._members:
            try:
                self.store.remove(member.service, "vote", self.node)
            except Exception:  # noqa: S110  the vote runs out by itself
                pass
        self.store.close()

    def refresh(self) -> None:
        """One round: vote, read, apply. A store that fails leaves each node on its own."""
        with self._lock:
            members = list(self._members)
        for member in members:
            try:
                self._refresh(member)
            except Exception as error:
                self._lost(member, error)

    def _refresh(self, member: _Member) -> None:
        circuit = member.breaker.circuit
        # A refresh longer than its open time, so that the call which probes has the time to come.
        is_open, reason = member.fleet.own_vote(circuit, runtime.monotonic() - self.every_s)
        vote = msgspec.json.encode(_VoteRow(is_open, reason))
        self.store.put(member.service, "vote", self.node, vote, self.every_s * LIVES)
        view = view_of(member.service, self.store.rows(member.service))
        now = runtime.monotonic()
        tell(member.service, member.fleet.apply(view, circuit, now))
        if member.fleet.wants_to_probe(circuit, now, self.every_s * 1.5):
            self._win_probe(member, now)
        if member.lost and events.wanted():
            events.emit(events.SharedStateRegained(service=member.service))
        member.seen_at, member.lost = now, False

    def _win_probe(self, member: _Member, now: float) -> None:
        """Only one node of the fleet finds out whether the service is back; the others stay open until the next round."""
        circuit = member.breaker.circuit
        if self.store.acquire(member.service, "probe", self.node, circuit.probe_lease_s + 2 * self.every_s):
            member.fleet.won_probe(circuit)
        else:
            circuit.open_now("another node finds out whether it is back", 2 * self.every_s, now)

    def _lost(self, member: _Member, error: Exception) -> None:
        now = runtime.monotonic()
        if not member.lost:
            member.lost = True
            if events.wanted():
                events.emit(events.SharedStateLost(service=member.service, error=type(error).__name__))
        if now - member.seen_at > self.every_s * LIVES:  # what was read last has run out
            tell(member.service, member.fleet.apply(View(member.service), member.breaker.circuit, now))


def view_of(service: str, rows: list[Entry]) -> View:
    """Rows as a view. A row that is not understood (a newer version's) is passed over."""
    votes: list[Vote] = []
    order: Order | None = None
    for row in rows:
        try:
            if row.kind == "vote":
                vote = msgspec.json.decode(row.value, type=_VoteRow)
                votes.append(Vote(row.name, vote.open, vote.reason, row.left_s))
            elif row.kind == "order":
                given = msgspec.json.decode(row.value, type=_OrderRow)
                order = Order(given.state, given.who, given.why, row.left_s)
        except msgspec.DecodeError:
            continue
    return View(service, tuple(votes), order)


def give_order(store: Store, service: str, state: State, *, who: str, why: str, ttl_s: float) -> None:
    """Order all nodes: forced_open, disabled or metrics_only, until it is withdrawn or `ttl_s` seconds are over."""
    if state not in ("forced_open", "disabled", "metrics_only"):
        raise ConfigError(f"an order is forced_open, disabled or metrics_only, not {state!r}", do="withdraw the order to close it")
    store.put(service, "order", "", msgspec.json.encode(_OrderRow(state, who, why)), ttl_s)


def withdraw_order(store: Store, service: str) -> None:
    """Let every node decide for itself again."""
    store.remove(service, "order", "")


def views(store: Store, service: str = "") -> list[View]:
    """What the store holds, a view for each service."""
    rows = store.rows(service)
    names = sorted({row.service for row in rows})
    return [view_of(name, [row for row in rows if row.service == name]) for name in names]


def share(breaker: Breaker, store: Store | str, service: str = "", *, quorum: float = 0.5, every: float = 1.0, node: str = "") -> Keeper:
    """One breaker with a keeper of its own; for several, make a `Keeper`.

    with share(flights_breaker, "redis://localhost/0", "flights"):
        ...
    """
    keeper = Keeper(store, every=every, node=node)
    keeper.add(breaker, service, quorum=quorum)
    return keeper
