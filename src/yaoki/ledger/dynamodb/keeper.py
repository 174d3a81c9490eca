"""Keep a ledger in DynamoDB going: beats, sealing, delivery to sinks; and audits, if there is a place for what they find.

    async with DynamoLedger(client, "points") as ledger:
        await DynamoKeeper(ledger, [S3Sink(...)], Rules(slo_s=60)).run()          # until cancelled

Delivery follows the sealed epochs and not the table's stream: what is sealed can be delivered a year later, where the stream
forgets after a day; each version comes after the one before it, whatever shards do; and no reader of the stream is taken from the
two that DynamoDB allows. The price is the time until a version is sealed. Any number of processes may run one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from yaoki import runtime
from yaoki.errors import AuditError, FencedError
from yaoki.ledger import findings as kinds
from yaoki.ledger.delivery import Delivered, Deliverer
from yaoki.ledger.dynamodb.ledger import DynamoLedger
from yaoki.ledger.repair import BRAKE, repair
from yaoki.ledger.rules import Rules
from yaoki.ledger.sinks.port import Sink
from yaoki.ledger.sources.dynamodb_ledger import DynamoLedgerSource
from yaoki.ledger.store.port import Store
from yaoki.ledger.watch import Watch

log = logging.getLogger("yaoki.ledger")


class DynamoKeeper:
    """All the work that the ledger and its sinks need, in turns.

    Args:
        notes: where findings and the progress of audits are kept, an open store such as `SqliteStore("audit.db")`; None: no audits here.
        repairs: redeliver what an audit misses as soon as it is found, up to the brake.
    """

    def __init__(self, ledger: DynamoLedger, sinks: Sequence[Sink], rules: Rules, *, notes: Store | None = None, owner: str = "",
                 repairs: bool = True) -> None:
        self.ledger = ledger
        self.rules = rules
        self._owner = owner or f"keeper-{runtime.new_id()[-12:]}"
        self._sinks = list(sinks)
        self.deliverers = [Deliverer(ledger, sink, owner=self._owner) for sink in sinks]
        source = DynamoLedgerSource(ledger)
        self.watches = [Watch(notes, source, sink, rules, owner=self._owner) for sink in sinks] if notes is not None else []
        self._repairs = repairs
        self._due: dict[str, float] = {}

    async def run(self) -> None:
        """Work until cancelled; then give the leases back."""
        try:
            while True:
                await self.turn()
                await runtime.sleep(min(self.rules.seal_every_s, self.rules.audit_every_s, self.rules.beat_every_s) / 2)
        finally:
            await self.close()

    async def close(self) -> None:
        """Give back every lease, so that another process goes on at once."""
        for sink in self._sinks:
            await self.ledger.bookmarks(sink.name).release(self._owner)
        for watch in self.watches:
            await watch.close()

    async def turn(self) -> list[Delivered]:
        """Do whatever is due. Returns what was delivered, sink by sink."""
        if self._is_due("beat", self.rules.beat_every_s):
            await self.ledger.beat()
        if self._is_due("seal", self.rules.seal_every_s):
            await self.ledger.seal()
        done = []
        for deliverer in self.deliverers:
            try:
                done.append(await deliverer.deliver())
            except FencedError as error:
                log.warning("%s", error)  # another process took over in the middle; it goes on there
        if self.watches and self._is_due("audit", self.rules.audit_every_s):
            await self.audit()
        return done

    async def audit(self) -> None:
        """Look at every sink; repair what is missing."""
        for watch in self.watches:
            try:
                await watch.look()
            except AuditError as error:
                log.info("%s; %s", error, error.do)  # mostly: another keeper is at it
                continue
            if self._repairs and any(each.kind == kinds.MISSING for each in watch.auditor.book.open_ones()):
                await repair(watch, limit=BRAKE)

    def _is_due(self, what: str, every_s: float) -> bool:
        now = runtime.monotonic()
        if now < self._due.get(what, now):
            return False
        self._due[what] = now + every_s
        return True
