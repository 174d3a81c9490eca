"""`lost`, said by the audit of a ledger: what was accepted stands in the ledger, and did not arrive where it should have.

    work = HandlerWork(app, OrderPlaced, handler="reserve", is_lost=lost_by(ledger.store, sink="warehouse"))

Write the accepted order under its work's id (`await t.append(message.id, order)`), let the ledger deliver to the sink, and audit
that: what the auditor names as missing is lost for whoever asks, until it was repaired and read again from the sink.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from yaoki.ledger.findings import MISSING
from yaoki.ledger.notes import load_findings
from yaoki.ledger.store.port import Store


def lost_by(store: Store, *, sink: str = "", key: Callable[[str], str] = str) -> Callable[[str], Awaitable[bool]]:
    """An `is_lost` for `HandlerWork`.

    Args:
        store: where the audit keeps its findings: of the ledger, or of a `Watch`.
        sink: only what this sink misses; default: any.
        key: from the id of the work to the key in the ledger; default: the id itself.
    """

    async def is_lost(id: str) -> bool:  # noqa: A002
        name = key(id)
        found = await load_findings(store, sink or None)
        return any(each.is_open and each.kind == MISSING and each.key == name for each in found)

    return is_lost
