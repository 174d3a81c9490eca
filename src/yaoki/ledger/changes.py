"""Changes on their way into a ledger, as columns: what can be done for a whole batch at once is done once.

Preparing a row costs more than storing it if it is done row by row: a hundred partitions, salts and fingerprints are
worked out side by side, and what all rows of a batch share (schema, trace) is kept once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from yaoki import effect
from yaoki.errors import InputError
from yaoki.ledger.epochs import beat_key
from yaoki.ledger.fingerprint import content_digest, key_ids
from yaoki.ledger.records import BEAT_PREFIX

SALT_BYTES = 16
COMMITMENT_BYTES = 32

MOST_ROWS = 10_000
"""Rows written by one statement. PostgreSQL draws that many positions for it at once (`STEP` in `store/schema.py`)."""


class Changes(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Changes of equal schema, in columns of equal length.

    Attributes:
        digests: MD5 of each content. salts, commitments: see `commitment_of`.
        expect: for a single change: the version it was made for; None: any.
        traceparent: of the effect under way, "" for none.
    """

    keys: Sequence[str]
    parts: Sequence[int]
    contents: Sequence[bytes]
    digests: Sequence[bytes]
    salts: Sequence[bytes]
    commitments: Sequence[bytes]
    schema: int = 0
    expect: int | None = None
    traceparent: str = ""

    def __len__(self) -> int:
        return len(self.keys)

    def pieces(self, size: int = MOST_ROWS) -> Iterator[Changes]:
        """The same changes, at most `size` at a time."""
        if len(self) <= size:
            yield self
            return
        columns = ("keys", "parts", "contents", "digests", "salts", "commitments")
        for start in range(0, len(self), size):
            yield msgspec.structs.replace(self, **{name: getattr(self, name)[start:start + size] for name in columns})


def prepare(changes: Sequence[tuple[str, Any]], partitions: int, *, schema: int = 0, expect: int | None = None) -> Changes:
    """(key, change) pairs as they are stored. A change is bytes, or anything that msgspec turns into JSON.

    Raises:
        InputError: a key is not one.
    """
    keys = [key for key, _ in changes]
    for key in keys:
        if type(key) is not str or not key or "\0" in key or key.startswith(BEAT_PREFIX):
            check_key(key)
    return _columns(keys, [kid % partitions for kid in key_ids(keys)], [_encoded(change) for _, change in changes], schema, expect)


def beats(partitions: int) -> Changes:
    """A heartbeat for each partition."""
    return _columns([beat_key(part) for part in range(partitions)], range(partitions), [b"beat"] * partitions)


def _columns(keys: Sequence[str], parts: Sequence[int], contents: Sequence[bytes], schema: int = 0,
             expect: int | None = None) -> Changes:
    drawn = os.urandom(SALT_BYTES * len(keys))  # salts are secrets: they do not come from the runtime's seedable randomness
    salts = [drawn[at:at + SALT_BYTES] for at in range(0, len(drawn), SALT_BYTES)]
    current = effect.current.get()
    return Changes(
        keys=keys, parts=parts, contents=contents, digests=list(map(content_digest, contents)), salts=salts,
        commitments=list(map(commitment_of, salts, contents)), schema=schema, expect=expect,
        traceparent=current.traceparent if current else "")


def commitment_of(salt: bytes, content: bytes) -> bytes:
    """32 bytes that bind a row to its content: BLAKE2b-256 keyed with `salt` (16 random bytes).

    The salt is random and is erased together with the content: then nobody can guess a short content (a heart rate, a
    name) and check the guess against the commitment, which stays, and keeps the chain whole.
    """
    return blake2b(content, digest_size=COMMITMENT_BYTES, key=salt).digest()


def _encoded(change: Any) -> bytes:
    return change if isinstance(change, bytes) else msgspec.json.encode(change)


def check_key(key: object) -> None:
    """Raise `InputError` unless this can be a key."""
    if not isinstance(key, str) or not key or "\0" in key:
        raise InputError(f"a key is a text, not empty, without NUL; got {key!r}", do="give each thing a key of its own")
    if key.startswith(BEAT_PREFIX):
        raise InputError(f"keys that begin with {BEAT_PREFIX!r} are heartbeats", do="choose another key")
