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
from yaoki.errors import FencedError
from yaoki.ledger.delivery import Delivered, Deliverer
from yaoki.ledger.dynamodb.ledger import DynamoLedger
from yaoki.ledger.rounds import Dues, audit_all, go_round, leave
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
        self._dues = Dues()

    async def run(self) -> None:
        """Work until cancelled, over every outage; then give the leases back. A turn that fails is told by `KeeperStalled`."""
        pause_s = min(self.rules.seal_every_s, self.rules.audit_every_s, self.rules.beat_every_s) / 2
        try:
            await go_round(f"the keeper of {self.ledger.name}", self.turn, lambda: runtime.sleep(pause_s))
        finally:
            await leave(self.close)

    async def close(self) -> None:
        """Give back every lease, so that another process goes on at once."""
        for sink in self._sinks:
            await self.ledger.bookmarks(sink.name).release(self._owner)
        for watch in self.watches:
            await watch.close()

    async def turn(self) -> list[Delivered]:
        """Do whatever is due. Returns what was delivered, sink by sink."""
        if self._dues.is_due("beat", self.rules.beat_every_s):
            await self.ledger.beat()
        if self._dues.is_due("seal", self.rules.seal_every_s):
            await self.ledger.seal()
        done = []
        for deliverer in self.deliverers:
            try:
                done.append(await deliverer.deliver())
            except FencedError as error:
                log.warning("%s", error)  # another process took over in the middle; it goes on there
        if self.watches and self._dues.is_due("audit", self.rules.audit_every_s):
            await self.audit()
        return done

    async def audit(self) -> None:
        """Look at every sink; repair what is missing."""
        await audit_all(self.watches, repairs=self._repairs)
