"""Bring back what a sink lost, from the copy at the source, and believe it only when it is read again.

Repair is idempotent: a version that is there already stays as it is, and a name that holds another content is never
written over. More than a person expects to repair at once is refused: it mostly means a wrong table or bucket.
"""

from __future__ import annotations

import msgspec

from yaoki.errors import RepairRefusedError
from yaoki.ledger import findings as kinds
from yaoki.ledger.findings import Finding
from yaoki.ledger.records import Naming
from yaoki.ledger.watch import Watch

BRAKE = 1000
"""Most versions repaired in one go without being told to: an hour of losses, not a table's whole history."""


REFUSED = 4
"""The exit code of a command that a safety guard stopped."""


class Repair(msgspec.Struct, kw_only=True):
    """What a repair did, or would do.

    Attributes:
        repaired: read again from the sink, in order now.
        failed: why, by name.
        lost: no copy exists anywhere: LOST_UNREPAIRABLE.
        left: a person decides: another content is there, or something that should not be.
    """

    planned: list[Naming] = msgspec.field(default_factory=list)
    repaired: list[Naming] = msgspec.field(default_factory=list)
    failed: dict[str, str] = msgspec.field(default_factory=dict)
    lost: list[Naming] = msgspec.field(default_factory=list)
    left: list[str] = msgspec.field(default_factory=list)


def plan(findings: list[Finding], copies: set[Naming]) -> Repair:
    """What can be repaired, what cannot, and what a person decides. Pure."""
    result = Repair()
    for each in findings:
        name = each.key, each.version
        if each.version < 0 or each.kind != kinds.MISSING:
            result.left.append(each.id)
        elif name in copies:
            result.planned.append(name)
        else:
            result.lost.append(name)
    return result


async def repair(watch: Watch, *, limit: int = BRAKE, dry_run: bool = False) -> Repair:
    """Redeliver what the open findings of this audit miss, and look again.

    Args:
        limit: the brake.
        dry_run: say what would be done.

    Raises:
        RepairRefusedError: more than `limit` would be repaired; nothing was.
    """
    open_ones = [each for each in watch.auditor.book.open_ones() if each.version >= 0]
    names = [(each.key, each.version) for each in open_ones]
    result = plan(open_ones, await watch.source.has_copies(names) if names else set())
    if len(result.planned) > limit:
        raise RepairRefusedError(
            f"{len(result.planned)} versions would be repaired, the limit is {limit}",
            do=f"check that source and sink belong together, then repeat with --limit {len(result.planned)}",
            wanted=len(result.planned), limit=limit, exit_code=REFUSED)
    if dry_run or not result.planned:
        return result
    failed = await watch.source.redeliver(result.planned, watch.sink)
    result.failed = {f"{key}-{version}": why for (key, version), why in failed.items()}
    await watch.look(repaired=[name for name in result.planned if name not in failed])
    still_open = {(each.key, each.version) for each in watch.auditor.book.open_ones()}
    result.repaired = [name for name in result.planned if name not in still_open]
    return result
