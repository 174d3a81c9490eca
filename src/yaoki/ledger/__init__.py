"""No change lost unseen: a versioned history, its delivery, and an auditor that names what is missing.

    Ledger      every version of every key, in the caller's own transaction (`ledger.py`)
    Keeper      beats, seals, delivers, audits and drills (`service.py`)
    Watch       the audit of one sink against one source, ours or somebody else's (`watch.py`)
    Auditor     what it decides, pure (`auditor.py`, `verdicts.py`, `findings.py`, `compare.py`, `sketch.py`)

Sinks and sources are in `yaoki.ledger.sinks` and `yaoki.ledger.sources`; those of S3 and PostgreSQL need extras.
"""

from yaoki.ledger.auditor import Auditor
from yaoki.ledger.delivery import Delivered, Deliverer
from yaoki.ledger.findings import Book, Finding
from yaoki.ledger.ledger import Ledger, LedgerTx, Version
from yaoki.ledger.records import Batch, Record
from yaoki.ledger.repair import Repair, repair
from yaoki.ledger.retention import Pruned, prune
from yaoki.ledger.rules import Rules
from yaoki.ledger.schemas import Schemas
from yaoki.ledger.service import Keeper
from yaoki.ledger.sketch import Sketch, Tally
from yaoki.ledger.verdicts import Beat, Look, Verdict, judge
from yaoki.ledger.watch import Watch

__all__ = [
    "Auditor", "Batch", "Beat", "Book", "Delivered", "Deliverer", "Finding", "Keeper", "Ledger", "LedgerTx", "Look",
    "Pruned", "Record", "Repair", "Rules", "Schemas", "Sketch", "Tally", "Verdict", "Version", "Watch", "judge", "prune",
    "repair",
]
