"""Which canaries to write, so that each shard of a stream has one, although nobody can choose a key's shard. Pure.

A key's shard is learned by seeing where its record comes out. Keys fall on shards like balls into bins: about S ln(S/δ) of
them leave no shard of S empty with probability 1 - δ. A shard that was split or has ended is learned anew.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from yaoki.ledger.records import BEAT_PREFIX

CANARY = BEAT_PREFIX + "-canary-"
CANARIES_A_SHARD = 2
"""One to judge by, one in reserve."""

CERTAINTY = 0.01
"""The chance of a shard without a canary that is accepted when drawing keys (δ)."""


def canaries_due(keys: Mapping[str, tuple[str, int]], open_shards: Collection[str]) -> dict[str, int]:
    """The canaries to write now, with the number of each.

    Args:
        keys: the shard of each canary so far, "" while not known, and its newest number; oldest first.
        open_shards: those that take new records.
    """
    due: dict[str, int] = {}
    covered: dict[str, int] = {}
    for key, (shard, number) in keys.items():
        ended = bool(shard) and shard not in open_shards
        if ended or (shard and covered.get(shard, 0) >= CANARIES_A_SHARD):
            continue
        covered[shard] = covered.get(shard, 0) + 1
        due[key] = number + 1
    lacking = sum(shard not in covered for shard in open_shards)
    if (lacking or not keys) and covered.get("", 0) < enough_for(len(open_shards)):
        more = max(lacking, len(open_shards) // 4, 1)  # when few shards are lacking, most new keys fall elsewhere
        due |= {f"{CANARY}{len(keys) + index}": 1 for index in range(more)}
    return due


def enough_for(shards: int) -> int:
    """How many keys of unknown shard to have under way at most."""
    shards = max(shards, 1)
    return math.ceil(shards * math.log(shards / CERTAINTY))
