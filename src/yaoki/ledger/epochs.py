"""Seal what was written, piece by piece, so that a hole downstream can only be a loss.

    rows of one partition, in commit order ──▶ dense numbers seq = first_seq + i ──▶ one epoch: count, sum, sketch, hash

An epoch is a statement about a stretch of time: *these and no others*. An epoch of zero rows is a statement too. Its hash
covers the commitments of its rows and the hash of the epoch before, so that a change to any sealed row, or its removal,
shows in `verify_epoch`.

Heartbeats are ordinary rows of the key `__beat/<partition>`: they get numbers like all others and take the same path.
They are judged by their number, not by their content, so they stay out of count, sum and sketch.

Pure: rows in, epoch out. `sealer.py` reads the rows and stores the epoch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain, compress, pairwise

import msgspec

from yaoki.ledger.fingerprint import key_id
from yaoki.ledger.records import BEAT_PREFIX, Batch, is_beat
from yaoki.ledger.sketch import Sketch, Tally, tallies

GENESIS = "0" * 64
"""The hash that the first epoch of a partition follows."""

NAME = struct.Struct("<QI")
"""How a row's name begins in the root: its version, and the length of its key in bytes."""

Position = tuple[int, int]
"""Where a row stands in commit order: (effective transaction id, position); SQLite: (0, rowid)."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of the ledger.

    Attributes:
        commitment: 32 bytes that bind the row to its content without giving it away (`changes.commitment_of`).
        written_at: seconds since 1970 by the database's clock.
        content: None once it is erased, or where it was not asked for.
        schema: the number of the content's schema, as the writer gave it.
    """

    position: Position
    key: str
    version: int
    digest: bytes
    commitment: bytes
    written_at: float
    content: bytes | None = None
    schema: int = 0

    @property
    def is_beat(self) -> bool:
        return is_beat(self.key)


class Stretch(msgspec.Struct, frozen=True, gc=False):
    """Rows that follow each other in one partition, in commit order, as columns of equal length.

    Attributes:
        digests: b"" where the content is erased already.
        since, until: where the first row stands, and the last.
    """

    keys: list[str]
    versions: list[int]
    digests: list[bytes]
    commitments: list[bytes]
    since: Position = (0, 0)
    until: Position = (0, 0)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Stretch:
        assert all(a.position < b.position for a, b in pairwise(rows)), "rows must be in commit order"
        ends = (rows[0].position, rows[-1].position) if rows else ()
        return cls([row.key for row in rows], [row.version for row in rows], [row.digest for row in rows],
                   [row.commitment for row in rows], *ends)

    def without_beats(self) -> Stretch:
        if not any(map(is_beat, self.keys)):
            return self
        kept = [not is_beat(key) for key in self.keys]
        return Stretch(
            list(compress(self.keys, kept)), list(compress(self.versions, kept)), list(compress(self.digests, kept)),
            list(compress(self.commitments, kept)), self.since, self.until)


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed stretch of one partition.

    Attributes:
        epoch: its number in the partition, from 0, without holes.
        first_seq: the number of its first row; rows are numbered from 0, without holes.
        rows: how many rows, beats included.
        count, sum128, sketch: of the rows that are not beats. `sketch` is b"" once it was trimmed.
        beat: number of the newest beat at sealing, -1 before the first.
        until: the position of the last row sealed so far in the partition.
        sealed_at: seconds since 1970 by the database's clock.
        root: BLAKE2b-256 over the rows' names and commitments, in order.
        hash: BLAKE2b-256 over everything above (except the sketch, which follows from the rows) and `previous`.
    """

    part: int
    epoch: int
    first_seq: int
    rows: int
    count: int
    sum128: str
    sketch: bytes
    beat: int
    until: Position
    sealed_at: float
    root: str
    previous: str
    hash: str

    @property
    def next_seq(self) -> int:
        return self.first_seq + self.rows

    def tally(self) -> Tally:
        """What the epoch says its rows add up to. Needs the sketch."""
        sums = int(self.sum128[:16], 16), int(self.sum128[16:], 16)
        return Tally(self.count, sums, Sketch.from_bytes(self.sketch))


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key. A beat names its own."""
    if is_beat(key):
        return int(key.removeprefix(BEAT_PREFIX + "/"))
    return key_id(key) % partitions


def beat_key(part: int) -> str:
    return f"{BEAT_PREFIX}/{part}"


def tallies_of(stretches: Iterable[Stretch]) -> list[Tally]:
    """What the rows of each stretch that are not beats add up to."""
    kept = [each.without_beats() for each in stretches]
    rows = Batch(*(list(chain.from_iterable(getattr(each, name) for each in kept)) for name in ("keys", "versions", "digests")))
    return tallies(rows, [len(each.keys) for each in kept])


def seal_all(previous: Mapping[int, Epoch], ready: Mapping[int, Stretch], sealed_at: float) -> list[Epoch]:
    """An epoch for each partition in `ready`, as `seal` makes it: what can be added up for all at once is."""
    made = tallies_of(ready.values())
    return [seal(previous.get(part), part, rows, sealed_at, tally) for (part, rows), tally in zip(ready.items(), made, strict=True)]


def seal(previous: Epoch | None, part: int, rows: Stretch, sealed_at: float, tally: Tally | None = None) -> Epoch:
    """The epoch that follows `previous` and holds `rows`, which are all rows after `previous.until`, in commit order.

    Args:
        tally: what the rows that are not beats add up to, if that is known already.
    """
    if previous is not None and rows.keys:
        assert rows.since > previous.until, "a row that was sealed already, or came in before one that was"
    tally = tally or tallies_of([rows])[0]
    beats = [version for key, version in zip(rows.keys, rows.versions, strict=True) if is_beat(key)]
    fields = {
        "part": part,
        "epoch": previous.epoch + 1 if previous else 0,
        "first_seq": previous.next_seq if previous else 0,
        "rows": len(rows.keys),
        "count": tally.count,
        "sum128": tally.sum128,
        "beat": max(beats, default=previous.beat if previous else -1),
        "until": rows.until if rows.keys else previous.until if previous else (0, 0),
        "sealed_at": sealed_at,
        "root": root_of(rows),
        "previous": previous.hash if previous else GENESIS,
    }
    return msgspec.convert({**fields, "sketch": tally.sketch.to_bytes(), "hash": hash_of(fields)}, Epoch)


def root_of(rows: Stretch) -> str:
    """BLAKE2b-256 over each row's version, key and commitment, in order."""
    names = [key.encode() for key in rows.keys]
    heads = map(NAME.pack, rows.versions, map(len, names))
    return blake2b(b"".join(chain.from_iterable(zip(heads, names, rows.commitments, strict=True))), digest_size=32).hexdigest()


def hash_of(fields: dict[str, object]) -> str:
    """The hash of an epoch's fields other than `sketch` and `hash`."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=32).hexdigest()


def verify_epoch(epoch: Epoch, previous: Epoch | None, rows: Sequence[Row] | None) -> str:
    """Why this epoch cannot be what was sealed, or "". With `rows`, they are checked too."""
    fields = msgspec.to_builtins(epoch, builtin_types=(bytes,))
    fields.pop("sketch")
    fields.pop("hash")
    if hash_of(fields) != epoch.hash:
        return "its record was changed"
    if epoch.previous != (previous.hash if previous else GENESIS) or epoch.epoch != (previous.epoch + 1 if previous else 0):
        return "it does not follow the epoch before it: one was changed, added or removed"
    if previous is not None and epoch.first_seq != previous.next_seq:
        return "its numbers do not follow those before"
    if rows is None:
        return ""
    if len(rows) != epoch.rows:
        return f"it was sealed with {epoch.rows} rows and has {len(rows)}"
    if root_of(Stretch.of(rows)) != epoch.root:
        return "a row in it was changed"
    return ""
