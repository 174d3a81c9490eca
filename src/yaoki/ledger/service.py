"""Keep a ledger going: beats, sealing, delivery, audits, drills, and a watch over the watcher.

    async with Ledger("sqlite:///shop.db") as ledger:
        keeper = Keeper(ledger, [FolderSink("archive")], Rules(slo_s=60))
        await keeper.run()                       # until cancelled; or `await keeper.turn()` from a loop of your own

Any number of processes may run one: each piece of work is done by whoever holds its lease.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from yaoki import events, runtime
from yaoki.events import DrillEnded
from yaoki.ledger.delivery import Deliverer
from yaoki.ledger.findings import Book
from yaoki.ledger.leases import give_up_all
from yaoki.ledger.ledger import Ledger
from yaoki.ledger.notes import all_progress, drills, load_findings, save_drills, save_findings
from yaoki.ledger.records import Naming
from yaoki.ledger.retention import prune
from yaoki.ledger.rounds import Dues, audit_all, go_round, leave
from yaoki.ledger.rules import Rules
from yaoki.ledger.sinks.port import Sink
from yaoki.ledger.sources.ledger import LedgerSource
from yaoki.ledger.watch import Watch

log = logging.getLogger("yaoki.ledger")
log.addHandler(logging.NullHandler())

DRILL_KEY = "yaoki-drill"

HOUSEKEEPING_S = 3600.0
"""How often room for the next day is made, and old rows are let go."""


class Keeper:
    """All the work that a ledger and its sinks need, in turns.

    Args:
        repairs: redeliver what is missing as soon as it is found, up to the brake.
        drill_every_s: how often one version is dropped on purpose, to see it found and repaired; None: never.
        keep_s: rows sealed longer ago than this, delivered and audited everywhere, are let go (`prune`); None: never.
    """

    def __init__(self, ledger: Ledger, sinks: Sequence[Sink], rules: Rules, *, owner: str | None = None,
                 repairs: bool = True, drill_every_s: float | None = None, keep_s: float | None = None) -> None:
        self.ledger = ledger
        self.rules = rules
        owner = owner or f"keeper-{runtime.new_id()[-12:]}"
        self._owner = owner
        self.deliverers = [Deliverer(ledger, sink, owner=owner) for sink in sinks]
        source = LedgerSource(ledger)
        self.watches = [Watch(ledger.store, source, sink, rules, owner=owner) for sink in sinks]
        self._repairs = repairs
        self._drill_every_s = drill_every_s
        self._keep_s = keep_s
        self._dues = Dues()
        self._heard = 0

    async def run(self) -> None:
        """Work until cancelled, over every outage; then give the leases back. A turn that fails is told by `KeeperStalled`."""
        try:
            await go_round(f"the keeper of {self.ledger.name}", self._turn_and_mark, self._wait)
        finally:
            await leave(self.close)

    async def _turn_and_mark(self) -> None:
        self._heard = self.ledger.store.heard
        await self.turn()

    async def _wait(self) -> None:
        # What another process seals meanwhile is delivered at once where the database tells of it.
        await self.ledger.store.wait(self._heard, min(
            self.rules.seal_every_s, self.rules.audit_every_s, self.rules.beat_every_s) / 2)

    async def close(self) -> None:
        """Give back every lease, so that another process goes on at once."""
        await give_up_all(self.ledger.store, self._owner)

    async def turn(self) -> None:
        """Do whatever is due."""
        if self._dues.is_due("beat", self.rules.beat_every_s):
            await self.ledger.beat()
        if self._dues.is_due("seal", self.rules.seal_every_s):
            await self.ledger.seal(self._owner)
        if self._drill_every_s is not None and self._dues.is_due("drill", self._drill_every_s):
            await self.drill()
        for deliverer in self.deliverers:
            await deliverer.deliver()
        if self._dues.is_due("audit", self.rules.audit_every_s):
            await self.audit()
            await self.watch_the_watchers()
        if self._dues.is_due("house", HOUSEKEEPING_S):
            await self.ledger.store.prepare_days(2)
            if self._keep_s is not None:
                await prune(self.ledger, await self.ledger.store.now() - self._keep_s)

    async def audit(self) -> None:
        """Look at every sink; repair what is missing."""
        await audit_all(self.watches, repairs=self._repairs, after=self._end_drills)

    async def drill(self) -> list[Naming]:
        """Write a version that every deliverer drops. The audit must name it within the bound, and repair it."""
        running = {watch.sink.name: await drills(self.ledger.store, watch.sink.name) for watch in self.watches}
        async with self.ledger.tx() as tx:
            name = DRILL_KEY, await tx.append(DRILL_KEY, {"drill": "dropped on purpose"})
            for watch in self.watches:
                # In the same transaction: no deliverer can see the version before it knows that it must drop it.
                await save_drills(tx.sql, watch.sink.name, running[watch.sink.name] | {name})
        return [name]

    async def _end_drills(self, watch: Watch) -> None:
        """A drill ends when it was named; one that was not named within the bound is a finding about the audit itself."""
        dropped = await drills(self.ledger.store, watch.sink.name)
        if not dropped:
            return
        found = {(each.key, each.version): each for each in watch.auditor.book}
        named = found.keys()
        overdue = [(key, version) for key, version in dropped - named
                   for each in await self.ledger.history(key, first=version, last=version)
                   if await self.ledger.store.now() - each.written_at > self.rules.loss_bound_s]
        for key, version in overdue:
            await self._report(watch.sink.name, "drill_failed", f"{key} version {version} was dropped on purpose and not found "
                               f"within {self.rules.loss_bound_s:.0f} s: this audit cannot be relied on")
        async with self.ledger.store.transaction() as tx:
            await save_drills(tx, watch.sink.name, dropped - named - set(overdue))
        bound_s = self.rules.loss_bound_s
        for name in sorted(dropped & named):
            events.emit(DrillEnded(sink=watch.sink.name, found=True, delay_s=found[name].delay_s, bound_s=bound_s))
        for _ in overdue:
            events.emit(DrillEnded(sink=watch.sink.name, found=False, delay_s=bound_s, bound_s=bound_s))

    async def watch_the_watchers(self) -> list[str]:
        """The dead-man's switch: name every audit of this ledger that has fallen silent. Runs wherever a keeper runs."""
        now = await self.ledger.store.now()
        silent = [each for each in await all_progress(self.ledger.store) if each.is_silent(now)]
        for each in silent:
            await self._report(each.sink, "auditor_silent", f"nobody has audited {each.sink} for {now - each.looked_at:.0f} s")
        return [each.sink for each in silent]

    async def _report(self, sink: str, kind: str, note: str) -> None:
        book = Book(sink, self.rules, await load_findings(self.ledger.store, sink, everything=True))
        if book.open(kind, await self.ledger.store.now(), note=note) is not None:
            log.error("%s: %s", kind, note)
            async with self.ledger.store.transaction() as tx:
                await save_findings(tx, book.take_changed())
