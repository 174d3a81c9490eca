"""Who reads which partition: a pure decision, the same for every database.

Each worker of a group wants `ceil(partitions / live workers)`. It takes free partitions up to that, never another's, and
offers to give back what it holds above it. A worker is live while its own row is fresh; a partition is free when nobody
owns it or its owner's lease ran out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from yaoki.messages.envelope import PARTS

# After a foreign lease runs out, look a little later than that, so that one look is enough.
GRACE_S = 0.02


class Owned(msgspec.Struct, frozen=True):
    """Who holds a partition, and for how many seconds from now (negative: it ran out)."""

    owner: str
    left_s: float


class Plan(msgspec.Struct, frozen=True):
    """Which partitions to take now, which own ones to give back, and when to look again."""

    take: tuple[int, ...]
    surplus: frozenset[int]
    check_in_s: float


def plan(owned: Mapping[int, Owned], workers: Collection[str], me: str, *, ttl_s: float,
         draining: Collection[int] = ()) -> Plan:
    """Decide this worker's share.

    Args:
        owned: the partitions that have had an owner.
        workers: the live ones, with `me`.
        draining: own partitions that are being given back already: neither counted nor offered again.
    """
    fair = -(-PARTS // max(1, len(workers)))
    mine = [part for part, each in owned.items() if each.owner == me]
    kept = [part for part in mine if part not in draining]
    free = [part for part in range(PARTS) if part not in mine and _is_free(owned.get(part))]
    foreign = [each.left_s for part, each in owned.items() if part not in mine and part not in free]
    return Plan(
        take=tuple(free[: max(0, fair - len(kept))]),
        surplus=frozenset(sorted(kept)[fair:]),
        check_in_s=min([ttl_s / 3, *(left + GRACE_S for left in foreign)]),
    )


def _is_free(each: Owned | None) -> bool:
    return each is None or not each.owner or each.left_s < 0
